/**
 * One source with its slots: asks it, verifies what it sends, and keeps the record.
 *
 * Invariant: nothing leaves a lane that has not been hashed. A lane never runs more than `maxInFlight` requests,
 * and read-ahead never takes the last quarter of them, so that a read somebody waits for finds a free slot.
 */
import { type CID, verify } from '../core/cid.js'
import { messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { Health } from './health.js'
import { type AskOptions, type Priority, type Source, SourceError, type SourceStatus } from './source.js'

const log = logger('sources:lane')

const PROBE_TIMEOUT_MS = 2_000

/** Why a request was aborted; the reason of the signal that a race hands to its lanes. */
export type AbortReason = 'outrun' | 'deadline' | 'cancelled' | 'gave-up'

export class Lane {
  readonly source: Source
  readonly health: Health
  /** Called whenever a slot becomes free. */
  onFree: (() => void) | undefined
  #inFlight = 0
  #probing: Promise<void> | undefined

  constructor(source: Source) {
    this.source = source
    this.health = new Health(source.costMs)
  }

  hasSlot(priority: Priority): boolean {
    const { maxInFlight } = this.source
    return this.#inFlight < (priority === 'demand' ? maxInFlight : Math.ceil(maxInFlight * 0.75))
  }

  /**
   * Expected milliseconds to a block, if asked now, give or take: what is measured, grown by what already runs
   * and by what waits before it. Lower is better.
   */
  score(waiting: number): number {
    return this.health.score * (1 + (this.#inFlight + waiting) / this.source.maxInFlight)
  }

  /**
   * The verified block. The signal's reason is an `AbortReason`.
   * @throws SourceError, also when aborted.
   */
  async ask(cid: CID, options: AskOptions): Promise<Uint8Array> {
    const { signal } = options
    const startedAt = performance.now()
    this.#inFlight++
    try {
      const bytes = await this.source.get(cid, options)
      if (!this.source.verifies && !verify(cid, bytes))
        throw new SourceError('wrong', 'sent wrong bytes (the hash does not match)')
      this.health.delivered(performance.now() - startedAt, bytes.length)
      return bytes
    } catch (err) {
      throw this.#record(cid, err, signal, startedAt)
    } finally {
      this.#inFlight--
      this.onFree?.()
    }
  }

  #record(cid: CID, err: unknown, signal: AbortSignal, startedAt: number): SourceError {
    if (!signal.aborted) {
      const failure = SourceError.from(err)
      this.health.failed(failure)
      if (failure.kind !== 'absent') log('%s: %s: %s', this.source.name, cid, failure.message)
      return failure
    }
    const elapsedMs = performance.now() - startedAt
    const failure = new SourceError('failed', `no answer within ${Math.round(elapsedMs)} ms`)
    const reason = signal.reason as AbortReason
    if (reason === 'outrun') this.health.outrun(elapsedMs)
    if (reason === 'deadline' || reason === 'gave-up') this.health.silent(failure, startedAt)
    return failure
  }

  /** Asks whether the source is there, one probe at a time; its health remembers the answer. */
  probe(): Promise<void> {
    this.#probing ??= this.#probeOnce().finally(() => {
      this.#probing = undefined
    })
    return this.#probing
  }

  async #probeOnce(): Promise<void> {
    try {
      await this.source.probe({ signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) })
      if (this.health.paused) this.health.recovered()
    } catch (err) {
      const timedOut = err instanceof DOMException && err.name === 'TimeoutError'
      const failure = timedOut
        ? new SourceError('unreachable', 'no answer to a probe')
        : SourceError.from(err)
      log('%s: probe: %s', this.source.name, messageOf(failure))
      this.health.failed(failure)
    }
  }

  /** Never asked for anything, so that its state is a guess. */
  get untried(): boolean {
    return this.health.blocks === 0 && this.health.errors === 0
  }

  status(): SourceStatus {
    const { health } = this
    return {
      name: this.source.name,
      kind: this.source.kind,
      state: health.state,
      inFlight: this.#inFlight,
      blocks: health.blocks,
      bytes: health.bytes,
      rateBytesPerSecond: Math.round(health.rateBytesPerSecond()),
      latencyMsP50: health.latencyMsP50,
      errors: health.errors,
      lastError: health.lastError?.message,
      lastErrorAt: health.lastErrorAt,
    }
  }
}
