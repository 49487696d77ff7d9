/**
 * How fast a peer answers and sends, measured while it has something to do.
 *
 * Invariant: estimates need no history: two moving averages. Times are milliseconds of `performance.now()`.
 * Why not the latency of each block: with a window full of wants that is the length of the queue, which we made.
 */
const FIRST_LATENCY_MS = 50
const FIRST_BYTES_PER_MS = 8_000
const MIN_BYTES_PER_MS = 10
const ALPHA = 0.25
/** Bytes are averaged over spans at least this long: they come in bursts. */
const SPAN_MS = 100

export class PeerRate {
  /** From a question to an idle peer until its answer. */
  latencyMs = FIRST_LATENCY_MS
  bytesPerMs = FIRST_BYTES_PER_MS
  measured = false
  #spanBytes = 0
  #spanAt = 0

  /** It was idle and has something to do now. */
  busy(now: number): void {
    this.#spanBytes = 0
    this.#spanAt = now
  }

  /** Bytes of a wanted block came. `saturated`: it had enough to do, so that a low rate is its own. */
  received(bytes: number, now: number, saturated: boolean): void {
    this.#spanBytes += bytes
    const elapsedMs = now - this.#spanAt
    if (elapsedMs < SPAN_MS) return
    const rate = this.#spanBytes / elapsedMs
    if (saturated || rate > this.bytesPerMs) {
      this.bytesPerMs = this.measured ? average(this.bytesPerMs, rate) : rate
      this.measured = true
    }
    this.busy(now)
  }

  /** It is late, whatever was measured, with a block of about this size. */
  late(sizeBytes: number, now: number): void {
    const possible = (this.#spanBytes + sizeBytes) / Math.max(1, now - this.#spanAt)
    this.bytesPerMs = Math.max(MIN_BYTES_PER_MS, Math.min(this.bytesPerMs / 2, possible))
    this.measured = true
  }

  /** An answer to what it was asked alone. */
  answered(elapsedMs: number): void {
    this.latencyMs = average(this.latencyMs, elapsedMs)
  }
}

function average(old: number, value: number): number {
  return old + ALPHA * (value - old)
}
