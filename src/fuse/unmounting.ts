/**
 * Taking a mount of ours down while its connection is open.
 *
 * Invariant: only the mount that was made is touched: it is known by the number of its device, which nothing else
 * can have as long as the connection lives.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { codeOf } from '../core/errors.js'
import { unmount } from './mount.js'
import { type MountEntry, mountAt } from './mount-table.js'

export const BUSY_RETRY_MS = 50
/** From the end of a mount to the end of what served it. */
export const CLOSE_TIMEOUT_MS = 2000

/** Whether the mount is still in the tree. */
export function isMounted({ mountpoint, device }: MountEntry): boolean {
  return mountAt(mountpoint)?.device === device
}

/**
 * Unmounts; while files are open it tries again for `lazyAfterMs`, then detaches the mount.
 * @returns whether it was detached while in use.
 * @throws CidfsError `PERMISSION`, `MISSING_TOOL`.
 */
export async function unmountWithin(mount: MountEntry, lazyAfterMs: number): Promise<boolean> {
  const lazyAt = performance.now() + lazyAfterMs
  while (isMounted(mount)) {
    const lazy = performance.now() >= lazyAt
    try {
      await unmount(mount.mountpoint, { lazy })
      return lazy
    } catch (err) {
      // Somebody else may have unmounted it in the meantime.
      if (codeOf(err) !== 'BUSY' && isMounted(mount)) throw err
    }
    await sleep(Math.min(BUSY_RETRY_MS, Math.max(0, lazyAt - performance.now())))
  }
  return false
}

/** Whether `event` comes within `ms`. */
export async function comesWithin(event: Promise<unknown>, ms: number): Promise<boolean> {
  const timeout = new AbortController()
  const late = sleep(ms, false, { signal: timeout.signal }).catch(() => false)
  const inTime = await Promise.race([event.then(() => true), late])
  timeout.abort()
  return inTime
}

/** Waits until `inFlight` is 0. @returns false when that took longer than `ms`. */
export async function drained(inFlight: () => number, ms: number): Promise<boolean> {
  for (const end = performance.now() + ms; inFlight() > 0; await sleep(5)) {
    if (performance.now() > end) return false
  }
  return true
}
