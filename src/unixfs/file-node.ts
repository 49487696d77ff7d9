/**
 * One expanded node of a file's tree.
 *
 * Invariant: a node's size and depth were checked when it was made. `start` is where its content begins in the
 * file; the content is its own data, then that of its children.
 */
import { type CID, CODEC_DAG_PB, CODEC_RAW, isIdentity } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { MAX_DAG_DEPTH } from '../core/limits.js'
import { type Extent, type FileShape, fileShape } from './file-shape.js'
import type { Span } from './file-span.js'
import { decodeNode, identityBytes, malformed } from './node.js'
import type { PbNode } from './pb-node.js'

/** A node over a range that is not expanded yet. */
export interface Pending {
  kind: 'pending'
  parent: FileNode
  index: number
  cid: CID
  /** The part of the range that it covers. */
  start: number
  end: number
  /** Filled in once it is. */
  pieces?: Piece[]
}

export type Piece = Pending | { kind: 'span'; span: Span; owner: FileNode }

const UNKNOWN = -1

export class FileNode {
  readonly cid: CID
  readonly start: number
  readonly sizeBytes: number
  /** As in `FileShape`. */
  readonly offsets: Float64Array
  readonly parent: FileNode | undefined
  readonly #indexInParent: number
  readonly #depth: number
  readonly #inline: Extent | undefined
  /** undefined when there are no links. */
  readonly #links: PbNode | undefined
  readonly #children = new Map<number, FileNode>()
  /** Where in its block the data of a dag-pb leaf begins, by link; made when the first one is known. */
  #leafDataOffsets: Int32Array | undefined

  private constructor(
    cid: CID,
    shape: FileShape,
    links: PbNode | undefined,
    place?: { parent: FileNode; index: number },
  ) {
    this.cid = cid
    this.sizeBytes = shape.sizeBytes
    this.offsets = shape.offsets
    this.#inline = shape.inline
    this.#links = links
    this.parent = place?.parent
    this.#indexInParent = place?.index ?? 0
    this.start = place === undefined ? 0 : place.parent.start + place.parent.offsets[place.index]!
    this.#depth = place === undefined ? 0 : place.parent.#depth + 1
    if (this.#depth > MAX_DAG_DEPTH) throw malformed(cid, 'file deeper than the limit')
  }

  /** @throws CidfsError `MALFORMED_DAG`, `IS_DIRECTORY`, `INVALID`. */
  static root(cid: CID, bytes: Uint8Array): FileNode {
    if (cid.code !== CODEC_DAG_PB) return new FileNode(cid, wholeBlock(bytes), undefined)
    const node = decodeNode(cid, bytes)
    const { type } = node.unixfs
    if (type === 'directory' || type === 'hamt-shard') {
      throw new CidfsError('IS_DIRECTORY', `${cid}: a directory`, { cid: cid.toString() })
    }
    if (type === 'symlink') {
      throw new CidfsError('INVALID', `${cid}: a symbolic link, not a file`, { cid: cid.toString() })
    }
    const shape = fileShape(cid, node)
    return new FileNode(cid, shape, node.pb.linkCount === 0 ? undefined : node.pb.compact())
  }

  /**
   * Takes in the block of child `index`. Returns the child's node; undefined for a leaf, of which only an
   * offset is remembered.
   * @throws CidfsError `MALFORMED_DAG`.
   */
  expand(index: number, cid: CID, bytes: Uint8Array): FileNode | undefined {
    const known = this.#children.get(index)
    if (known !== undefined) return known
    const node = decodeNode(cid, bytes)
    const shape = fileShape(cid, node)
    const promised = this.offsets[index + 1]! - this.offsets[index]!
    if (shape.sizeBytes !== promised) {
      throw malformed(cid, `${shape.sizeBytes} bytes where its parent promised ${promised}`)
    }
    if (node.pb.linkCount === 0) {
      this.#rememberLeaf(index, shape.inline?.dataOffset ?? 0)
      return undefined
    }
    const child = new FileNode(cid, shape, node.pb.compact(), { parent: this, index })
    this.#children.set(index, child)
    return child
  }

  #rememberLeaf(index: number, dataOffset: number): void {
    this.#leafDataOffsets ??= new Int32Array(this.offsets.length - 1).fill(UNKNOWN)
    this.#leafDataOffsets[index] = dataOffset
  }

  /** Forgets this node; its parent will ask for it again. */
  detach(): void {
    if (this.parent !== undefined) this.parent.#children.delete(this.#indexInParent)
  }

  /** Appends what covers `[start, end)` of the file, as far as it lies here, until there are `limit` pieces. */
  collect(start: number, end: number, pieces: Piece[], limit: number): void {
    if (this.#inline !== undefined) this.#collectInline(this.#inline, start, end, pieces)
    const count = this.offsets.length - 1
    for (let i = this.#childAt(start); i < count && pieces.length < limit; i++) {
      if (this.start + this.offsets[i]! >= end) return
      this.collectChild(i, start, end, pieces, limit)
    }
  }

  #collectInline({ dataOffset, length }: Extent, start: number, end: number, pieces: Piece[]): void {
    const from = Math.max(start, this.start)
    const to = Math.min(end, this.start + length)
    if (from >= to) return
    this.#push(this.cid, from, to, dataOffset + from - this.start, undefined, pieces)
  }

  /** The first child that ends behind `start`. */
  #childAt(start: number): number {
    let low = 0
    let high = this.offsets.length - 1
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.start + this.offsets[middle + 1]! <= start) low = middle + 1
      else high = middle
    }
    return low
  }

  collectChild(index: number, start: number, end: number, pieces: Piece[], limit: number): void {
    const childStart = this.start + this.offsets[index]!
    const childEnd = this.start + this.offsets[index + 1]!
    const from = Math.max(start, childStart)
    const to = Math.min(end, childEnd)
    if (from >= to) return
    const child = this.#children.get(index)
    if (child === undefined) this.#collectLink(index, from, to, pieces)
    else child.collect(from, to, pieces, limit)
  }

  /** Bytes `[from, to)` of the file, all of them in child `index`, which has no node here. */
  #collectLink(index: number, from: number, to: number, pieces: Piece[]): void {
    const childStart = this.start + this.offsets[index]!
    const childEnd = this.start + this.offsets[index + 1]!
    const cid = this.#links!.cid(index)
    if (cid.code === CODEC_RAW) {
      this.#push(cid, from, to, from - childStart, childEnd - childStart, pieces)
      return
    }
    if (cid.code !== CODEC_DAG_PB) throw malformed(this.cid, `codec 0x${cid.code.toString(16)} within a file`)
    const offsets = this.#leafDataOffsets
    const dataOffset = offsets === undefined ? UNKNOWN : offsets[index]!
    if (dataOffset !== UNKNOWN) this.#push(cid, from, to, dataOffset + from - childStart, undefined, pieces)
    else pieces.push({ kind: 'pending', parent: this, index, cid, start: from, end: to })
  }

  #push(
    cid: CID,
    from: number,
    to: number,
    dataOffset: number,
    blockLength: number | undefined,
    pieces: Piece[],
  ): void {
    const length = to - from
    const span = isIdentity(cid)
      ? { start: from, length, inline: inlineOf(cid, dataOffset, length, blockLength) }
      : { cid, start: from, length, dataOffset, blockLength }
    pieces.push({ kind: 'span', span, owner: this })
  }

  /** End of the innermost known part that holds `offset`. */
  boundaryAfter(offset: number): number {
    const inlineEnd = this.start + (this.#inline?.length ?? 0)
    if (offset < inlineEnd || this.offsets.length === 1) return inlineEnd
    const index = Math.min(this.#childAt(offset), this.offsets.length - 2)
    return this.#children.get(index)?.boundaryAfter(offset) ?? this.start + this.offsets[index + 1]!
  }
}

function wholeBlock({ length }: Uint8Array): FileShape {
  const inline = length === 0 ? undefined : { dataOffset: 0, length }
  return { sizeBytes: length, inline, offsets: Float64Array.of(length) }
}

function inlineOf(cid: CID, dataOffset: number, length: number, blockLength: number | undefined): Uint8Array {
  const bytes = identityBytes(cid)
  if (blockLength !== undefined && bytes.length !== blockLength) {
    throw malformed(cid, `${bytes.length} bytes where its parent promised ${blockLength}`)
  }
  return bytes.subarray(dataOffset, dataOffset + length)
}
