/**
 * Where names lead, as it was last known: on disk, so that it is known without a network.
 *
 * Invariant: an entry was verified when it was stored, and of a key never gives way to an older record. The number
 * of entries is bounded: those confirmed longest ago go first.
 */
import type { Database } from 'lmdb'
import { supersedes } from '../p2p/ipns-record.js'
import type { Store } from '../store/store.js'

export interface NameEntry {
  /** `/ipfs/…` or `/ipns/…`, as `parsePath` leaves it. */
  value: string
  /** When it was last confirmed, in milliseconds since the epoch, and for how long nobody need ask again. */
  confirmedMs: number
  ttlMs: number
  /** Of keys: the record, its sequence, and when it ends. */
  signed?: { record: Uint8Array; sequence: bigint; eolMs: number }
}

/** LMDB keeps no integers of 64 bits. */
interface StoredEntry extends Omit<NameEntry, 'signed'> {
  signed?: { record: Uint8Array; sequence: string; eolMs: number }
}

/** Nobody asks more often, whatever a record says. */
const MIN_TTL_MS = 1_000
const MAX_ENTRIES = 1024
/** Removed together, so that the search for the oldest is rare. */
const REMOVED_AT_ONCE = 128

export class NameCache {
  readonly #entries: Database<StoredEntry, string>
  readonly #maxEntries: number

  constructor({ env }: Pick<Store, 'env'>, maxEntries = MAX_ENTRIES) {
    this.#entries = env.openDB({ name: 'names:entries' })
    this.#maxEntries = maxEntries
  }

  get(name: string): NameEntry | undefined {
    const stored = this.#entries.get(name)
    if (stored === undefined) return undefined
    const { signed, ...rest } = stored
    return signed === undefined ? rest : { ...rest, signed: { ...signed, sequence: BigInt(signed.sequence) } }
  }

  /** What is known afterwards: `entry`, or the newer record that was known before, confirmed again. */
  put(name: string, entry: NameEntry): NameEntry {
    const known = this.get(name)
    const isOlder = known?.signed && entry.signed && supersedes(known.signed, entry.signed)
    const kept = isOlder ? { ...known, confirmedMs: entry.confirmedMs } : entry
    const { signed, ...rest } = kept
    const stored = signed && { ...signed, sequence: signed.sequence.toString() }
    this.#entries.putSync(name, stored === undefined ? rest : { ...rest, signed: stored })
    if (known === undefined) this.#makeRoom()
    return kept
  }

  remove(name: string): void {
    this.#entries.removeSync(name)
  }

  /** In the order of their bytes. */
  names(): string[] {
    return [...this.#entries.getKeys()]
  }

  #makeRoom(): void {
    if (this.#entries.getKeysCount() <= this.#maxEntries) return
    const all = [...this.#entries.getRange()]
    all.sort((a, b) => a.value.confirmedMs - b.value.confirmedMs)
    const excess = all.length - this.#maxEntries + Math.min(REMOVED_AT_ONCE, this.#maxEntries >> 1)
    for (const { key } of all.slice(0, excess)) this.#entries.removeSync(key)
  }
}

/** Milliseconds for which an entry need not be asked for again. A clock that was set back makes nothing fresh for longer. */
export function freshMs({ confirmedMs, ttlMs, signed }: NameEntry): number {
  const nowMs = Date.now()
  const untilMs = Math.min(
    confirmedMs + Math.max(ttlMs, MIN_TTL_MS),
    signed?.eolMs ?? Number.POSITIVE_INFINITY,
  )
  return confirmedMs > nowMs ? 0 : Math.max(0, untilMs - nowMs)
}

/** Whether its record has ended. */
export function isExpired({ signed }: NameEntry): boolean {
  return signed !== undefined && signed.eolMs <= Date.now()
}
