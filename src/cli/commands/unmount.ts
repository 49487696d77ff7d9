/**
 * `cidfs unmount <dir>`: asks the daemon to drain and stop, and returns when it is gone.
 *
 * Invariant: success means that nothing of the daemon is left, neither process nor mount; where files are still
 * open, the mount is out of the tree and the daemon ends with the last of them, which is said. The mount of a
 * daemon that died is taken down without it.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Command } from 'commander'
import { CidfsError, codeOf } from '../../core/errors.js'
import type { UnmountResult } from '../../daemon/control-protocol.js'
import { type DaemonRecord, findByState, isRunning } from '../../daemon/registry.js'
import { clearStaleMount } from '../../fuse/mount.js'
import { FS_TYPE, mountAt, resolveMountpoint } from '../../fuse/mount-table.js'
import { ControlClient } from '../control-client.js'
import { daemonAt } from '../find-daemon.js'
import { count, note, print, printJson } from '../output.js'

/** From the end of the mount to the end of the process, which still publishes what is queued. */
const END_TIMEOUT_MS = 60_000
/** When a drain takes longer, the user is told what it waits for. */
const EXPLAIN_AFTER_MS = 2000

interface Flags {
  lazy?: boolean
  json?: boolean
}

type Report = UnmountResult & { mountpoint: string; stale: boolean }

export function unmountCommand(): Command {
  return new Command('unmount')
    .description('finish publishing, unmount, stop the daemon')
    .argument('<dir>', 'the mountpoint')
    .option('--lazy', 'detach at once; what is queued is published after the next mount')
    .option('--json', 'print the result as JSON')
    .action(async (dir: string, flags: Flags) => {
      const daemon = await daemonAt(dir)
      const report = daemon === undefined ? await clear(dir) : await stop(daemon, flags.lazy === true)
      if (flags.json === true) printJson(report)
      else print(describe(report))
    })
}

function describe({ mountpoint, lazy, stale }: Report): string {
  if (stale) return `${mountpoint}: its daemon had died; the dead mount is removed`
  if (lazy) return `${mountpoint}: detached; files are still open there, the mount goes when they are closed`
  return `${mountpoint} is unmounted`
}

async function clear(dir: string): Promise<Report> {
  if (await clearStaleMount(dir)) return { mountpoint: resolveMountpoint(dir), lazy: false, stale: true }
  if (mountAt(resolveMountpoint(dir))?.type !== FS_TYPE) {
    throw new CidfsError('NOT_RUNNING', `nothing of cidfs is mounted at ${dir}`, { path: dir })
  }
  throw new CidfsError(
    'PERMISSION',
    `${dir} is served by a daemon that this user cannot reach; ask as its owner`,
  )
}

async function stop(daemon: DaemonRecord, lazy: boolean): Promise<Report> {
  const client = new ControlClient(daemon)
  const timer = setTimeout(() => void explain(client), EXPLAIN_AFTER_MS)
  try {
    const result = await client.unmount({ lazy })
    if (!result.lazy) await waitForEnd(daemon) // else it serves what is open until that is closed
    return { mountpoint: daemon.mountpoint, stale: false, ...result }
  } catch (err) {
    if (codeOf(err) !== 'NOT_RUNNING') throw err
    const next = daemon.keeper && (await findByState(daemon.stateDir))
    return next === undefined || next.pid === daemon.pid ? await died(daemon) : await stop(next, lazy)
  } finally {
    clearTimeout(timer)
  }
}

/** It ended while we asked: stopped by somebody else, or crashed and its mount still there. */
async function died(daemon: DaemonRecord): Promise<Report> {
  await waitForEnd(daemon)
  const stale = await clearStaleMount(daemon.mountpoint)
  return { mountpoint: daemon.mountpoint, lazy: false, stale }
}

async function waitForEnd(daemon: DaemonRecord): Promise<void> {
  const last = daemon.keeper ?? daemon // it ends after the daemon
  for (const end = performance.now() + END_TIMEOUT_MS; await isRunning(last); await sleep(10)) {
    if (performance.now() > end) {
      const { pid } = daemon
      throw new CidfsError('TIMEOUT', `the daemon (pid ${pid}) does not end; end it with: kill ${pid}`)
    }
  }
}

async function explain(client: ControlClient): Promise<void> {
  try {
    const { queued, publishing, writing } = (await client.status()).staging
    const pending = queued + publishing + writing
    if (pending > 0) note(`waiting until ${count(pending, 'file')} are published; --lazy detaches at once`)
  } catch {
    // It has just ended; the answer is on its way.
  }
}
