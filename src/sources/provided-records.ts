/**
 * When each block was last provided.
 *
 * Invariant: survives restarts; nothing here takes the main thread for longer than a page of records does.
 *
 * Database `provided`: multihash to milliseconds since the epoch (u48, big-endian).
 */
import type { Database } from 'lmdb'
import type { CID } from '../core/cid.js'
import { FIRST_KEY, keyBehind } from '../store/environment.js'
import type { Pacer } from '../store/pacer.js'
import type { Store } from '../store/store.js'

const PAGE = 512

export class ProvidedRecords {
  readonly #store: Store
  readonly #db: Database<Uint8Array, Uint8Array>

  constructor(store: Store) {
    this.#store = store
    this.#db = store.env.openDB({ name: 'provided', encoding: 'binary', keyEncoding: 'binary' })
  }

  /** Milliseconds since the epoch; undefined: never, as far as it is known. */
  get(cid: CID): number | undefined {
    const value = this.#db.get(Buffer.from(cid.multihash.bytes))
    return value === undefined ? undefined : decode(value)
  }

  set(cid: CID, atMs: number): void {
    const value = Buffer.allocUnsafe(6)
    value.writeUIntBE(atMs, 0, 6)
    this.#store.transaction(() => this.#db.putSync(Buffer.from(cid.multihash.bytes), value))
  }

  get count(): number {
    return (this.#db.getStats() as { entryCount: number }).entryCount
  }

  /** Removes the records of what is not provided any more. */
  async forgetOlderThan(atMs: number, pacer: Pacer): Promise<void> {
    for (let start: Uint8Array = FIRST_KEY; ; ) {
      const page = this.#page(start)
      const last = page.at(-1)
      if (last === undefined) return
      this.#remove(page.filter(({ providedAtMs }) => providedAtMs < atMs).map(({ key }) => key))
      if (pacer.due) await pacer.pause()
      start = keyBehind(last.key)
    }
  }

  #page(start: Uint8Array): { key: Uint8Array; providedAtMs: number }[] {
    return [...this.#db.getRange({ start, limit: PAGE })].map(({ key, value }) => ({
      key: Uint8Array.from(key),
      providedAtMs: decode(value),
    }))
  }

  #remove(keys: readonly Uint8Array[]): void {
    if (keys.length === 0) return
    this.#store.transaction(() => {
      for (const key of keys) this.#db.removeSync(key)
    })
  }
}

function decode(value: Uint8Array): number {
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength).readUIntBE(0, 6)
}
