/**
 * The index: multihash to location.
 *
 * Invariant: it says where a block was put last, not whether it is still there; that is `Containers.covers`.
 *
 * Value (16 bytes, little-endian): container u32, offset u48, two bytes reserved, length u32.
 */
import type { Location } from '../core/blocks.js'
import { type BinaryDatabase, type Environment, FIRST_KEY, keyBehind } from './environment.js'

const VALUE_BYTES = 16

export class BlockIndex {
  readonly #db: BinaryDatabase
  /** Reused: lmdb has copied it when `putSync` returns. */
  readonly #value = Buffer.alloc(VALUE_BYTES)

  constructor(env: Environment) {
    this.#db = env.binary('blocks')
  }

  get(multihash: Uint8Array): Location | undefined {
    // valid until the next read only: decoded at once
    const value = this.#db.getBinaryFast(multihash)
    return value === undefined ? undefined : decodeLocation(value)
  }

  set(multihash: Uint8Array, location: Location): void {
    this.#value.writeUInt32LE(location.container, 0)
    this.#value.writeUIntLE(location.offset, 4, 6)
    this.#value.writeUInt32LE(location.length, 12)
    this.#db.putSync(multihash, this.#value)
  }

  remove(multihash: Uint8Array): void {
    this.#db.removeSync(multihash)
  }

  get count(): number {
    return (this.#db.getStats() as { entryCount: number }).entryCount
  }

  /** Up to `limit` entries behind the key `after` (undefined: from the start), in the order of keys. */
  page(after: Uint8Array | undefined, limit: number): IndexEntry[] {
    const range = { start: after === undefined ? FIRST_KEY : keyBehind(after), limit }
    const entries: IndexEntry[] = []
    for (const { key, value } of this.#db.getRange(range)) {
      entries.push({ multihash: Uint8Array.from(key), location: decodeLocation(value) })
    }
    return entries
  }
}

export interface IndexEntry {
  multihash: Uint8Array
  location: Location
}

function decodeLocation(value: Uint8Array): Location {
  const bytes = value as Buffer
  return {
    container: bytes.readUInt32LE(0),
    offset: bytes.readUIntLE(4, 6),
    length: bytes.readUInt32LE(12),
  }
}
