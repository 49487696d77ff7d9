/**
 * Work that several wait for.
 *
 * Invariant: it is told to end when the last who waited has left, unless somebody wanted it done in any case.
 */
import { orInterrupted } from '../core/interrupted.js'

export class SharedWork<T> {
  readonly done: Promise<T>
  readonly #abandon = new AbortController()
  #waiting = 0
  #kept = false

  /** Starts it. */
  constructor(work: (signal: AbortSignal) => Promise<T>) {
    this.done = work(this.#abandon.signal)
    this.done.catch(() => {}) // those who waited may have left
  }

  /** Nobody waits for it any more. */
  get abandoned(): boolean {
    return this.#abandon.signal.aborted
  }

  /** It goes on, whoever waits. */
  keep(): this {
    this.#kept = true
    return this
  }

  /** @throws CidfsError `INTERRUPTED` when `signal` is aborted; what the work throws. */
  async wait(signal?: AbortSignal | undefined): Promise<T> {
    this.#waiting++
    try {
      return await orInterrupted(this.done, signal)
    } finally {
      if (--this.#waiting === 0 && !this.#kept) this.#abandon.abort()
    }
  }
}
