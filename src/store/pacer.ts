/**
 * Keeps long work on the main thread in slices, so that the kernel's requests are answered in between.
 *
 * Why a clock and not a count: a step costs from one microsecond (an index entry) to a millisecond (a block
 * that is hashed), and what must be bounded is the time.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { CidfsError } from '../core/errors.js'

const SLICE_MS = 4

export class Pacer {
  readonly #signal: AbortSignal | undefined
  #sliceStart = performance.now()

  constructor(signal?: AbortSignal) {
    this.#signal = signal
  }

  /** Whether the slice is used up, so that the caller should `await pause()`. */
  get due(): boolean {
    return performance.now() - this.#sliceStart >= SLICE_MS
  }

  /**
   * Lets the event loop run once and begins a new slice.
   * @throws CidfsError `INTERRUPTED` when the signal was aborted.
   */
  async pause(): Promise<void> {
    await nextTurn()
    this.#sliceStart = performance.now()
    this.check()
  }

  /** @throws CidfsError `INTERRUPTED` when the signal was aborted. */
  check(): void {
    if (this.#signal?.aborted) throw new CidfsError('INTERRUPTED', 'interrupted')
  }
}
