/**
 * The permissions of /dev/fuse, which all tests share.
 *
 * Invariant: tests that need certain ones take turns, and leave those that they found. The turn is a lock on the
 * device, which ends with its holder however that ends.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, statSync } from 'node:fs'
import { atEnd, type Owner } from './temp.js'

const DEVICE = '/dev/fuse'
const TURN_TIMEOUT_S = 90

/** Sets the mode of the device until the end of the test; waits for other tests that have done so. */
export async function setDeviceMode(t: Owner, mode: number): Promise<void> {
  const holder = spawn(
    'flock',
    ['-x', '-w', `${TURN_TIMEOUT_S}`, DEVICE, 'sh', '-c', 'echo locked; exec cat'],
    {
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  )
  const ended = once(holder, 'exit')
  const locked = await Promise.race([once(holder.stdout, 'data').then(() => true), ended.then(() => false)])
  if (!locked) throw new Error(`${DEVICE} is not free for this test`)
  const before = statSync(DEVICE).mode & 0o777
  chmodSync(DEVICE, mode)
  atEnd(t, async () => {
    chmodSync(DEVICE, before)
    holder.stdin.end()
    await ended
  })
}
