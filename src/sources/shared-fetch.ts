/**
 * One block on its way, and everybody who waits for it.
 *
 * Invariant: a reader is settled once: by the bytes, by its own signal, by its own deadline, or by the error of
 * the network. The network is asked again, for those who still have time, when only an earlier deadline ended
 * its search; and told to stop when nobody is left.
 */
import { setMaxListeners } from 'node:events'
import type { CID } from '../core/cid.js'
import { CidfsError, codeOf, messageOf } from '../core/errors.js'
import type { Priority } from './source.js'
import type { Network } from './worker-client.js'

/** Deadlines closer than this to each other are one deadline. */
const SLACK_MS = 50
/** How long the network may stay silent after its deadline before a reader ends by its own clock. */
const GRACE_MS = 2_000

export interface Reader {
  signal: AbortSignal | undefined
  deadlineMs: number
  priority: Priority
  /** Whether it looks at the bytes, and does not only wait for them. */
  reads: boolean
}

/** What the owner does when it is over. `arrived` and `failed` come before the readers are told. */
export interface SharedFetchEvents {
  /** Whether the bytes are kept, so that nobody needs these who does not look at them. */
  arrived(bytes: Uint8Array): boolean
  /** Not called when every reader left. */
  failed(error: CidfsError): void
  /** From now on `join` must not be called. */
  ended(): void
}

interface Waiting {
  /** `performance.now()` */
  deadlineAt: number
  settle(result: Uint8Array | CidfsError): void
}

export class SharedFetch {
  readonly #cid: CID
  readonly #network: Network
  readonly #events: SharedFetchEvents
  readonly #waiting = new Set<Waiting>()
  readonly #abort = new AbortController()
  #priority: Priority
  /** When the network gives up; 0 until it is asked. */
  #networkDeadlineAt = 0
  #over = false
  /** Somebody looks at the bytes. */
  #read = false

  /** Begins with the first `join`. */
  constructor(cid: CID, priority: Priority, network: Network, events: SharedFetchEvents) {
    this.#cid = cid
    this.#priority = priority
    this.#network = network
    this.#events = events
  }

  /** The block, for one more reader. */
  join(reader: Reader): Promise<Uint8Array> {
    this.#read ||= reader.reads
    const promise = this.#wait(reader)
    if (this.#networkDeadlineAt === 0 && !this.#over) void this.#run(reader.deadlineMs)
    else if (reader.priority === 'demand') this.#raise()
    return promise
  }

  #wait({ signal, deadlineMs }: Reader): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => this.#leave(waiting, this.#error('INTERRUPTED', 'interrupted'))
      // The network knows the deadlines it was given, and has more to say when they pass.
      const ownTimer =
        this.#networkDeadlineAt === 0 || performance.now() + deadlineMs >= this.#networkDeadlineAt
      const timer = setTimeout(
        () => this.#leave(waiting, this.#late(deadlineMs)),
        ownTimer ? deadlineMs + GRACE_MS : deadlineMs,
      )
      const waiting: Waiting = {
        deadlineAt: performance.now() + deadlineMs,
        settle: result => {
          clearTimeout(timer)
          signal?.removeEventListener('abort', onAbort)
          this.#waiting.delete(waiting)
          if (result instanceof CidfsError) reject(result)
          else resolve(result)
        },
      }
      this.#waiting.add(waiting)
      if (signal === undefined) return
      if (signal.aborted) return onAbort()
      setMaxListeners(0, signal) // one reader waits for many blocks
      signal.addEventListener('abort', onAbort)
    })
  }

  #leave(waiting: Waiting, error: CidfsError): void {
    waiting.settle(error)
    if (this.#waiting.size > 0 || this.#over) return
    this.#end()
    this.#abort.abort()
  }

  #raise(): void {
    if (this.#priority === 'demand') return
    this.#priority = 'demand'
    this.#network.raise(this.#abort.signal)
  }

  async #run(deadlineMs: number): Promise<void> {
    this.#networkDeadlineAt = performance.now() + deadlineMs
    try {
      const options = { signal: this.#abort.signal, deadlineMs, priority: this.#priority }
      const bytes = await this.#network.fetch(this.#cid, options)
      if (!this.#over) this.#succeed(bytes)
    } catch (err) {
      if (!this.#over) this.#networkFailed(this.#asError(err))
    }
  }

  #succeed(bytes: Uint8Array): void {
    this.#end()
    const kept = this.#events.arrived(bytes)
    for (const waiting of [...this.#waiting]) waiting.settle(bytes)
    if (kept && !this.#read) this.#network.release?.(bytes)
  }

  #networkFailed(error: CidfsError): void {
    const now = performance.now()
    if (error.code === 'TIMEOUT') {
      for (const waiting of [...this.#waiting]) {
        if (waiting.deadlineAt - now < SLACK_MS) waiting.settle(error)
      }
      if (this.#waiting.size > 0) return void this.#run(this.#longestMs(now))
    }
    this.#end()
    this.#events.failed(error)
    for (const waiting of [...this.#waiting]) waiting.settle(error)
  }

  #longestMs(now: number): number {
    return Math.max(...[...this.#waiting].map(waiting => waiting.deadlineAt - now))
  }

  #end(): void {
    this.#over = true
    this.#events.ended()
  }

  #late(deadlineMs: number): CidfsError {
    return this.#error('TIMEOUT', `block ${this.#cid} did not come within ${deadlineMs} ms`)
  }

  #asError(err: unknown): CidfsError {
    if (codeOf(err) !== undefined) return err as CidfsError
    return new CidfsError('IO', messageOf(err), { cid: this.#cid.toString(), cause: err })
  }

  #error(code: CidfsError['code'], message: string): CidfsError {
    return new CidfsError(code, message, { cid: this.#cid.toString() })
  }
}
