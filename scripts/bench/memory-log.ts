/** Remembers how much memory some processes took, those that have ended included. */
import { memoryOf } from './processes.js'
import { median } from './statistics.js'

export class MemoryLog {
  readonly #starts: number[] = []
  readonly #peaks: number[] = []
  readonly #live = new Set<number>()

  /** To be called when it is ready and has done nothing yet. */
  async started(pid: number): Promise<void> {
    this.#live.add(pid)
    this.#starts.push((await memoryOf(pid)).rssBytes)
  }

  /** To be called before it ends. */
  async ending(pid: number): Promise<void> {
    this.#live.delete(pid)
    this.#peaks.push((await memoryOf(pid)).peakBytes)
  }

  /** Bytes: the median at the start, the largest peak. */
  async figures(): Promise<{ start: number; peak: number }> {
    for (const pid of [...this.#live]) this.#peaks.push((await memoryOf(pid)).peakBytes)
    return { start: median(this.#starts), peak: Math.max(...this.#peaks) }
  }
}
