/**
 * The entries of `pins/` at rest.
 *
 * Invariant: a pin is found by its id alone and by its name, and its id keeps its CID for good: another content
 * is another pin. Each method is part of the transaction around it. Ids come from a counter that only grows, so
 * none is ever given out twice, and listings go on behind an id whatever was removed.
 */
import type { Database } from 'lmdb'
import { CidfsError } from '../core/errors.js'
import { MAX_NAME_BYTES } from '../core/limits.js'
import type { Store } from '../store/store.js'
import { inoKey } from './keys.js'
import type { Timestamp } from './node.js'

/** Ids of pins are from here to below 2^52: above all staged nodes, below all immutable ones. */
export const FIRST_PIN_INO = 2 ** 51

/** Records read at once: a cursor may not stay open while the caller waits for something. */
const PAGE = 256

export interface PinRecord {
  ino: number
  name: Uint8Array
  cid: Uint8Array
  uid: number
  gid: number
  mtime: Timestamp
  ctime: Timestamp
  /** Every block has been here at once. */
  pinned: boolean
  /** Attempts to fetch it that have failed, and what the last one met. */
  tries: number
  error?: string
  /** What it has replaced: stays pinned until this one is. */
  old: Uint8Array[]
}

export class PinRecords {
  readonly #records: Database<PinRecord, Buffer>
  readonly #names: Database<number, Buffer>
  readonly #meta: Database<number | Timestamp, string>

  constructor({ env }: Store) {
    this.#records = env.openDB({ name: 'pins:records', keyEncoding: 'binary' })
    this.#names = env.openDB({ name: 'pins:names', keyEncoding: 'binary' })
    this.#meta = env.openDB({ name: 'pins:meta' })
  }

  /** An id that was never given out. */
  nextIno(): number {
    const ino = (this.#meta.get('next-ino') as number | undefined) ?? FIRST_PIN_INO
    this.#meta.putSync('next-ino', ino + 1)
    return ino
  }

  /** When the directory was last changed; undefined: never. */
  get changed(): Timestamp | undefined {
    return this.#meta.get('changed') as Timestamp | undefined
  }

  set changed(time: Timestamp) {
    this.#meta.putSync('changed', time)
  }

  find(ino: number): PinRecord | undefined {
    return this.#records.get(inoKey(ino))
  }

  /** @throws CidfsError `NAME_TOO_LONG`. */
  findNamed(name: Uint8Array): PinRecord | undefined {
    if (name.length > MAX_NAME_BYTES) throw new CidfsError('NAME_TOO_LONG', 'name too long')
    const ino = name.length === 0 ? undefined : this.#names.get(Buffer.from(name))
    return ino === undefined ? undefined : this.find(ino)
  }

  /** Stores a new record, or one whose name has not changed. */
  put(record: PinRecord): void {
    this.#records.putSync(inoKey(record.ino), record)
    this.#names.putSync(Buffer.from(record.name), record.ino)
  }

  /** Frees the name, and forgets the record. */
  remove({ ino, name }: PinRecord): void {
    this.#records.removeSync(inoKey(ino))
    this.#names.removeSync(Buffer.from(name))
  }

  /** All with ids above `after`, in the order of ids. */
  *list(after = 0): Generator<PinRecord> {
    for (let next = after + 1; ; ) {
      const page = [...this.#records.getRange({ start: inoKey(next), limit: PAGE })]
      for (const { value } of page) yield value
      const last = page.at(-1)
      if (last === undefined) return
      next = last.value.ino + 1
    }
  }
}
