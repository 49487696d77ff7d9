/**
 * Pins: which DAGs must stay, and for whom.
 *
 * Invariant: a DAG is pinned while it has at least one owner; adding an owner twice is adding it once. All calls
 * are synchronous and take part in a `store.transaction` around them.
 *
 * Key: length of the DAG's key (u8), that key, the owner in UTF-8. Value: version of the CID as it was given.
 * Why one entry per owner: thousands of staged files may have the same content.
 */
import type { RangeOptions } from 'lmdb'
import { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { dagKey } from './cid-key.js'
import { type BinaryDatabase, type Environment, FIRST_KEY, keyBehind } from './environment.js'
import type { Roots } from './roots.js'

const MAX_OWNER_BYTES = 1024
const PAGE = 256

export interface Pin {
  cid: CID
  owners: string[]
}

export class Pins {
  /** Grows whenever something is pinned or unpinned. */
  changes = 0
  /** Called with every DAG that gets pinned, in the transaction that pins it. */
  readonly listeners = new Set<(cid: CID) => void>()
  readonly #env: Environment
  readonly #db: BinaryDatabase
  readonly #roots: Roots
  readonly #onAdd: (cid: CID) => void
  readonly #onRemove: () => void

  /**
   * @param onAdd called with every DAG that gets pinned
   * @param onRemove called when one is not pinned any more
   */
  constructor(env: Environment, roots: Roots, onAdd: (cid: CID) => void, onRemove: () => void = () => {}) {
    this.#env = env
    this.#db = env.binary('pins')
    this.#roots = roots
    this.#onAdd = onAdd
    this.#onRemove = onRemove
  }

  /**
   * Pins a DAG for an owner.
   * @throws CidfsError `INVALID` for an owner that is empty or above 1024 bytes.
   */
  add(cid: CID, owner: string): void {
    const key = pinKey(cid, owner)
    this.#env.transaction(() => {
      this.#db.putSync(key, Uint8Array.of(cid.version))
      this.#roots.setPinned(cid, true)
      this.#onAdd(cid)
      this.changes++
      for (const listener of this.listeners) listener(cid)
    })
  }

  /** Takes back what one owner pinned; false when it had not. */
  remove(cid: CID, owner: string): boolean {
    const key = pinKey(cid, owner)
    return this.#env.transaction(() => {
      if (!this.#db.removeSync(key)) return false
      if (!this.has(cid)) this.#roots.setPinned(cid, false)
      this.#onRemove()
      this.changes++
      return true
    })
  }

  /** Whether the DAG is pinned by anybody. */
  has(cid: CID): boolean {
    return this.#entries(prefixOf(cid), 1).length > 0
  }

  /** Who pinned the DAG, in the order of their names. */
  owners(cid: CID): string[] {
    const prefix = prefixOf(cid)
    return this.#entries(prefix).map(({ key }) => Buffer.from(key).toString('utf8', prefix.length))
  }

  /** Every pinned DAG once. What is pinned or unpinned meanwhile may or may not be among them. */
  *list(): Generator<Pin> {
    let current: Pin | undefined
    let currentKey: Uint8Array | undefined
    for (const { key, value } of this.#all()) {
      const end = 1 + (key[0] as number)
      const dag = key.subarray(1, end)
      const owner = Buffer.from(key).toString('utf8', end)
      if (current !== undefined && currentKey !== undefined && Buffer.compare(dag, currentKey) === 0) {
        current.owners.push(owner)
        continue
      }
      if (current !== undefined) yield current
      currentKey = dag
      current = { cid: asVersion(CID.decode(dag), value[0]), owners: [owner] }
    }
    if (current !== undefined) yield current
  }

  /** In pages, since a cursor may not stay open while the caller waits for something. */
  *#all(): Generator<Entry> {
    let page: Entry[] = this.#page({ start: FIRST_KEY, limit: PAGE })
    for (let last = page.at(-1); last !== undefined; last = page.at(-1)) {
      yield* page
      page = this.#page({ start: keyBehind(last.key), limit: PAGE })
    }
  }

  #page(range: RangeOptions): Entry[] {
    return [...this.#db.getRange(range)].map(({ key, value }) => ({ key: Uint8Array.from(key), value }))
  }

  #entries(prefix: Uint8Array, limit = Number.MAX_SAFE_INTEGER): Entry[] {
    // 0xff is in no UTF-8 text
    const end = Buffer.concat([prefix, Uint8Array.of(0xff)])
    return this.#page({ start: prefix, end, limit })
  }
}

interface Entry {
  key: Uint8Array
  value: Uint8Array
}

function pinKey(cid: CID, owner: string): Uint8Array {
  const ownerBytes = Buffer.from(owner)
  if (ownerBytes.length === 0 || ownerBytes.length > MAX_OWNER_BYTES) {
    throw new CidfsError(
      'INVALID',
      `the owner of a pin has 1 to ${MAX_OWNER_BYTES} bytes, not ${ownerBytes.length}`,
    )
  }
  return Buffer.concat([prefixOf(cid), ownerBytes])
}

function prefixOf(cid: CID): Uint8Array {
  const key = dagKey(cid)
  return Buffer.concat([Uint8Array.of(key.length), key])
}

function asVersion(cid: CID, version: number | undefined): CID {
  return version === 0 ? cid.toV0() : cid
}
