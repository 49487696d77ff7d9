/**
 * Signals with a time limit.
 *
 * Why not `AbortSignal.any([…, AbortSignal.timeout(ms)])`: in Node 20 nothing but a weak reference leads from the
 * timer to what was made of it, so that after a garbage collection the limit never fires.
 */
import { setMaxListeners } from 'node:events'

/**
 * Aborted when one of `signals` is, with its reason, or after `ms`, with a `TimeoutError`. Keeps no process alive;
 * whatever it holds is let go after `ms` at the latest.
 */
export function deadline(ms: number, ...signals: (AbortSignal | undefined)[]): AbortSignal {
  const controller = new AbortController()
  const parents = signals.filter(signal => signal !== undefined)
  setMaxListeners(0, ...parents) // many things end with the same signal, and that is no leak
  const end = (reason: unknown) => {
    clearTimeout(timer)
    for (const parent of parents) parent.removeEventListener('abort', onAbort)
    controller.abort(reason)
  }
  const onAbort = (event: Event) => end((event.target as AbortSignal).reason)
  const late = () => end(new DOMException(`not done within ${ms} ms`, 'TimeoutError'))
  const timer = setTimeout(late, ms)
  timer.unref()
  for (const parent of parents) {
    if (parent.aborted) end(parent.reason)
    else if (!controller.signal.aborted) parent.addEventListener('abort', onAbort)
  }
  return controller.signal
}
