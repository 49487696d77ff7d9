/** How long what failed waits for its next try: longer each time, never for ever. */

/** Milliseconds before the second try. */
export const FIRST_RETRY_MS = 1_000
const LAST_RETRY_MS = 5 * 60_000

/** Milliseconds to wait after try number `tries` (from 1) has failed. */
export function retryDelayMs(tries: number, firstMs = FIRST_RETRY_MS): number {
  return Math.min(LAST_RETRY_MS, firstMs * 2 ** (tries - 1))
}
