/**
 * A daemon for the tests: mounts one file on the directory of the first argument.
 *
 * With a user id as second argument it gives up being root for good, then mounts, reads its own mount with a child
 * of the same user, unmounts, and prints what happened. Without, it serves until it is unmounted or killed.
 */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { messageOf } from '../../src/core/errors.js'
import { addon } from '../../src/core/native.js'
import { FuseSession } from '../../src/fuse/session.js'
import { openDescriptors } from './fixture.js'
import { MemoryFileSystem } from './memory-file-system.js'

const [dir = '', user] = process.argv.slice(2)

function becomeUser(uid: number): void {
  // Everything has to be loaded before: the user may have no right to read it.
  addon()
  process.setgroups?.([])
  process.setgid?.(uid)
  process.setuid?.(uid)
}

async function useAndUnmount(session: FuseSession, before: string[]): Promise<void> {
  const { stdout: cat } = await promisify(execFile)('cat', [`${dir}/f`], { timeout: 10_000 })
  const { lazy } = await session.unmount()
  await session.closed
  const device = openDescriptors().filter(
    target => target === '/dev/fuse' || target.startsWith('socket:'),
  ).length
  console.log(JSON.stringify({ uid: process.getuid?.(), cat, lazy, device }))
}

try {
  if (user !== undefined) becomeUser(Number(user))
  const fs = new MemoryFileSystem()
  fs.addFile('f', Buffer.from('from the child'))
  const before = openDescriptors()
  const session = await FuseSession.mount(dir, fs)
  if (user !== undefined) await useAndUnmount(session, before)
} catch (err) {
  console.error(`${(err as { code?: string }).code}: ${messageOf(err)}`)
  process.exitCode = 1
}
