/**
 * A directory spread over shards.
 *
 * Invariant: a lookup gets only the shards on its path; a listing is whole or fails. `list` shows exactly what
 * `find` finds: an entry in a slot where its name does not hash to is hidden. No shard occurs twice, so the
 * work is bounded by the number of distinct blocks, however they link to each other.
 */
import type { BlockReader, GetOptions } from '../core/blocks.js'
import { binaryString, type CID } from '../core/cid.js'
import { type MaybePromise, then } from '../core/maybe-promise.js'
import { type DirLink, isVisibleName, NodeLink } from './dir-link.js'
import { gather } from './gather.js'
import { HamtShard, hashOfName } from './hamt-shard.js'
import { getBlock, malformed } from './node.js'
import { runSliced, type Steps } from './steps.js'

/** Decoded shards a directory keeps for lookups; beyond that it starts anew. */
const MAX_HELD_SHARDS = 16_384
/** A long listing of local shards lets the event loop turn after this many milliseconds. */
const LIST_SLICE_MS = 4

/** A link to a shard. */
interface ShardLink {
  shard: HamtShard
  index: number
  cid: CID
}

export class HamtDirectory {
  readonly #blocks: BlockReader
  /** Replaced, not emptied, when shards are dropped: a listing under way goes on with the old one. */
  #root: HamtShard
  #links: DirLink[] | undefined
  #hidden = 0
  #heldShards = 1
  #heldBytes: number

  /** @throws CidfsError `MALFORMED_DAG`, `UNSUPPORTED_HASH`. */
  constructor(cid: CID, bytes: Uint8Array, blocks: BlockReader) {
    this.#root = new HamtShard(cid, bytes)
    this.#blocks = blocks
    this.#heldBytes = bytes.length
  }

  /** 0 before the first listing. */
  get hidden(): number {
    return this.#hidden
  }

  get heldBytes(): number {
    return this.#heldBytes
  }

  find(name: Uint8Array, options?: GetOptions): MaybePromise<DirLink | undefined> {
    if (!isVisibleName(name)) return undefined
    if (this.#links === undefined && this.#heldShards > MAX_HELD_SHARDS) this.#dropShards()
    return this.#descend(this.#root, hashOfName(name), name, options)
  }

  #descend(
    shard: HamtShard,
    hash: Uint8Array,
    name: Uint8Array,
    options: GetOptions | undefined,
  ): MaybePromise<DirLink | undefined> {
    const index = shard.linkFor(hash)
    if (index === -1) return undefined
    if (!shard.isShardLink(index)) {
      const found = Buffer.compare(shard.nameOf(index), name) === 0
      return found ? new NodeLink(shard.node, index, shard.prefixLength) : undefined
    }
    const child = shard.child(index)
    if (child !== undefined) return this.#descend(child, hash, name, options)
    const cid = shard.shardCid(index)
    return then(getBlock(this.#blocks, cid, options), bytes =>
      this.#descend(this.#adopt({ shard, index, cid }, bytes), hash, name, options),
    )
  }

  /** The child shard behind a link, decoded once. */
  #adopt({ shard, index, cid }: ShardLink, bytes: Uint8Array): HamtShard {
    const known = shard.child(index)
    if (known !== undefined) return known
    const child = new HamtShard(cid, bytes, { parent: shard, slot: shard.slots[index]! })
    shard.setChild(index, child)
    this.#heldShards++
    this.#heldBytes += bytes.length
    return child
  }

  #dropShards(): void {
    this.#root = new HamtShard(this.#root.cid, this.#root.node.bytes)
    this.#heldShards = 1
    this.#heldBytes = this.#root.node.bytes.length
  }

  /** All entries, in the order of their hashes. */
  list(options?: GetOptions): MaybePromise<readonly DirLink[]> {
    if (this.#links !== undefined) return this.#links
    const listing = new Listing(this.#root)
    const gathered = gather(
      listing.wanted,
      ({ shard, index, cid }) => shard.child(index)?.node.bytes ?? getBlock(this.#blocks, cid, options),
      (job, bytes) => listing.visit(this.#adopt(job, bytes)),
      { sliceMs: LIST_SLICE_MS },
    )
    return then(gathered, () =>
      then(runSliced(listing.collect()), links => {
        this.#hidden = listing.hidden
        this.#links = links
        return links
      }),
    )
  }
}

/** One walk over all shards. */
class Listing {
  readonly root: HamtShard
  /** Shards below those visited; grows while they come in. */
  readonly wanted: ShardLink[] = []
  hidden = 0
  /** Links of a shard that are shown or lead to shards, where that is not all of them. */
  readonly #shown = new Map<HamtShard, number[]>()
  readonly #seen = new Set<string>()

  constructor(root: HamtShard) {
    this.root = root
    this.visit(root)
  }

  visit(shard: HamtShard): void {
    const shown: number[] = []
    for (let index = 0; index < shard.slots.length; index++) {
      if (shard.isShardLink(index)) this.#visitChild(shard, index)
      else if (!isVisibleName(shard.nameOf(index)) || !shard.isInPlace(index)) continue
      shown.push(index)
    }
    if (shown.length === shard.slots.length) return
    this.hidden += shard.slots.length - shown.length
    this.#shown.set(shard, shown)
  }

  #visitChild(shard: HamtShard, index: number): void {
    const cid = shard.shardCid(index)
    const key = binaryString(cid.bytes)
    if (this.#seen.has(key)) throw malformed(cid, 'shard occurs twice in a directory')
    this.#seen.add(key)
    this.wanted.push({ shard, index, cid })
  }

  /** The entries, when all shards were visited. */
  *collect(): Steps<DirLink[]> {
    const links: DirLink[] = []
    yield* this.#collectFrom(this.root, links)
    return links
  }

  *#collectFrom(shard: HamtShard, links: DirLink[]): Steps<void> {
    const shown = this.#shown.get(shard)
    const count = shown?.length ?? shard.slots.length
    for (let i = 0; i < count; i++) {
      const index = shown === undefined ? i : shown[i]!
      const child = shard.child(index)
      if (child !== undefined) yield* this.#collectFrom(child, links)
      else links.push(new NodeLink(shard.node, index, shard.prefixLength))
    }
    yield
  }
}
