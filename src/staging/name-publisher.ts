/**
 * Names of our own: signed here, given to those who keep records, again before they end.
 *
 * Invariant: a name never goes back: a new value has a sequence above every one that was ever seen for the key. What
 * nobody took is tried again with back-off, across restarts. A record of somebody else who has the key and is newer
 * than ours is left alone.
 */
import { deadline } from '../core/deadline.js'
import { CidfsError, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { NameKey } from '../p2p/ipns-key.js'
import type { KeyName } from '../p2p/ipns-name.js'
import { type PutOutcome, signRecord } from '../p2p/ipns-record.js'
import type { NameNetwork, NameResolver } from '../sources/names.js'
import type { Store } from '../store/store.js'
import { retryDelayMs } from './back-off.js'
import type { NameKeys } from './name-keys.js'
import type { NameRecords, OwnRecord } from './name-records.js'

const log = logger('staging:names')

/** For how long a record holds, for how long others need not ask again, and when it is published anew. */
const LIFETIME_MS = 48 * 3_600_000
const TTL_MS = 5 * 60_000
const REPUBLISH_MS = 4 * 3_600_000
/** For a record that somebody else may have published with a key that was imported. */
const LOOKUP_MS = 10_000
/** A timer takes no more. */
const MAX_DELAY_MS = 2 ** 31 - 1

export type NameState = 'queued' | 'publishing' | 'published' | 'failed' | 'local' | 'superseded'

export interface NamePublication {
  keyName: string
  name: string
  /** `/ipfs/…` or `/ipns/…` */
  value: string
  sequence: string
  /** `local`: nobody is configured who takes records; `superseded`: somebody else with the key has published since. */
  state: NameState
  tries: number
  error: string | null
  /** When the record ends, and when it was last taken, in milliseconds since the epoch. */
  eolMs: number
  takenMs: number | null
}

export interface PublishResult extends NamePublication {
  outcomes: PutOutcome[]
}

export interface NamePublisherParts {
  store: Pick<Store, 'flush'>
  keys: NameKeys
  records: NameRecords
  resolver: NameResolver
  network: NameNetwork
  /** Milliseconds; 4 hours when absent. */
  republishMs?: number
}

export class NamePublisher {
  readonly #parts: NamePublisherParts
  readonly #republishMs: number
  /** Name to the clock time in milliseconds from which it is to be given to others. */
  readonly #due = new Map<string, number>()
  readonly #running = new Map<string, Promise<PutOutcome[]>>()
  readonly #stop = new AbortController()
  /** Nobody took records when they were last offered. */
  #nobodyTakes = false
  #timer: NodeJS.Timeout | undefined

  constructor(parts: NamePublisherParts) {
    this.#parts = parts
    this.#republishMs = parts.republishMs ?? REPUBLISH_MS
  }

  start(): void {
    const { records } = this.#parts
    for (const name of records.names()) {
      const { takenMs, tries } = records.get(name)!
      this.#due.set(name, takenMs === 0 || tries > 0 ? 0 : takenMs + this.#republishMs)
    }
    this.#schedule()
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    clearTimeout(this.#timer)
    await Promise.allSettled(this.#running.values())
  }

  /**
   * Signs and stores a record, and gives it to others; resolves when they have answered.
   * @throws CidfsError `NOT_FOUND` (no such key), `INTERRUPTED` (it goes on in the background).
   */
  async publish(keyName: string, value: string, signal?: AbortSignal): Promise<PublishResult> {
    const key = this.#parts.keys.get(keyName)
    await this.#learnSequence(key.name, signal)
    if (this.#stop.signal.aborted) throw new CidfsError('INTERRUPTED', 'shutting down')
    this.#sign(keyName, key, value)
    const outcomes = await this.#handOver(key.name)
    return { ...this.publicationOf(key.name.text)!, outcomes }
  }

  /** As `publish`, in the background. @throws CidfsError `NOT_FOUND`. */
  enqueue(keyName: string, value: string): void {
    this.#parts.keys.get(keyName)
    this.publish(keyName, value).catch((err: unknown) => log('%s: %s', keyName, messageOf(err)))
  }

  publicationOf(name: string): NamePublication | undefined {
    const own = this.#parts.records.get(name)
    if (own === undefined) return undefined
    const { keyName, value, sequence, eolMs, takenMs, tries, error } = own
    return {
      keyName,
      name,
      value,
      sequence: sequence.toString(),
      state: this.#stateOf(name, own),
      tries,
      error: error ?? null,
      eolMs,
      takenMs: takenMs === 0 ? null : takenMs,
    }
  }

  list(): NamePublication[] {
    return this.#parts.records.names().map(name => this.publicationOf(name)!)
  }

  /** Its key is gone: the record is not renewed any more. */
  forget(name: string): void {
    this.#parts.records.remove(name)
    this.#due.delete(name)
  }

  #stateOf(name: string, own: OwnRecord): NameState {
    if (this.#running.has(name)) return 'publishing'
    if (this.#isSuperseded(name, own)) return 'superseded'
    if (own.tries > 0) return 'failed'
    if (own.takenMs > 0) return 'published'
    return this.#nobodyTakes || this.#parts.network.unavailable !== undefined ? 'local' : 'queued'
  }

  #isSuperseded(name: string, own: OwnRecord): boolean {
    const known = this.#parts.resolver.cache.get(name)?.signed
    return known !== undefined && known.sequence > own.sequence
  }

  /** A key that was imported may have been used elsewhere; one that was used here is known to be. */
  async #learnSequence(name: KeyName, signal: AbortSignal | undefined): Promise<void> {
    const { records, resolver, network } = this.#parts
    if (records.get(name.text) !== undefined || network.unavailable !== undefined) return
    if (resolver.cache.get(name.text) !== undefined) return
    await resolver.refresh(name, deadline(LOOKUP_MS, signal)).catch((err: unknown) => {
      if (signal?.aborted) throw err
    })
  }

  #sign(keyName: string, key: NameKey, value: string): void {
    const { records, resolver } = this.#parts
    const name = key.name.text
    const own = records.get(name)
    const others = resolver.cache.get(name)
    const last = own !== undefined && (others?.signed?.sequence ?? -1n) <= own.sequence ? own : undefined
    const sequence = sequenceAfter(
      last ?? (others?.signed && { ...others.signed, value: others.value }),
      value,
    )
    const eolMs = Date.now() + LIFETIME_MS
    const record = signRecord(key, { value, sequence, eolMs, ttlMs: TTL_MS })
    const takenMs = own?.value === value ? own.takenMs : 0
    records.put(name, { keyName, value, sequence, eolMs, record, takenMs, tries: 0 })
    const signed = { record, sequence, eolMs }
    resolver.learn(name, { value, confirmedMs: Date.now(), ttlMs: TTL_MS, signed })
  }

  /** One at a time for a name: a record that was signed meanwhile follows. */
  async #handOver(name: KeyName): Promise<PutOutcome[]> {
    const before = this.#running.get(name.text)
    if (before !== undefined) await before.catch(() => {})
    const run = this.#offer(name).finally(() => {
      if (this.#running.get(name.text) === run) this.#running.delete(name.text)
    })
    this.#running.set(name.text, run)
    return run
  }

  async #offer(name: KeyName): Promise<PutOutcome[]> {
    const { records, network } = this.#parts
    const own = records.get(name.text)
    this.#due.delete(name.text)
    if (own === undefined || network.unavailable !== undefined) return []
    try {
      const { signal } = this.#stop
      await this.#parts.store.flush() // else a power failure could have its sequence used again
      const outcomes = await network.publish(name.multihash, own.record, { signal })
      this.#nobodyTakes = outcomes.length === 0
      this.#settle(name.text, own, outcomes)
      return outcomes
    } catch (err) {
      if (this.#stop.signal.aborted) throw err
      const outcomes = [{ routing: 'network', error: messageOf(err) }]
      this.#settle(name.text, own, outcomes)
      return outcomes
    }
  }

  #settle(name: string, offered: OwnRecord, outcomes: PutOutcome[]): void {
    const { records } = this.#parts
    const now = records.get(name)
    const isCurrent = now !== undefined && Buffer.compare(now.record, offered.record) === 0
    if (!isCurrent || outcomes.length === 0) return
    if (outcomes.some(({ error }) => error === null)) {
      records.put(name, { ...now, takenMs: Date.now(), tries: 0, error: undefined })
      this.#due.set(name, Date.now() + this.#republishMs)
    } else {
      const tries = now.tries + 1
      const error = outcomes.map(({ routing, error }) => `${routing}: ${error}`).join('; ')
      log('%s: %s', name, error)
      records.put(name, { ...now, tries, error })
      this.#due.set(name, Date.now() + retryDelayMs(tries))
    }
    this.#schedule()
  }

  #schedule(): void {
    clearTimeout(this.#timer)
    if (this.#stop.signal.aborted || this.#due.size === 0) return
    const delayMs = Math.max(0, Math.min(...this.#due.values()) - Date.now())
    this.#timer = setTimeout(() => void this.#work(), Math.min(delayMs, MAX_DELAY_MS))
    this.#timer.unref()
  }

  async #work(): Promise<void> {
    for (const [name, dueMs] of [...this.#due]) {
      if (this.#stop.signal.aborted) return
      if (dueMs > Date.now() || this.#running.has(name)) continue
      this.#due.delete(name)
      await this.#renew(name).catch((err: unknown) => log('%s: %s', name, messageOf(err)))
    }
    this.#schedule()
  }

  async #renew(name: string): Promise<void> {
    const { records, keys } = this.#parts
    const own = records.get(name)
    const key = own && keys.find(own.keyName)
    if (own === undefined || key === undefined || this.#isSuperseded(name, own)) return
    if (own.eolMs - Date.now() < LIFETIME_MS - this.#republishMs / 2) this.#sign(own.keyName, key, own.value)
    await this.#handOver(key.name)
  }
}

/** The same value again keeps its sequence: what is newer then is the end of its record. */
function sequenceAfter(last: { sequence: bigint; value: string } | undefined, value: string): bigint {
  if (last === undefined) return 0n
  return last.value === value ? last.sequence : last.sequence + 1n
}
