/**
 * One search that several callers follow: what the searchers find is shown to all of them, from the beginning.
 *
 * Invariant: it starts with the first follower, and the searchers are told to stop when the last one leaves, when
 * `max` different items are known, or after `timeoutMs`. An item is shown once, whoever found it.
 */
import { withResolvers } from '../core/with-resolvers.js'

export type Search<T> = (signal: AbortSignal) => AsyncIterable<T>

export interface LookupOptions<T> {
  max: number
  timeoutMs: number
  /** Equal for items that are the same. */
  keyOf(item: T): string
}

export class Lookup<T> {
  /** So far. */
  readonly found: T[] = []
  /** A searcher failed, and not because it was told to stop. */
  onError: (searcher: number, err: unknown) => void = () => {}
  /** `complete`: every searcher came to its end by itself. */
  onEnd: (complete: boolean) => void = () => {}
  readonly #searches: readonly Search<T>[]
  readonly #options: LookupOptions<T>
  readonly #keys = new Set<string>()
  readonly #stop = new AbortController()
  #followers = 0
  #started = false
  #ended = false
  #news = withResolvers<void>()

  constructor(searches: readonly Search<T>[], options: LookupOptions<T>) {
    this.#searches = searches
    this.#options = options
  }

  async *follow(signal: AbortSignal): AsyncGenerator<T> {
    if (signal.aborted) return
    const left = withResolvers<void>()
    const onAbort = () => left.resolve()
    signal.addEventListener('abort', onAbort)
    this.#followers++
    this.#start()
    try {
      for (let next = 0; !signal.aborted; ) {
        const { promise } = this.#news
        while (next < this.found.length && !signal.aborted) yield this.found[next++]!
        if (this.#ended) return
        await Promise.race([promise, left.promise])
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
      if (--this.#followers === 0) this.#end(false)
    }
  }

  #start(): void {
    if (this.#started) return
    this.#started = true
    const timer = setTimeout(() => this.#end(false), this.#options.timeoutMs)
    this.#stop.signal.addEventListener('abort', () => clearTimeout(timer))
    void Promise.all(this.#searches.map((search, i) => this.#run(search, i))).then(done =>
      this.#end(done.every(Boolean)),
    )
  }

  /** Whether it came to its end. */
  async #run(search: Search<T>, index: number): Promise<boolean> {
    const { signal } = this.#stop
    try {
      for await (const item of search(signal)) {
        if (this.#ended) break
        this.#add(item)
      }
      return true
    } catch (err) {
      if (!this.#ended) this.onError(index, err)
      return false
    }
  }

  #add(item: T): void {
    const key = this.#options.keyOf(item)
    if (this.#keys.has(key)) return
    this.#keys.add(key)
    this.found.push(item)
    this.#tell()
    if (this.found.length >= this.#options.max) this.#end(false)
  }

  #end(complete: boolean): void {
    if (this.#ended) return
    this.#ended = true
    this.onEnd(complete)
    this.#stop.abort()
    this.#tell()
  }

  #tell(): void {
    const { resolve } = this.#news
    this.#news = withResolvers()
    resolve()
  }
}
