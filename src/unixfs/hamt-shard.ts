/**
 * One node of a HAMT-sharded directory, and the hash that says where a name belongs.
 *
 * Invariant: the bitmap, the links and their prefixes agree: link `i` sits in the slot of the `i`-th set bit.
 * The path of a shard never uses more bits than the hash has, which also bounds the depth.
 *
 * Specification: https://specs.ipfs.tech/unixfs/#dag-pb-hamtdirectory
 */
import { murmur364 } from '@multiformats/murmur3'
import { type CID, CODEC_DAG_PB } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { MAX_HAMT_FANOUT } from '../core/limits.js'
import { decodeNode, malformed, type UnixfsNode } from './node.js'
import type { PbNode } from './pb-node.js'

/** Multihash code of murmur3-x64-64, the only hash function in use. */
export const HAMT_HASH_TYPE = 0x22
export const HAMT_HASH_BITS = 64

/** The 64-bit hash of a name, most significant byte first: bits are used up from the left. */
export function hashOfName(name: Uint8Array): Uint8Array {
  return murmur364.encode(name) as Uint8Array
}

/** Bits `[from, from + width)` of a hash; `width` is at most ten. */
export function bitsAt(hash: Uint8Array, from: number, width: number): number {
  const byte = from >>> 3
  const window = (hash[byte]! << 16) | ((hash[byte + 1] ?? 0) << 8) | (hash[byte + 2] ?? 0)
  return (window >>> (24 - (from & 7) - width)) & ((1 << width) - 1)
}

/** Hexadecimal digits in front of every link name. */
export function prefixLength(fanout: number): number {
  return (fanout - 1).toString(16).length
}

/** Where a shard hangs: below slot `slot` of `parent`. */
export interface ShardPlace {
  parent: HamtShard
  slot: number
}

export class HamtShard {
  readonly cid: CID
  readonly node: PbNode
  /** Log2 of the fan-out. */
  readonly bits: number
  /** Bits of the hash used up above this shard. */
  readonly consumed: number
  readonly prefixLength: number
  readonly place: ShardPlace | undefined
  /** Slot of each link, ascending. */
  readonly slots: Uint16Array
  /** Child shards decoded so far, by link; most shards have none. */
  #children: Map<number, HamtShard> | undefined

  /** @throws CidfsError `MALFORMED_DAG`, `UNSUPPORTED_HASH`. */
  constructor(cid: CID, bytes: Uint8Array, place?: ShardPlace) {
    const { pb, unixfs } = decodeNode(cid, bytes)
    if (unixfs.type !== 'hamt-shard') throw malformed(cid, `${unixfs.type} in the place of a shard`)
    const fanout = checkedFanout(cid, unixfs)
    this.cid = cid
    this.node = pb.compact()
    this.place = place
    this.bits = Math.log2(fanout)
    this.consumed = place === undefined ? 0 : place.parent.consumed + place.parent.bits
    if (this.consumed + this.bits > HAMT_HASH_BITS)
      throw malformed(cid, 'shards deeper than the hash has bits')
    this.prefixLength = prefixLength(fanout)
    this.slots = slotsOf(cid, pb, fanout, unixfs.data)
  }

  /** The link in the slot where a name of this hash belongs, -1 when the slot is empty. */
  linkFor(hash: Uint8Array): number {
    const slot = bitsAt(hash, this.consumed, this.bits)
    let low = 0
    let high = this.slots.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.slots[middle]! < slot) low = middle + 1
      else high = middle
    }
    return this.slots[low] === slot ? low : -1
  }

  /** Whether a link leads to another shard rather than to an entry. */
  isShardLink(index: number): boolean {
    return this.node.nameLength(index) === this.prefixLength
  }

  child(index: number): HamtShard | undefined {
    return this.#children?.get(index)
  }

  setChild(index: number, child: HamtShard): void {
    this.#children ??= new Map()
    this.#children.set(index, child)
  }

  /** Name of an entry. */
  nameOf(index: number): Uint8Array {
    return this.node.name(index).subarray(this.prefixLength)
  }

  /** @throws CidfsError `MALFORMED_DAG`: shards are always dag-pb. */
  shardCid(index: number): CID {
    const cid = this.node.cid(index)
    if (cid.code !== CODEC_DAG_PB) throw malformed(this.cid, `link to shard ${cid} that is not dag-pb`)
    return cid
  }

  /** Whether a lookup of the name in link `index` would arrive there. */
  isInPlace(index: number): boolean {
    const hash = hashOfName(this.nameOf(index))
    let slot = this.slots[index]!
    for (let shard: HamtShard | undefined = this; shard !== undefined; shard = shard.place?.parent) {
      if (bitsAt(hash, shard.consumed, shard.bits) !== slot) return false
      slot = shard.place?.slot ?? 0
    }
    return true
  }
}

function checkedFanout(cid: CID, { fanout = 0, hashType }: UnixfsNode['unixfs']): number {
  if (hashType !== HAMT_HASH_TYPE) {
    throw new CidfsError('UNSUPPORTED_HASH', `${cid}: HAMT with hash type ${hashType}`, { cid: `${cid}` })
  }
  if (fanout < 8 || fanout > MAX_HAMT_FANOUT || (fanout & (fanout - 1)) !== 0) {
    throw malformed(cid, `HAMT fan-out ${fanout}`)
  }
  return fanout
}

/** The set bits of the bitmap (big-endian, leading zeros left out), checked against the links. */
function slotsOf(cid: CID, pb: PbNode, fanout: number, bitmap: Uint8Array = new Uint8Array()): Uint16Array {
  if (bitmap.length > fanout / 8) throw malformed(cid, `bitmap of ${bitmap.length} bytes for ${fanout} slots`)
  const slots = new Uint16Array(pb.linkCount)
  let count = 0
  for (let slot = 0; slot < bitmap.length * 8; slot++) {
    if (((bitmap[bitmap.length - 1 - (slot >>> 3)]! >>> (slot & 7)) & 1) === 0) continue
    if (count < slots.length) slots[count] = slot
    count++
  }
  if (count !== slots.length) throw malformed(cid, `${count} bits set for ${slots.length} links`)
  const digits = prefixLength(fanout)
  for (let i = 0; i < slots.length; i++) {
    if (parseHex(pb.name(i), digits) !== slots[i]) throw malformed(cid, 'a link prefix is not its slot')
  }
  return slots
}

/** The number in the first `digits` bytes, undefined when they are not hexadecimal. */
function parseHex(name: Uint8Array, digits: number): number | undefined {
  let value = 0
  for (let i = 0; i < digits; i++) {
    const digit = hexDigit(name[i] ?? 0)
    if (digit === undefined) return undefined
    value = value * 16 + digit
  }
  return value
}

function hexDigit(byte: number): number | undefined {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30
  const letter = byte & ~0x20
  return letter >= 0x41 && letter <= 0x46 ? letter - 0x41 + 10 : undefined
}
