/**
 * What is known of one source: how fast it answers, how often it has what it is asked for, and whether to leave
 * it alone for a while.
 *
 * Invariant: only a delivered, verified block makes a source whole again. While it backs off, an answer to a
 * probe merely lets it be asked; the next failure continues the series of growing pauses where it stopped.
 * Why: a source that is up but useless would otherwise cost every read one hedge.
 *
 * Times are milliseconds of `performance.now()`, except in `status`.
 */
import type { FailureKind, SourceError, SourceState } from './source.js'

const SAMPLES = 64
/** Weight of the newest value in the moving averages. */
const ALPHA = 0.15
const MIN_HEDGE_MS = 50
const MAX_HEDGE_MS = 1_000
/** Before enough blocks have come to know better. */
const FIRST_HEDGE_MS = 300
const FIRST_PAUSE_MS = 1_000
const MAX_PAUSE_MS = 60_000
/** Failures in a row that start a pause; one is enough when there is no connection. */
const FAILURES_TOLERATED = 3
const RATE_WINDOW_MS = 5_000

export class Health {
  blocks = 0
  bytes = 0
  errors = 0
  lastError: SourceError | undefined
  /** Milliseconds since the epoch. */
  lastErrorAt: number | undefined
  readonly #costMs: number
  readonly #latencies: number[] = []
  #sampleCount = 0
  #sorted: number[] = []
  #latencyMs: number | undefined
  #missRate = 0
  #failureRate = 0
  #failuresInRow = 0
  #pauses = 0
  #pausedUntil = 0
  #onProbation = false
  #failedAt = Number.NEGATIVE_INFINITY
  #answeredAt = Number.NEGATIVE_INFINITY
  #rate = 0
  #rateAt = 0

  /** `costMs` stands for the latency until there is one. */
  constructor(costMs: number) {
    this.#costMs = costMs
  }

  /** A verified block came. */
  delivered(elapsedMs: number, sizeBytes: number, now = performance.now()): void {
    this.blocks++
    this.bytes += sizeBytes
    this.#latencies[this.#sampleCount++ % SAMPLES] = elapsedMs
    this.#latencyMs = average(this.#latencyMs ?? elapsedMs, elapsedMs)
    this.#missRate = average(this.#missRate, 0)
    this.#failureRate = average(this.#failureRate, 0)
    this.#failuresInRow = this.#pauses = this.#pausedUntil = 0
    this.#onProbation = false
    this.#answeredAt = now
    this.#rate = this.rateBytesPerSecond(now) + sizeBytes / (RATE_WINDOW_MS / 1000)
    this.#rateAt = now
  }

  /** An answer came, but not the block. */
  failed(error: SourceError, now = performance.now()): void {
    if (error.kind === 'absent') {
      this.#missRate = average(this.#missRate, 1)
      this.#failuresInRow = 0
      this.#answeredAt = now
      if (this.paused) this.recovered()
      return
    }
    this.errors++
    this.lastError = error
    this.lastErrorAt = Date.now()
    this.#failedAt = now
    this.#failureRate = average(this.#failureRate, 1)
    this.#failuresInRow++
    if (this.#failuresInRow >= tolerance(error.kind) || this.#onProbation) this.#pause(now)
  }

  /** Given up after `elapsedMs` without an answer, because another source was faster. */
  outrun(elapsedMs: number): void {
    if (elapsedMs > this.latencyMs) this.#latencyMs = average(this.latencyMs, elapsedMs)
  }

  /**
   * A request that began at `startedAt` ended without an answer. That counts against the source only when it
   * answered nothing else in that time: it may be looking for one block and be fast with the next.
   */
  silent(error: SourceError, startedAt: number, now = performance.now()): void {
    if (this.#answeredAt < startedAt) this.failed(error, now)
  }

  /** It answered a probe while it was paused. */
  recovered(): void {
    this.#pausedUntil = 0
    this.#onProbation = true
    this.#failuresInRow = 0
  }

  #pause(now: number): void {
    const pauseMs = Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.#pauses)
    this.#pauses++
    this.#pausedUntil = now + pauseMs
  }

  /** Not to be asked while another source may have the block. Lasts until a probe or a block comes through. */
  get paused(): boolean {
    return this.#pausedUntil > 0
  }

  /** The pause is over, so that it is time to look whether the source is back. */
  probeDue(now = performance.now()): boolean {
    return this.paused && now >= this.#pausedUntil
  }

  /** Milliseconds since it last failed; infinite when it never has. */
  sinceFailureMs(now = performance.now()): number {
    return now - this.#failedAt
  }

  get state(): SourceState {
    if (!this.paused) return 'ok'
    return this.blocks === 0 ? 'failed' : 'backing-off'
  }

  /** Expected milliseconds from question to block. */
  get latencyMs(): number {
    return this.#latencyMs ?? this.#costMs
  }

  /** Lower is better: the latency, weighed by how often asking was in vain. */
  get score(): number {
    return this.latencyMs * (1 + 4 * this.#missRate + 8 * this.#failureRate)
  }

  /** How long to wait for this source before another is asked as well: about the slowest twentieth. */
  get hedgeMs(): number {
    if (this.#sampleCount < 8) return FIRST_HEDGE_MS
    return Math.min(MAX_HEDGE_MS, Math.max(MIN_HEDGE_MS, this.#quantile(0.95) ?? FIRST_HEDGE_MS))
  }

  get latencyMsP50(): number | undefined {
    return this.#quantile(0.5)
  }

  /** Decays to 0 within seconds of the last block. */
  rateBytesPerSecond(now = performance.now()): number {
    return this.#rate * Math.exp((this.#rateAt - now) / RATE_WINDOW_MS)
  }

  /** Sorting is put off until a quarter of the samples is new. */
  #quantile(q: number): number | undefined {
    const stale = this.#sorted.length < this.#latencies.length || this.#sampleCount % (SAMPLES / 4) === 0
    if (stale) this.#sorted = [...this.#latencies].sort((a, b) => a - b)
    return this.#sorted[Math.floor(q * (this.#sorted.length - 1))]
  }
}

function average(old: number, value: number): number {
  return old + ALPHA * (value - old)
}

function tolerance(kind: FailureKind): number {
  return kind === 'unreachable' ? 1 : FAILURES_TOLERATED
}
