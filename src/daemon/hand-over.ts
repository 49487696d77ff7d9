/**
 * Leaving a mount to a daemon of another version.
 *
 * Invariant: what the kernel asks meanwhile waits, nothing fails. Until the successor is prepared this daemon serves
 * as before; if it fails after that, this one ends, and its supervisor starts another of this version.
 */
import { CidfsError } from '../core/errors.js'
import type { Session } from '../fs/session.js'
import { FuseSession, type Succession } from '../fuse/session.js'
import type { UpgradeResult } from './control-protocol.js'
import type { Supervisor } from './sd-notify.js'
import { Successor } from './successor.js'
import { VERSION } from './version.js'

/** Requests under way may take this long; where the kernel can send them again, those that take longer are. */
const DRAIN_MS = 2000
/** Where it cannot, they have to end. */
const LONG_DRAIN_MS = 20_000

export interface HandOver {
  session: Session
  supervisor: Supervisor | undefined
  succession: Succession | undefined
  /** Stops everything here, but leaves the mount as it is. */
  letGo(): Promise<void>
}

/** @throws CidfsError `NOT_SUPPORTED`, `BUSY`: nothing has changed. Anything else: nothing is left here. */
export async function handOver(program: string[], parts: HandOver): Promise<UpgradeResult> {
  const { session, supervisor, succession, letGo } = parts
  if (!(session instanceof FuseSession) || supervisor === undefined || succession === undefined) {
    const message =
      'this daemon has neither a keeper nor systemd to hold its mount: unmount it, and mount it again'
    throw new CidfsError('NOT_SUPPORTED', message)
  }
  const inherited = { fuse: session.descriptor, handles: succession.handles.fd }
  const successor = new Successor(program, inherited, supervisor.environment)
  await successor.prepared()
  session.pause()
  const drained = await session.drain(succession.resend ? DRAIN_MS : LONG_DRAIN_MS)
  if (!drained && !succession.resend) {
    session.proceed()
    await successor.end()
    throw new CidfsError(
      'BUSY',
      'requests wait for the network, and this kernel cannot repeat them: try again later',
    )
  }
  await letGo()
  const pid = await successor.takesOver()
  supervisor.replacedBy(pid)
  successor.release()
  return { pid, previous: { pid: process.pid, version: VERSION } }
}
