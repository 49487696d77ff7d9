/**
 * What was published under our keys, and which directories a key follows: at rest.
 *
 * Invariant: a record is on disk before anybody is given it, so a sequence is never used for two values, whatever
 * happens to the process.
 */
import type { Database } from 'lmdb'
import type { Store } from '../store/store.js'
import { inoKey, keyIno } from './keys.js'

export interface OwnRecord {
  keyName: string
  value: string
  sequence: bigint
  eolMs: number
  record: Uint8Array
  /** When somebody last took it, in milliseconds since the epoch; 0: nobody has. */
  takenMs: number
  /** Attempts that have failed since, and what the last one met. */
  tries: number
  error?: string | undefined
}

interface StoredRecord extends Omit<OwnRecord, 'sequence'> {
  sequence: string
}

export class NameRecords {
  readonly #records: Database<StoredRecord, string>
  readonly #bindings: Database<string, Buffer>

  constructor({ env }: Pick<Store, 'env'>) {
    this.#records = env.openDB({ name: 'names:own' })
    this.#bindings = env.openDB({ name: 'names:bindings', keyEncoding: 'binary' })
  }

  get(name: string): OwnRecord | undefined {
    const stored = this.#records.get(name)
    return stored && { ...stored, sequence: BigInt(stored.sequence) }
  }

  put(name: string, record: OwnRecord): void {
    this.#records.putSync(name, { ...record, sequence: record.sequence.toString() })
  }

  remove(name: string): void {
    this.#records.removeSync(name)
  }

  names(): string[] {
    return [...this.#records.getKeys()]
  }

  /** The name of the key that a directory is published under. */
  keyOf(ino: number): string | undefined {
    return this.#bindings.get(inoKey(ino))
  }

  bind(ino: number, keyName: string): void {
    this.#bindings.putSync(inoKey(ino), keyName)
  }

  unbind(ino: number): void {
    this.#bindings.removeSync(inoKey(ino))
  }

  /** Directories and the names of their keys. */
  bindings(): [ino: number, keyName: string][] {
    return [...this.#bindings.getRange({ start: inoKey(0) })].map(({ key, value }) => [keyIno(key), value])
  }
}
