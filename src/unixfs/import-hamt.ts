/**
 * Builds sharded directories.
 *
 * Invariant: a slot with one entry holds it, a slot with several leads to a shard of its own; so the tree does
 * not depend on the order of the entries.
 * Why by partition: all hashes are known, so each level is a distribution of indices over slots, and nothing
 * is inserted, split or moved.
 */
import { CODEC_DAG_PB, cidOf } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { MAX_HAMT_FANOUT } from '../core/limits.js'
import type { Built, PutBlock } from './built.js'
import { bitsAt, HAMT_HASH_BITS, HAMT_HASH_TYPE, hashOfName, prefixLength } from './hamt-shard.js'
import type { DirectoryEntry } from './import-directory.js'
import { type EncodableLink, encodePbNode } from './pb-node.js'
import type { Steps } from './steps.js'
import { encodeUnixfsData } from './unixfs-data.js'

const HASH_BYTES = HAMT_HASH_BITS / 8

/**
 * Steps to the sharded directory with these entries, whatever their number.
 * @throws CidfsError `INVALID` for a repeated name, names whose hashes are equal, and a bad fan-out.
 */
export function* shardSteps(entries: readonly DirectoryEntry[], fanout: number, put: PutBlock): Steps<Built> {
  if (fanout < 8 || fanout > MAX_HAMT_FANOUT || (fanout & (fanout - 1)) !== 0) {
    throw new CidfsError('INVALID', `HAMT fan-out ${fanout}`)
  }
  const hashes = new Uint8Array(entries.length * HASH_BYTES)
  for (let i = 0; i < entries.length; i++) {
    hashes.set(hashOfName(entries[i]!.name), i * HASH_BYTES)
    if (i % 256 === 255) yield
  }
  const all = Array.from(entries, (_, index) => index)
  return yield* new ShardBuilder(entries, hashes, fanout, put).shard(all, 0)
}

class ShardBuilder {
  readonly #entries: readonly DirectoryEntry[]
  readonly #hashes: Uint8Array
  readonly #put: PutBlock
  readonly #fanout: number
  readonly #bits: number
  /** What the name of a link in each slot begins with. */
  readonly #prefixes: Uint8Array[]

  constructor(entries: readonly DirectoryEntry[], hashes: Uint8Array, fanout: number, put: PutBlock) {
    this.#entries = entries
    this.#hashes = hashes
    this.#put = put
    this.#fanout = fanout
    this.#bits = Math.log2(fanout)
    const digits = prefixLength(fanout)
    this.#prefixes = Array.from({ length: fanout }, (_, slot) =>
      Buffer.from(slot.toString(16).toUpperCase().padStart(digits, '0')),
    )
  }

  /** The shard of `members` (indices of entries), whose hashes agree in the first `consumed` bits. */
  *shard(members: readonly number[], consumed: number): Steps<Built> {
    if (consumed + this.#bits > HAMT_HASH_BITS) throw this.#collision(members)
    const slots = this.#distribute(members, consumed)
    yield
    const bitmap = new Uint8Array(this.#fanout / 8)
    const links: EncodableLink[] = []
    for (let slot = 0; slot < this.#fanout; slot++) {
      const inSlot = slots[slot]
      if (inSlot === undefined) continue
      bitmap[bitmap.length - 1 - (slot >>> 3)]! |= 1 << (slot & 7)
      const prefix = this.#prefixes[slot]!
      if (inSlot.length === 1) links.push(prefixed(prefix, this.#entries[inSlot[0]!]!))
      else links.push({ ...(yield* this.shard(inSlot, consumed + this.#bits)), name: prefix })
    }
    return this.#close(links, bitmap)
  }

  #distribute(members: readonly number[], consumed: number): (number[] | undefined)[] {
    const slots: (number[] | undefined)[] = new Array(this.#fanout)
    for (const member of members) {
      const at = member * HASH_BYTES
      const slot = bitsAt(this.#hashes.subarray(at, at + HASH_BYTES), consumed, this.#bits)
      const inSlot = slots[slot]
      if (inSlot === undefined) slots[slot] = [member]
      else inSlot.push(member)
    }
    return slots
  }

  #close(links: EncodableLink[], bitmap: Uint8Array): Built {
    const used = bitmap.findIndex(byte => byte !== 0)
    const data = encodeUnixfsData({
      type: 'hamt-shard',
      data: used === -1 ? new Uint8Array(0) : bitmap.subarray(used),
      blocksizes: [],
      hashType: HAMT_HASH_TYPE,
      fanout: this.#fanout,
    })
    const bytes = encodePbNode(links, data)
    const cid = cidOf(CODEC_DAG_PB, bytes)
    this.#put(cid, bytes)
    let tsize = bytes.length
    for (const link of links) tsize += link.tsize
    return { cid, tsize }
  }

  #collision(members: readonly number[]): CidfsError {
    const names = members.slice(0, 2).map(member => Buffer.from(this.#entries[member]!.name).toString())
    return new CidfsError('INVALID', `names repeated or with equal hashes: ${JSON.stringify(names)}`)
  }
}

function prefixed(prefix: Uint8Array, { cid, name, tsize }: DirectoryEntry): EncodableLink {
  return { cid, name: Buffer.concat([prefix, name]), tsize }
}
