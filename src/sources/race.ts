/**
 * The search for one block: which sources are asked, in which order, and when it is over.
 *
 * Invariant: it ends once, with verified bytes or with an error that names every source and what it said, at
 * its deadline at the latest, and at once when every source has said no. Whoever is still being asked then is
 * told to stop.
 * Why hedged: the best source is asked alone, the next as well once the first is slower than it usually is. So
 * one slow answer costs little time and one fast source little traffic.
 */
import type { CID } from '../core/cid.js'
import { CidfsError, type ErrorCode } from '../core/errors.js'
import type { Engine, FetchRequest } from './engine.js'
import type { AbortReason, Lane } from './lane.js'
import type { Priority, SourceError } from './source.js'

/** Guesses can wait longer than readers before they cost a second request. */
const READ_AHEAD_HEDGE_MS = 1_000
/** Pause before a source that failed, and not by a clear no, is asked a second time. */
const RETRY_PAUSE_MS = 200
/** How long a source that is left alone after failures may take when nobody else is left to ask. */
const LAST_RESORT_MS = 1_000
/** Failures younger than this speak for the present as well. */
const FRESH_FAILURE_MS = 1_000

interface Question {
  controller: AbortController
  startedAt: number
}

export class Race {
  readonly cid: CID
  readonly promise: Promise<Uint8Array>
  priority: Priority
  readonly #engine: Engine
  readonly #deadlineMs: number
  readonly #asking = new Map<Lane, Question>()
  readonly #failures = new Map<Lane, SourceError>()
  /** Failed without a clear no, the first time they were asked. */
  readonly #retryable = new Set<Lane>()
  readonly #retried = new Set<Lane>()
  readonly #timers = new Set<NodeJS.Timeout>()
  #hedgeTimer: NodeJS.Timeout | undefined
  #impatient = false
  #pausing = false
  #settled = false
  #resolve!: (bytes: Uint8Array) => void
  #reject!: (err: CidfsError) => void

  /** Runs from the first `advance`. Made by `Engine.start` only. */
  constructor(engine: Engine, cid: CID, request: FetchRequest) {
    this.cid = cid
    this.priority = request.priority
    this.#engine = engine
    this.#deadlineMs = request.deadlineMs
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.#after(request.deadlineMs, () => this.#timeOut())
  }

  /** Nobody wants the block any more. */
  cancel(): void {
    this.#settle('cancelled', () => this.#reject(this.#error('INTERRUPTED', 'cancelled')))
  }

  /** From now on somebody waits for it. */
  raise(): void {
    if (this.#settled || this.priority === 'demand') return
    this.#engine.stopWaiting(this)
    this.priority = 'demand'
    for (const lane of this.#asking.keys()) {
      lane.source.raise?.(this.cid)
      this.#armHedge(lane)
    }
    if (this.#asking.size === 0) this.advance()
  }

  /** Takes the next step there is to take: called at the start, after a failure, and when a slot is free. */
  advance(): void {
    if (this.#settled || this.#pausing) return
    const candidates = this.#candidates()
    const lane = this.#choose(candidates)
    const best = candidates[0]
    if (lane !== undefined) this.#ask(lane)
    else if (this.#asking.size > 0) return
    else if (best !== undefined) this.#waitForSlot(best)
    else if (!this.#askLastResort() && !this.#retry()) this.#giveUp()
  }

  /** Sources that are well and were not asked yet, best first. */
  #candidates(): Lane[] {
    const waiting = this.#engine.waitingBefore(this.priority)
    const score = (lane: Lane): number => lane.score(lane.hasSlot(this.priority) ? 0 : waiting)
    return this.#engine.lanes
      .filter(lane => !lane.health.paused && !this.#asking.has(lane) && !this.#failures.has(lane))
      .sort((a, b) => score(a) - score(b))
  }

  /**
   * The best one, if it has a free slot: waiting for a fast source can be better than asking a slow one. Any
   * one with a free slot when it is time to hedge.
   */
  #choose(candidates: Lane[]): Lane | undefined {
    if (this.#impatient) return candidates.find(lane => lane.hasSlot(this.priority))
    if (this.#asking.size > 0) return undefined
    const best = candidates[0]
    return best?.hasSlot(this.priority) ? best : undefined
  }

  #ask(lane: Lane): void {
    this.#engine.stopWaiting(this)
    this.#impatient = false
    const question = { controller: new AbortController(), startedAt: performance.now() }
    this.#asking.set(lane, question)
    const { signal } = question.controller
    lane.ask(this.cid, { signal, priority: this.priority }).then(
      bytes => this.#settle('outrun', () => this.#resolve(bytes)),
      (failure: SourceError) => this.#failed(lane, failure),
    )
    this.#armHedge(lane)
  }

  #failed(lane: Lane, failure: SourceError): void {
    this.#asking.delete(lane)
    if (this.#settled) return
    this.#failures.set(lane, failure)
    const transient = failure.kind === 'failed' || failure.kind === 'unreachable'
    if (transient && !this.#retried.has(lane)) this.#retryable.add(lane)
    // A source that said no leaves its place to the next one at once.
    this.#impatient = this.#asking.size > 0
    this.advance()
  }

  #waitForSlot(best: Lane): void {
    this.#engine.wait(this)
    this.#armHedge(best)
  }

  #armHedge(lane: Lane): void {
    if (this.#hedgeTimer !== undefined) this.#cancelTimer(this.#hedgeTimer)
    this.#hedgeTimer = undefined
    if (this.#engine.lanes.length === 1) return
    const delayMs = this.priority === 'demand' ? lane.health.hedgeMs : READ_AHEAD_HEDGE_MS
    this.#hedgeTimer = this.#after(delayMs, () => {
      this.#impatient = true
      this.advance()
    })
  }

  /** Asks a source that is being left alone, since nobody else can have the block. */
  #askLastResort(): boolean {
    const nobodyAnswered = this.#failures.size === 0
    const lane = this.#engine.lanes.find(lane => {
      const { health } = lane
      if (!health.paused || this.#failures.has(lane) || !lane.hasSlot('demand')) return false
      const stale = health.sinceFailureMs() >= FRESH_FAILURE_MS
      return stale || (nobodyAnswered && health.lastError?.kind !== 'unreachable')
    })
    if (lane === undefined) return false
    this.#retried.add(lane)
    this.#ask(lane)
    const question = this.#asking.get(lane)
    this.#after(LAST_RESORT_MS, () => question?.controller.abort('gave-up' satisfies AbortReason))
    return true
  }

  /** Asks those again that failed without a clear no: a connection may have been cut by chance. */
  #retry(): boolean {
    if (this.#retryable.size === 0) return false
    this.#pausing = true
    this.#after(RETRY_PAUSE_MS, () => {
      this.#pausing = false
      for (const lane of this.#retryable) {
        this.#retried.add(lane)
        this.#failures.delete(lane)
        if (lane.hasSlot('demand')) this.#ask(lane)
      }
      this.#retryable.clear()
      this.advance()
    })
    return true
  }

  #giveUp(): void {
    const failures = [...this.#failures.values()]
    const wrong = failures.some(failure => failure.kind === 'wrong')
    const clear = failures.every(failure => failure.kind === 'wrong' || failure.kind === 'absent')
    const text = `block ${this.cid} could not be had`
    this.#settle('cancelled', () =>
      this.#reject(this.#error(wrong && clear ? 'BAD_BLOCK' : 'UNREACHABLE', text)),
    )
  }

  #timeOut(): void {
    const text = `block ${this.cid} did not come within ${Math.round(this.#deadlineMs)} ms`
    const error = this.#error('TIMEOUT', text)
    this.#settle('deadline', () => this.#reject(error))
  }

  #error(code: ErrorCode, text: string): CidfsError {
    const reports = this.#engine.lanes.map(lane => `${lane.source.name}: ${this.#report(lane)}`)
    return new CidfsError(code, `${text} (${reports.join('; ') || 'no source is configured'})`, {
      cid: this.cid.toString(),
    })
  }

  #report(lane: Lane): string {
    const question = this.#asking.get(lane)
    if (question !== undefined)
      return `no answer after ${Math.round(performance.now() - question.startedAt)} ms`
    const failure = this.#failures.get(lane)
    if (failure !== undefined) return failure.message
    if (lane.health.paused) return `left alone after it failed: ${lane.health.lastError?.message}`
    return lane.hasSlot(this.priority) ? 'not asked' : 'busy'
  }

  #settle(reason: AbortReason, settle: () => void): void {
    if (this.#settled) return
    this.#settled = true
    for (const timer of this.#timers) clearTimeout(timer)
    this.#engine.ended(this)
    settle()
    for (const { controller } of this.#asking.values()) controller.abort(reason)
  }

  #after(delayMs: number, fn: () => void): NodeJS.Timeout {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      fn()
    }, delayMs)
    this.#timers.add(timer)
    return timer
  }

  #cancelTimer(timer: NodeJS.Timeout): void {
    clearTimeout(timer)
    this.#timers.delete(timer)
  }
}
