/**
 * Where libp2p remembers peers, addresses and DHT records: in memory, so much and no more.
 *
 * Invariant: entries and bytes are bounded; what was not used for the longest time goes first. An entry that is
 * larger than a peer can sensibly need is not kept at all.
 * Why: the stock store in memory grows with every peer that a walk through the DHT meets, and with every record
 * that strangers put here when we are a DHT server.
 */
import { NotFoundError } from '@libp2p/interface'
import { type Batch, type Datastore, Key, type KeyQuery, type Pair, type Query } from 'interface-datastore'
import { LRUCache } from 'lru-cache'

const MAX_ENTRIES = 16_384
const MAX_BYTES = 16 * 1024 * 1024
const MAX_ENTRY_BYTES = 64 * 1024
/** What an entry costs besides its value. */
const OVERHEAD_BYTES = 128

export class BoundedDatastore implements Datastore {
  readonly #entries: LRUCache<string, Uint8Array>

  constructor(options: { maxEntries?: number; maxBytes?: number } = {}) {
    this.#entries = new LRUCache({
      max: options.maxEntries ?? MAX_ENTRIES,
      maxSize: options.maxBytes ?? MAX_BYTES,
      maxEntrySize: MAX_ENTRY_BYTES,
      sizeCalculation: (value, key) => value.length + key.length + OVERHEAD_BYTES,
    })
  }

  get size(): number {
    return this.#entries.size
  }

  put(key: Key, value: Uint8Array): Key {
    this.#entries.set(key.toString(), value)
    return key
  }

  get(key: Key): Uint8Array {
    const value = this.#entries.get(key.toString())
    if (value === undefined) throw new NotFoundError(`${key} is not known`)
    return value
  }

  has(key: Key): boolean {
    return this.#entries.has(key.toString())
  }

  delete(key: Key): void {
    this.#entries.delete(key.toString())
  }

  async *putMany(pairs: Iterable<Pair> | AsyncIterable<Pair>): AsyncGenerator<Key> {
    for await (const { key, value } of pairs) yield this.put(key, value)
  }

  async *getMany(keys: Iterable<Key> | AsyncIterable<Key>): AsyncGenerator<Pair> {
    for await (const key of keys) yield { key, value: this.get(key) }
  }

  async *deleteMany(keys: Iterable<Key> | AsyncIterable<Key>): AsyncGenerator<Key> {
    for await (const key of keys) {
      this.delete(key)
      yield key
    }
  }

  batch(): Batch {
    const steps: (() => void)[] = []
    return {
      put: (key, value) => void steps.push(() => this.put(key, value)),
      delete: key => void steps.push(() => this.delete(key)),
      commit: () => {
        for (const step of steps.splice(0)) step()
      },
    }
  }

  *query({ prefix = '', filters = [], orders = [], offset = 0, limit }: Query): Generator<Pair> {
    const pairs = [...this.#entries.entries()]
      .filter(([key]) => key.startsWith(prefix))
      .map(([key, value]) => ({ key: new Key(key, false), value }))
      .filter(pair => filters.every(passes => passes(pair)))
    for (const order of orders) pairs.sort(order)
    yield* pairs.slice(offset, limit === undefined ? undefined : offset + limit)
  }

  *queryKeys({ prefix = '', filters = [], orders = [], offset = 0, limit }: KeyQuery): Generator<Key> {
    const keys = [...this.#entries.keys()]
      .filter(key => key.startsWith(prefix))
      .map(key => new Key(key, false))
      .filter(key => filters.every(passes => passes(key)))
    for (const order of orders) keys.sort(order)
    yield* keys.slice(offset, limit === undefined ? undefined : offset + limit)
  }
}
