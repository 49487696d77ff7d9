/**
 * The chunk table of a file: which bytes of which blocks make up a range of it.
 *
 * Invariant: only nodes over the ranges asked for are ever got, and raw leaves never: their length is what the
 * parent says, and `checkLeaf` compares it when the block is there. Every node got is checked against its
 * parent, so a range never yields bytes of another size than promised. Any layout goes: balanced, trickle, data
 * in interior nodes, inline, identity CIDs, leaves at several depths.
 * Why lazily: the table of a file of 1 TiB has 48 MiB. What is expanded is kept as the nodes' own blocks, the
 * least recently used dropped beyond `MAX_HELD_NODES`.
 */
import type { BlockReader, GetOptions } from '../core/blocks.js'
import type { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { type MaybePromise, then } from '../core/maybe-promise.js'
import { FileNode, type Pending, type Piece } from './file-node.js'
import type { BlockSpan, Span } from './file-span.js'
import { gather } from './gather.js'
import { getBlock, malformed } from './node.js'

export type { BlockSpan, InlineSpan, Span } from './file-span.js'

/** Expanded interior nodes a table keeps between calls (about 70 KiB each at 1,024 links). */
const MAX_HELD_NODES = 64
/** More pieces than this in one range: an attack, or no file anyone could use. */
const MAX_PIECES = 65_536
const PAGE_BYTES = 4096

export class FileTable {
  readonly cid: CID
  readonly sizeBytes: number
  readonly #root: FileNode
  /** Interior nodes below the root, least recently used first. */
  readonly #held = new Set<FileNode>()
  #lastUsed: FileNode | undefined
  #aligned = true

  private constructor(root: FileNode) {
    this.cid = root.cid
    this.sizeBytes = root.sizeBytes
    this.#root = root
    this.#noteBoundaries(root)
  }

  /**
   * The table of the file whose root block is `bytes`: a UnixFS file, or any block that is not dag-pb.
   * @throws CidfsError `MALFORMED_DAG`, `IS_DIRECTORY`, `INVALID` (a symlink).
   */
  static open(cid: CID, bytes: Uint8Array): FileTable {
    return new FileTable(FileNode.root(cid, bytes))
  }

  /**
   * False once a boundary between blocks is known that is no multiple of 4096. Then a missing block takes
   * readable neighbours with it when the kernel reads by pages. At first only the root's boundaries are known.
   */
  get aligned(): boolean {
    return this.#aligned
  }

  /** Expanded nodes in memory. */
  get heldNodes(): number {
    return this.#held.size + 1
  }

  /**
   * The spans that make up `[start, min(end, sizeBytes))`: consecutive, clipped to the range, none empty. At
   * once when every dag-pb node over the range is known or local.
   * @throws CidfsError what `BlockReader.get` throws for a node over the range; `MALFORMED_DAG`.
   */
  spans(start: number, end: number, blocks: BlockReader, options?: GetOptions): MaybePromise<Span[]> {
    const pieces: Piece[] = []
    this.#root.collect(start, Math.min(end, this.sizeBytes), pieces, MAX_PIECES)
    let count = this.#checkCount(pieces.length)
    const pending = pieces.filter(piece => piece.kind === 'pending')
    if (pending.length === 0) return this.#settle(pieces)
    const gathered = gather(
      pending,
      ({ cid }) => getBlock(blocks, cid, options),
      (job, bytes) => {
        count = this.#checkCount(count + this.#resolve(job, bytes, pending))
      },
    )
    return then(gathered, () => this.#settle(pieces))
  }

  #checkCount(pieces: number): number {
    if (pieces >= MAX_PIECES) throw malformed(this.cid, 'pieces too small')
    return pieces
  }

  /** Puts what a node over the range holds in its place; returns how many pieces that are. */
  #resolve(job: Pending, bytes: Uint8Array, work: Pending[]): number {
    const node = job.parent.expand(job.index, job.cid, bytes)
    if (node !== undefined && !this.#held.has(node)) {
      this.#held.add(node)
      this.#noteBoundaries(node)
    }
    const pieces: Piece[] = []
    job.parent.collectChild(job.index, job.start, job.end, pieces, MAX_PIECES)
    for (const piece of pieces) if (piece.kind === 'pending') work.push(piece)
    job.pieces = pieces
    return pieces.length
  }

  #settle(pieces: Piece[]): Span[] {
    const spans: Span[] = []
    this.#flatten(pieces, spans)
    this.#trim()
    return spans
  }

  #flatten(pieces: Piece[], spans: Span[]): void {
    for (const piece of pieces) {
      if (piece.kind === 'pending') this.#flatten(piece.pieces ?? [], spans)
      else {
        spans.push(piece.span)
        if (piece.owner !== this.#lastUsed) this.#touch(piece.owner)
      }
    }
  }

  /** Children before parents: so the least recently used node has no held children. */
  #touch(owner: FileNode): void {
    this.#lastUsed = owner
    for (let node: FileNode | undefined = owner; node?.parent !== undefined; node = node.parent) {
      this.#held.delete(node)
      this.#held.add(node)
    }
  }

  #trim(): void {
    for (const node of this.#held) {
      if (this.#held.size <= MAX_HELD_NODES) return
      this.#held.delete(node)
      node.detach()
    }
  }

  /**
   * CIDs known to be needed for `[start, end)`: leaves, and nodes that are not expanded yet (ask again after
   * `spans`). Identity CIDs and what is in the root are left out. At most `limit`; neighbours that repeat are
   * named once. Never waits.
   */
  needed(start: number, end: number, limit = 1024): CID[] {
    const pieces: Piece[] = []
    this.#root.collect(start, Math.min(end, this.sizeBytes), pieces, limit)
    const cids: CID[] = []
    for (const piece of pieces) {
      const cid = piece.kind === 'pending' ? piece.cid : piece.span.cid
      if (cid !== undefined && cid !== this.cid && !cids.at(-1)?.equals(cid)) cids.push(cid)
    }
    return cids
  }

  /**
   * End of the smallest part of the file that is known to hold byte `offset`: when a range cannot be had,
   * ranges cut there may be.
   */
  nextBoundary(offset: number): number {
    return this.#root.boundaryAfter(Math.max(0, Math.min(offset, this.sizeBytes)))
  }

  /**
   * Compares a block of `blockLength` bytes with what its parent promised.
   * @throws CidfsError `MALFORMED_DAG` when they differ.
   */
  checkLeaf(span: Span, blockLength: number): void {
    checkLeaf(span, blockLength)
  }

  #noteBoundaries(node: FileNode): void {
    for (let i = 0; this.#aligned && i < node.offsets.length; i++) {
      const boundary = node.start + node.offsets[i]!
      if (boundary % PAGE_BYTES !== 0 && boundary !== this.sizeBytes) this.#aligned = false
    }
  }
}

/** As `FileTable.checkLeaf`. */
export function checkLeaf(span: Span, blockLength: number): void {
  const { cid, blockLength: promised } = span as BlockSpan
  if (cid === undefined || promised === undefined || promised === blockLength) return
  throw new CidfsError('MALFORMED_DAG', `${cid}: ${blockLength} bytes where ${promised} were promised`, {
    cid: cid.toString(),
  })
}
