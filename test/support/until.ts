/** Waiting for a condition that nothing announces. */
import { setTimeout as sleep } from 'node:timers/promises'

const POLL_MS = 5

/**
 * What `condition` returned when it was first neither false nor undefined.
 * @throws Error after `timeoutMs`, saying what was waited for.
 */
export async function until<T>(
  what: string,
  condition: () => T | Promise<T>,
  timeoutMs = 10_000,
): Promise<Exclude<T, false | undefined>> {
  for (const end = performance.now() + timeoutMs; ; await sleep(POLL_MS)) {
    const value = await condition()
    if (value !== false && value !== undefined) return value as Exclude<T, false | undefined>
    if (performance.now() > end) throw new Error(`not within ${timeoutMs} ms: ${what}`)
  }
}
