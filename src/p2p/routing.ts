/**
 * Who has a block: the routers side by side, and what they said a moment ago.
 *
 * Invariant: callers that look for one CID at a time share one lookup; it ends when the routers are through, when
 * enough providers are known, or when nobody waits for it any more. What comes from a router is bounded before it
 * is kept: providers of a block, addresses of a provider, lookups at a time, entries of the cache.
 * Why racing: a delegated router answers in tens of milliseconds what a walk through the DHT finds in seconds,
 * and knows nothing of a local network.
 */
import { LRUCache } from 'lru-cache'
import type { Provider } from '../bitswap/discovery.js'
import { type CID, keyOf } from '../core/cid.js'
import { CidfsError, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { Lookup } from './lookup.js'
import type { RouterStatus } from './node-status.js'
import { isTcpAddress, peerIdText } from './peer-id-text.js'

const log = logger('p2p:routing')

export type { Provider }

/** One way to ask: a DHT, or a server. Every method ends soon after its signal. */
export interface Router {
  readonly name: string
  findProviders(cid: CID, signal: AbortSignal): AsyncIterable<Provider>
  /** Returns how many peers took the record; absent: it takes none. */
  provide?(cid: CID, signal: AbortSignal): Promise<number>
  getValue?(key: Uint8Array, signal: AbortSignal): AsyncIterable<Uint8Array>
  /** Returns how many peers took the value. */
  putValue?(key: Uint8Array, value: Uint8Array, signal: AbortSignal): Promise<number>
  /** Peers known to a DHT. */
  readonly tableSize?: number
}

/** Providers of one block that are kept; there is no use for more. */
export const MAX_PROVIDERS = 32
/** Addresses of one provider that can be dialled; libp2p tries no more than 25. */
const MAX_ADDRESSES = 16
/** Addresses of one provider, of any kind, that are looked at. */
export const MAX_ADDRESSES_READ = 1024
const MAX_CACHED = 2048
const MAX_CACHED_ADDRESSES = 32_768
const FOUND_TTL_MS = 5 * 60_000
const EMPTY_TTL_MS = 20_000
const MAX_LOOKUPS = 64
/** The routers of one lookup, all together. */
const LOOKUP_MS = 60_000
/** Values under one key that are looked at. */
const MAX_VALUES = 32

export class Routing {
  readonly #routers: readonly Router[]
  readonly #status: Map<Router, RouterStatus>
  readonly #lookups = new Map<string, Lookup<Provider>>()
  readonly #known = new LRUCache<string, Provider[]>({
    max: MAX_CACHED,
    maxSize: MAX_CACHED_ADDRESSES,
    sizeCalculation: providers => providers.reduce((sum, { addrs }) => sum + addrs.length, 1),
    ttl: FOUND_TTL_MS,
  })

  constructor(routers: readonly Router[]) {
    this.#routers = routers
    this.#status = new Map(routers.map(router => [router, newStatus(router.name)]))
  }

  /** At the latest a minute after the start of a lookup, and at once when `signal` is aborted, it ends. */
  async *findProviders(cid: CID, signal: AbortSignal): AsyncGenerator<Provider> {
    const key = keyOf(cid)
    const known = this.#known.get(key)
    if (known !== undefined) {
      yield* known
      return
    }
    const lookup = this.#lookups.get(key) ?? this.#start(key, cid)
    yield* lookup.follow(signal)
  }

  /** A provider could not be reached, or did not have the block: it is looked for again next time. */
  forget(cid: CID): void {
    this.#known.delete(keyOf(cid))
  }

  /**
   * Publishes that the block is here.
   * @returns how many peers took the record
   * @throws CidfsError `UNREACHABLE` when none did.
   */
  provide(cid: CID, signal: AbortSignal): Promise<number> {
    return this.#ask(router => router.provide?.(cid, signal))
  }

  /** As `provide`, for a value under a key. */
  putValue(key: Uint8Array, value: Uint8Array, signal: AbortSignal): Promise<number> {
    return this.#ask(router => router.putValue?.(key, value, signal))
  }

  /** Every value the routers have under the key, as they come; unverified. */
  async *getValue(key: Uint8Array, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const lookup = new Lookup<Uint8Array>(
      this.#routers.map(router => inner => router.getValue?.(key, inner) ?? nothing()),
      { max: MAX_VALUES, timeoutMs: LOOKUP_MS, keyOf: value => Buffer.from(value).toString('latin1') },
    )
    lookup.onError = (i, err) => this.#failed(this.#routers[i]!, err)
    yield* lookup.follow(signal)
  }

  status(): RouterStatus[] {
    return this.#routers.map(router => ({
      ...this.#status.get(router)!,
      tableSize: router.tableSize ?? null,
    }))
  }

  #start(key: string, cid: CID): Lookup<Provider> {
    if (this.#lookups.size >= MAX_LOOKUPS) {
      throw new CidfsError('BUSY', 'too many blocks are being looked for at a time')
    }
    const lookup = new Lookup<Provider>(
      this.#routers.map(router => signal => this.#search(router, cid, signal)),
      { max: MAX_PROVIDERS, timeoutMs: LOOKUP_MS, keyOf: ({ id }) => id },
    )
    lookup.onError = (i, err) => this.#failed(this.#routers[i]!, err)
    lookup.onEnd = complete => {
      this.#lookups.delete(key)
      const { found } = lookup
      if (found.length > 0) this.#known.set(key, found)
      else if (complete) this.#known.set(key, found, { ttl: EMPTY_TTL_MS })
    }
    this.#lookups.set(key, lookup)
    return lookup
  }

  async *#search(router: Router, cid: CID, signal: AbortSignal): AsyncGenerator<Provider> {
    const status = this.#status.get(router)!
    status.lookups++
    for await (const { id: text, addrs } of router.findProviders(cid, signal)) {
      const id = peerIdText(text)
      if (id === undefined) continue
      status.found++
      yield { id, addrs: addrs.filter(isTcpAddress).slice(0, MAX_ADDRESSES) }
    }
  }

  async #ask(question: (router: Router) => Promise<number> | undefined): Promise<number> {
    const answers = await Promise.allSettled(this.#routers.map(router => this.#tried(router, question)))
    const taken = answers.map(answer => (answer.status === 'fulfilled' ? answer.value : 0))
    const total = taken.reduce((sum, count) => sum + count, 0)
    if (total > 0) return total
    const errors = answers.map((answer, i) =>
      answer.status === 'rejected' ? [`${this.#routers[i]!.name}: ${messageOf(answer.reason)}`] : [],
    )
    throw new CidfsError('UNREACHABLE', errors.flat().join('; ') || 'no peer took the record')
  }

  async #tried(router: Router, question: (router: Router) => Promise<number> | undefined): Promise<number> {
    try {
      return (await question(router)) ?? 0
    } catch (err) {
      this.#failed(router, err)
      throw err
    }
  }

  #failed(router: Router, err: unknown): void {
    const status = this.#status.get(router)!
    status.errors++
    status.lastError = messageOf(err)
    log('%s: %s', router.name, status.lastError)
  }
}

function newStatus(name: string): RouterStatus {
  return { name, lookups: 0, found: 0, errors: 0, lastError: null, tableSize: null }
}

async function* nothing(): AsyncGenerator<never> {}
