/** Waiting that a signal ends. */
import { CidfsError } from './errors.js'

/**
 * What `work` comes to, whether it heeds the signal or not.
 * @throws CidfsError `INTERRUPTED` as soon as `signal` is aborted; `work` then goes on unheard.
 */
export async function orInterrupted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work
  let onAbort: () => void = () => {}
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(new CidfsError('INTERRUPTED', 'interrupted'))
    signal.addEventListener('abort', onAbort)
    if (signal.aborted) onAbort()
  })
  try {
    return await Promise.race([work, aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
    work.catch(() => {})
  }
}
