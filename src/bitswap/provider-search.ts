/**
 * Looks for peers when nobody who is connected has a block.
 *
 * Invariant: bounded: so many searches at a time, so many connections opened by each, and nobody is dialled again
 * soon after. A search ends when its signal does.
 * Why the root of the DAG as well: many who have all of it announce only that.
 */
import { LRUCache } from 'lru-cache'
import { type CID, keyOf } from '../core/cid.js'
import { messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { Discovery, Provider } from './discovery.js'

const log = logger('bitswap:search')

const MAX_SEARCHES = 8
const MAX_PROVIDERS = 32
const MAX_DIALS = 8
const REDIAL_MS = 15_000
/** A search that found nobody is not repeated within this time. */
const FORGET_MS = 10_000

export class ProviderSearch {
  readonly #discovery: Discovery
  readonly #isConnected: (peerId: string) => boolean
  readonly #dialled = new LRUCache<string, true>({ max: 4_096, ttl: REDIAL_MS })
  readonly #searched = new LRUCache<string, true>({ max: 4_096, ttl: FORGET_MS })
  readonly #queue: (() => void)[] = []
  #running = 0

  constructor(discovery: Discovery, isConnected: (peerId: string) => boolean) {
    this.#discovery = discovery
    this.#isConnected = isConnected
  }

  /** Opens connections to whoever may have one of the blocks; resolves when nobody else is known. Never throws. */
  async run(cids: readonly CID[], signal: AbortSignal): Promise<void> {
    const fresh = cids.filter(cid => !this.#searched.has(keyOf(cid)))
    if (fresh.length === 0) return
    await this.#turn()
    try {
      await Promise.all(fresh.map(cid => this.#search(cid, signal)))
    } finally {
      this.#running--
      this.#queue.shift()?.()
    }
  }

  async #turn(): Promise<void> {
    if (this.#running >= MAX_SEARCHES) await new Promise<void>(resolve => this.#queue.push(resolve))
    this.#running++
  }

  async #search(cid: CID, signal: AbortSignal): Promise<void> {
    const dials = new Set<Promise<void>>()
    let found = 0
    let failed = false
    try {
      if (signal.aborted) return
      for await (const provider of this.#discovery.findProviders(cid, signal)) {
        if (signal.aborted || found >= MAX_PROVIDERS) break
        if (!this.#shouldDial(provider)) continue
        found++
        const dial: Promise<void> = this.#dial(provider, signal).finally(() => dials.delete(dial))
        dials.add(dial)
        if (dials.size >= MAX_DIALS) await Promise.race(dials)
      }
    } catch (err) {
      failed = true
      if (!signal.aborted) log('%s: %s', cid, messageOf(err))
    }
    await Promise.all(dials)
    if (!signal.aborted && !failed) this.#searched.set(keyOf(cid), true)
  }

  #shouldDial({ id }: Provider): boolean {
    return !this.#isConnected(id) && !this.#dialled.has(id)
  }

  async #dial(provider: Provider, signal: AbortSignal): Promise<void> {
    this.#dialled.set(provider.id, true)
    try {
      await this.#discovery.connect(provider, signal)
    } catch (err) {
      if (signal.aborted)
        this.#dialled.delete(provider.id) // no fault of its own
      else log('%s: %s', provider.id, messageOf(err))
    }
  }
}
