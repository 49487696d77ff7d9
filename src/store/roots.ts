/**
 * Roots: the DAGs somebody asked for by name, which is what `ls ipfs/` chooses from.
 *
 * Invariant: a root keeps its sequence number, which readdir uses as cookie, from when it is noted until it is
 * neither pinned nor held. Numbers only grow, so a listing that goes on behind a cookie misses nothing that
 * stayed and repeats nothing.
 *
 * Databases: `roots` number (u48, big-endian) to flags and CID; `root-numbers` DAG key to number.
 */
import { CID } from '../core/cid.js'
import { dagKey } from './cid-key.js'
import type { BinaryDatabase, Environment } from './environment.js'

const PINNED = 1
const HELD = 2
const PAGE = 256
/** Under an impossible DAG key: the last number given out. */
const LAST_NUMBER = Uint8Array.of(0)

export interface Root {
  cid: CID
  /** Above 0, ascending in the order of noting. */
  seq: number
}

export class Roots {
  readonly #env: Environment
  readonly #byNumber: BinaryDatabase
  readonly #numbers: BinaryDatabase

  constructor(env: Environment) {
    this.#env = env
    this.#byNumber = env.binary('roots')
    this.#numbers = env.binary('root-numbers')
  }

  /** Remembers a root that somebody asked for. It is listed once it is pinned or held. */
  note(cid: CID): void {
    if (this.#numberOf(cid) === undefined) this.#change(cid, 0, 0)
  }

  /** Says whether every block of the DAG is held locally. Not listed any more when it is neither held nor pinned. */
  markHeld(cid: CID, held: boolean): void {
    this.#change(cid, HELD, held ? HELD : 0)
  }

  /** For `Pins`. */
  setPinned(cid: CID, pinned: boolean): void {
    this.#change(cid, PINNED, pinned ? PINNED : 0)
  }

  /** Whether `list` would name it. */
  isListed(cid: CID): boolean {
    const number = this.#numberOf(cid)
    return number !== undefined && this.#flags(number) !== 0
  }

  /** What is pinned or held, in ascending order, behind the cookie `after`. Reads in pages: may be left off anywhere. */
  *list(after = 0): Generator<Root & { pinned: boolean; held: boolean }> {
    let seq = after
    for (;;) {
      const page = [...this.#byNumber.getRange({ start: encodeNumber(seq + 1), limit: PAGE })].map(
        ({ key, value }) => ({ seq: decodeNumber(key), value }),
      )
      for (const { seq, value } of page) {
        const flags = value[0] as number
        if (flags === 0) continue
        const cid = CID.decode(Uint8Array.from(value.subarray(1)))
        yield { cid, seq, pinned: (flags & PINNED) !== 0, held: (flags & HELD) !== 0 }
      }
      const last = page.at(-1)
      if (last === undefined) return
      seq = last.seq
    }
  }

  /** Sets the flags in `mask` to those in `flags`; a root that loses its last flag is forgotten. */
  #change(cid: CID, mask: number, flags: number): void {
    const number = this.#numberOf(cid)
    const before = number === undefined ? 0 : this.#flags(number)
    const after = (before & ~mask) | flags
    if (number !== undefined && after === before) return
    if (after === 0 && mask !== 0) {
      if (number !== undefined) this.#forget(cid, number)
      return
    }
    this.#env.transaction(() => this.#write(cid, number ?? this.#assignNumber(cid), after))
  }

  #write(cid: CID, number: number, flags: number): void {
    const known = this.#byNumber.get(encodeNumber(number))
    const cidBytes = known === undefined ? cid.bytes : known.subarray(1)
    this.#byNumber.putSync(encodeNumber(number), Buffer.concat([Uint8Array.of(flags), cidBytes]))
  }

  #assignNumber(cid: CID): number {
    const last = this.#numbers.get(LAST_NUMBER)
    const number = last === undefined ? 1 : decodeNumber(last) + 1
    this.#numbers.putSync(LAST_NUMBER, encodeNumber(number))
    this.#numbers.putSync(dagKey(cid), encodeNumber(number))
    return number
  }

  #forget(cid: CID, number: number): void {
    this.#env.transaction(() => {
      this.#byNumber.removeSync(encodeNumber(number))
      this.#numbers.removeSync(dagKey(cid))
    })
  }

  #numberOf(cid: CID): number | undefined {
    const number = this.#numbers.get(dagKey(cid))
    return number === undefined ? undefined : decodeNumber(number)
  }

  #flags(number: number): number {
    return this.#byNumber.get(encodeNumber(number))?.[0] ?? 0
  }
}

/** Big-endian, so that the order of bytes is that of numbers; six bytes are enough for ever. */
function encodeNumber(number: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(6)
  bytes.writeUIntBE(number, 0, 6)
  return bytes
}

function decodeNumber(bytes: Uint8Array): number {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).readUIntBE(0, 6)
}
