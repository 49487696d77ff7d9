/**
 * Gets many blocks, where each may ask for more: the shards of a directory, the nodes over a range of a file.
 *
 * Invariant: at most `limit` gets are under way; blocks that are there are taken at once, so a gathering of
 * local blocks needs no promise. The first failure ends it; what is still under way is left to its readers.
 * Why pipelined: asking level by level costs a round trip per level and waits for the slowest of each.
 */
import { isPromise, type MaybePromise } from '../core/maybe-promise.js'

export interface GatherOptions {
  /** Gets under way at a time. */
  limit?: number
  /** Let the event loop turn when this many milliseconds were spent without a pause. Absent: never. */
  sliceMs?: number
}

const DEFAULT_LIMIT = 32

/**
 * Runs `get` for every job of `work`, and `take` with what it returned; `take` may add to `work`.
 * @throws whatever `get` or `take` throw first.
 */
export function gather<Job>(
  work: Job[],
  get: (job: Job) => MaybePromise<Uint8Array>,
  take: (job: Job, bytes: Uint8Array) => void,
  options: GatherOptions = {},
): MaybePromise<void> {
  const gathering = new Gathering(work, get, take, options)
  gathering.pump()
  if (gathering.finished) return gathering.conclude()
  return new Promise((resolve, reject) => gathering.onEnd(resolve, reject))
}

class Gathering<Job> {
  readonly #work: Job[]
  readonly #get: (job: Job) => MaybePromise<Uint8Array>
  readonly #take: (job: Job, bytes: Uint8Array) => void
  readonly #limit: number
  readonly #sliceMs: number
  #next = 0
  #underWay = 0
  #yielded = false
  #failure: { err: unknown } | undefined
  #resolve: (() => void) | undefined
  #reject: ((err: unknown) => void) | undefined

  constructor(
    work: Job[],
    get: (job: Job) => MaybePromise<Uint8Array>,
    take: (job: Job, bytes: Uint8Array) => void,
    { limit = DEFAULT_LIMIT, sliceMs = Number.POSITIVE_INFINITY }: GatherOptions,
  ) {
    this.#work = work
    this.#get = get
    this.#take = take
    this.#limit = limit
    this.#sliceMs = sliceMs
  }

  get finished(): boolean {
    if (this.#failure !== undefined) return true
    return this.#underWay === 0 && !this.#yielded && this.#next === this.#work.length
  }

  conclude(): void {
    if (this.#failure !== undefined) throw this.#failure.err
  }

  onEnd(resolve: () => void, reject: (err: unknown) => void): void {
    this.#resolve = resolve
    this.#reject = reject
  }

  /** Starts what may be started. */
  pump(): void {
    const deadline = performance.now() + this.#sliceMs
    while (this.#failure === undefined && this.#underWay < this.#limit && this.#next < this.#work.length) {
      if (performance.now() > deadline) {
        this.#pause()
        return
      }
      this.#start(this.#work[this.#next++]!)
    }
  }

  #pause(): void {
    this.#yielded = true
    setImmediate(() => {
      this.#yielded = false
      this.#resume()
    })
  }

  #start(job: Job): void {
    this.#attempt(() => {
      const bytes = this.#get(job)
      if (!isPromise(bytes)) return this.#take(job, bytes)
      this.#underWay++
      bytes.then(
        value => this.#arrived(() => this.#take(job, value)),
        err => this.#arrived(() => this.#fail(err)),
      )
    })
  }

  #arrived(use: () => void): void {
    this.#underWay--
    if (this.#failure !== undefined) return
    this.#attempt(use)
    this.#resume()
  }

  #resume(): void {
    if (!this.#yielded) this.pump()
    if (!this.finished) return
    if (this.#failure === undefined) this.#resolve?.()
    else this.#reject?.(this.#failure.err)
  }

  #attempt(step: () => void): void {
    try {
      step()
    } catch (err) {
      this.#fail(err)
    }
  }

  #fail(err: unknown): void {
    this.#failure ??= { err }
  }
}
