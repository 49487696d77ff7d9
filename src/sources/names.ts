/**
 * Where names lead: asked of the network, remembered for their TTL, refreshed while they are in use.
 *
 * Invariant: a name leads where the newest record that was ever seen says, until that has ended. What is known is
 * used at once while it is fresh; after that the network has a moment to say something newer, and then what is
 * known counts as long as it is valid. Off line a record counts beyond its end: nobody can be asked.
 * Why not simply wait: a name that was in use does not hang because a router does.
 */
import { LRUCache } from 'lru-cache'
import { deadline } from '../core/deadline.js'
import { CidfsError, codeOf, messageOf } from '../core/errors.js'
import { orInterrupted } from '../core/interrupted.js'
import { logger } from '../core/log.js'
import type { MaybePromise } from '../core/maybe-promise.js'
import { type Name, parseName } from '../p2p/ipns-name.js'
import type { Found } from '../p2p/ipns-network.js'
import type { PutOutcome } from '../p2p/ipns-record.js'
import type { Store } from '../store/store.js'
import type { TxtResolver } from './dns.js'
import { resolveDnsLink } from './dnslink.js'
import { freshMs, isExpired, NameCache, type NameEntry } from './name-cache.js'
import { NameChain, type Resolved } from './name-chain.js'
import { SharedWork } from './shared-work.js'

export type { Resolved }

const log = logger('sources:names')

/** The places that keep records of keys. */
export interface NameNetwork {
  /** Why nobody can be asked. */
  readonly unavailable: string | undefined
  find(multihash: Uint8Array, options: { signal?: AbortSignal; deadlineMs: number }): Promise<Found>
  publish(multihash: Uint8Array, record: Uint8Array, options: { signal?: AbortSignal }): Promise<PutOutcome[]>
}

export interface NameResolverOptions {
  network: NameNetwork
  /** Undefined: DNS names cannot be resolved. */
  dns: TxtResolver | undefined
  offline: boolean
  /** Milliseconds until a name that is not known has failed. */
  deadlineMs: number
  /** Milliseconds that something newer may take when something valid is known. */
  patienceMs?: number
}

const DEFAULT_PATIENCE_MS = 2_000
/** A name that could not be resolved fails at once for that long; one that is known is not asked for. */
const FAILED_MS = 5_000
const RETRY_MS = 15_000
/** A name is refreshed for that long after somebody used it. */
const IN_USE_MS = 60 * 60_000
const MAX_IN_USE = 256
const TICK_MS = 1_000
const MAX_REFRESHES = 4
const MAX_SEARCHES = 256
const MAX_FAILURES = 1024

interface Failure {
  error: unknown
  atMs: number
}

export class NameResolver {
  readonly cache: NameCache
  readonly #options: NameResolverOptions
  readonly #running = new Map<string, SharedWork<NameEntry>>()
  readonly #failures = new LRUCache<string, Failure>({ max: MAX_FAILURES })
  /** Name to when somebody asked for it last. */
  readonly #used = new LRUCache<string, number>({ max: MAX_IN_USE })
  readonly #stop = new AbortController()
  #timer: NodeJS.Timeout | undefined

  constructor(store: Pick<Store, 'env'>, options: NameResolverOptions) {
    this.cache = new NameCache(store)
    this.#options = options
  }

  start(): void {
    this.#timer = setInterval(() => this.#refreshUsed(), TICK_MS)
    this.#timer.unref()
  }

  /** What runs fails with `INTERRUPTED`. */
  async stop(): Promise<void> {
    clearInterval(this.#timer)
    this.#stop.abort()
    await Promise.allSettled([...this.#running.values()].map(({ done }) => done))
    await this.#options.dns?.close()
  }

  /** Where a name was last known to lead, if that still counts; asks nobody. */
  peek(name: Name): Resolved | undefined {
    return this.#walk(name, entry => this.#isUsable(entry))
  }

  /** Why a name could not be resolved when that was last tried. */
  lastError(name: string): string | undefined {
    const failure = this.#failures.get(name)
    return failure && messageOf(failure.error)
  }

  /**
   * Where a name leads in the end, at once when that is known and fresh.
   * @throws CidfsError `NOT_FOUND` (proven to lead nowhere), `UNREACHABLE`, `TIMEOUT`, `MALFORMED_DAG`,
   * `INTERRUPTED`.
   */
  resolve(name: Name, options: { signal?: AbortSignal | undefined } = {}): MaybePromise<Resolved> {
    const isFresh = (entry: NameEntry, on: string) => {
      this.#used.set(on, Date.now())
      return freshMs(entry) > 0
    }
    return this.#walk(name, isFresh) ?? this.#follow(name, options.signal)
  }

  /** A record that is not to be had from the network: one of our own. */
  learn(name: string, entry: NameEntry): void {
    this.cache.put(name, entry)
    this.#failures.delete(name)
  }

  /** The newest record that the network has, past what is fresh here. @throws as `resolve`. */
  async refresh(name: Name, signal: AbortSignal | undefined): Promise<NameEntry> {
    return await this.#shared(name).wait(signal)
  }

  /** As far as the cache leads; undefined unless every name on the way is `good` enough. */
  #walk(first: Name, good: (entry: NameEntry, name: string) => boolean): Resolved | undefined {
    const chain = new NameChain(first)
    while (chain.next !== undefined) {
      const entry = this.cache.get(chain.next.text)
      if (entry === undefined || !good(entry, chain.next.text)) return undefined
      chain.add(entry)
    }
    return chain.resolved
  }

  async #follow(first: Name, signal: AbortSignal | undefined): Promise<Resolved> {
    const chain = new NameChain(first)
    while (chain.next !== undefined) chain.add(await this.#entryOf(chain.next, signal))
    return chain.resolved
  }

  async #entryOf(name: Name, signal: AbortSignal | undefined): Promise<NameEntry> {
    this.#used.set(name.text, Date.now())
    const entry = this.cache.get(name.text)
    if (entry !== undefined && freshMs(entry) > 0) return entry
    const usable = this.#isUsable(entry) ? entry : undefined
    const failure = this.#failures.get(name.text)
    const failedMs = failure === undefined ? Number.POSITIVE_INFINITY : Date.now() - failure.atMs
    if (usable !== undefined && failedMs < RETRY_MS) return usable
    if (usable === undefined && failedMs < FAILED_MS) throw failure!.error
    const running = this.#shared(name)
    return usable === undefined ? running.wait(signal) : this.#patiently(running.keep(), usable, signal)
  }

  async #patiently(running: SharedWork<NameEntry>, known: NameEntry, signal: AbortSignal | undefined) {
    const { patienceMs = DEFAULT_PATIENCE_MS } = this.#options
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<NameEntry>(resolve => {
      timer = setTimeout(() => resolve(known), patienceMs)
    })
    try {
      return await orInterrupted(Promise.race([running.wait(), late]), signal)
    } catch (err) {
      if (codeOf(err) === 'INTERRUPTED' || codeOf(err) === 'NOT_FOUND') throw err
      return known
    } finally {
      clearTimeout(timer)
    }
  }

  /** One search for a name at a time, whoever waits for it; it ends by its own deadline, too. */
  #shared(name: Name): SharedWork<NameEntry> {
    const running = this.#running.get(name.text)
    if (running?.abandoned === false) return running
    if (this.#running.size >= MAX_SEARCHES)
      throw new CidfsError('BUSY', 'too many names are looked up at a time')
    const search = new SharedWork(signal => this.#search(name, signal))
    const ended = () => void (this.#running.get(name.text) === search && this.#running.delete(name.text))
    search.done.then(ended, ended)
    this.#running.set(name.text, search)
    return search
  }

  async #search(name: Name, abandoned: AbortSignal): Promise<NameEntry> {
    const { deadlineMs } = this.#options
    const late = deadline(deadlineMs)
    const signal = AbortSignal.any([late, abandoned, this.#stop.signal])
    try {
      const found = name.kind === 'dns' ? await this.#ask(name.text, signal) : await this.#find(name, signal)
      if (this.#stop.signal.aborted) throw new CidfsError('INTERRUPTED', 'shutting down') // the store closes
      this.#failures.delete(name.text)
      return this.cache.put(name.text, found)
    } catch (err) {
      const error = late.aborted ? tooLate(name, deadlineMs, err) : err
      if (!abandoned.aborted && !this.#stop.signal.aborted) this.#failed(name.text, error)
      throw error
    }
  }

  #failed(name: string, error: unknown): void {
    log('%s: %s', name, messageOf(error))
    this.#failures.set(name, { error, atMs: Date.now() })
    // proven to lead nowhere any more
    if (codeOf(error) === 'NOT_FOUND') this.cache.remove(name)
  }

  async #ask(name: string, signal: AbortSignal): Promise<NameEntry> {
    const { dns, offline } = this.#options
    if (dns === undefined) {
      const why = offline ? 'offline' : 'no DNS resolver is configured (--dns)'
      throw new CidfsError('UNREACHABLE', `${name} could not be resolved: ${why}`)
    }
    const { path, ttlMs } = await resolveDnsLink(name, dns, signal)
    return { value: [path.root, ...path.segments].join('/'), confirmedMs: Date.now(), ttlMs }
  }

  async #find(name: Extract<Name, { kind: 'key' }>, signal: AbortSignal): Promise<NameEntry> {
    const { network, deadlineMs } = this.#options
    if (network.unavailable !== undefined) throw notFound(name, network.unavailable)
    const { record, problems } = await network.find(name.multihash, { signal, deadlineMs })
    if (record === undefined) {
      const asked = problems.map(({ routing, error }) => `${routing}: ${error}`)
      throw notFound(name, asked.length === 0 ? 'nobody keeps records here' : asked.join('; '))
    }
    const { value, ttlMs, bytes, sequence, eolMs } = record
    return { value, confirmedMs: Date.now(), ttlMs, signed: { record: bytes, sequence, eolMs } }
  }

  #isUsable(entry: NameEntry | undefined): entry is NameEntry {
    return entry !== undefined && (this.#options.offline || !isExpired(entry))
  }

  #refreshUsed(): void {
    const nowMs = Date.now()
    for (const [name, usedMs] of this.#used.entries()) {
      if (this.#running.size >= MAX_REFRESHES) return
      const failure = this.#failures.get(name)
      const isWaiting = failure !== undefined && nowMs - failure.atMs < RETRY_MS
      const entry = this.cache.get(name)
      if (nowMs - usedMs > IN_USE_MS || isWaiting || entry === undefined || freshMs(entry) > 0) continue
      const parsed = parseName(name)
      if (parsed !== undefined && !this.#running.has(name)) this.#shared(parsed).keep()
    }
  }
}

function notFound({ text }: Name, why: string): CidfsError {
  return new CidfsError('UNREACHABLE', `no record of ${text} could be had: ${why}`)
}

function tooLate({ text }: Name, deadlineMs: number, cause: unknown): CidfsError {
  const detail = codeOf(cause) === 'INTERRUPTED' ? '' : ` (${messageOf(cause)})`
  return new CidfsError('TIMEOUT', `${text} could not be resolved within ${deadlineMs} ms${detail}`, {
    cause,
  })
}
