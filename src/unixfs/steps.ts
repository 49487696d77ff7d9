/**
 * Long computations that do not hold up the event loop.
 *
 * A computation is a generator that yields often (every millisecond or less) and returns its result.
 */
import type { MaybePromise } from '../core/maybe-promise.js'

export type Steps<T> = Generator<void, T>

/** Longest turn of the event loop a computation takes. */
const SLICE_MS = 4

/** Runs in slices of about four milliseconds; at once when one is enough. */
export function runSliced<T>(steps: Steps<T>): MaybePromise<T> {
  const first = runSlice(steps)
  if (first.done) return first.value
  return new Promise((resolve, reject) => {
    const turn = () => {
      try {
        const result = runSlice(steps)
        if (result.done) resolve(result.value)
        else setImmediate(turn)
      } catch (err) {
        reject(err)
      }
    }
    setImmediate(turn)
  })
}

/** Runs to the end: for workers. */
export function runNow<T>(steps: Steps<T>): T {
  for (;;) {
    const result = steps.next()
    if (result.done) return result.value
  }
}

function runSlice<T>(steps: Steps<T>): IteratorResult<void, T> {
  const deadline = performance.now() + SLICE_MS
  for (;;) {
    const result = steps.next()
    if (result.done || performance.now() >= deadline) return result
  }
}
