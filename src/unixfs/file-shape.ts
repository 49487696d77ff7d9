/**
 * How a UnixFS file node divides its content between itself and its children.
 *
 * Invariant: the parts add up. The number of block sizes is that of the links, and inline data and block sizes
 * sum to `filesize`; a node that says otherwise is malformed, because no range of it could be trusted. Data in
 * a node comes before the data of its children.
 */
import type { CID } from '../core/cid.js'
import { malformed, type UnixfsNode } from './node.js'

/** A part of a block. */
export interface Extent {
  /** Offset in the block. */
  dataOffset: number
  length: number
}

export interface FileShape {
  sizeBytes: number
  /** Content in the node itself; undefined when there is none. */
  inline: Extent | undefined
  /** Child `i` holds bytes `[offsets[i], offsets[i + 1])` of the node's content. One more than there are links. */
  offsets: Float64Array
}

/**
 * The shape of a node of type file or raw.
 * @throws CidfsError `MALFORMED_DAG`.
 */
export function fileShape(cid: CID, { pb, unixfs }: UnixfsNode): FileShape {
  if (unixfs.type !== 'file' && unixfs.type !== 'raw') throw malformed(cid, `${unixfs.type} within a file`)
  const { blocksizes, data, filesize } = unixfs
  if (blocksizes.length !== pb.linkCount) {
    throw malformed(cid, `${blocksizes.length} block sizes for ${pb.linkCount} links`)
  }
  const offsets = new Float64Array(pb.linkCount + 1)
  offsets[0] = data?.length ?? 0
  for (let i = 0; i < blocksizes.length; i++) offsets[i + 1] = offsets[i]! + blocksizes[i]!
  const sizeBytes = offsets[pb.linkCount]!
  if (sizeBytes >= Number.MAX_SAFE_INTEGER) throw malformed(cid, 'file size out of range')
  if (filesize !== undefined && filesize !== sizeBytes) {
    throw malformed(cid, `file size ${filesize}, but its parts have ${sizeBytes} bytes`)
  }
  return { sizeBytes, inline: extentOf(pb.bytes, data), offsets }
}

/** Where in its block a view lies. */
function extentOf(block: Uint8Array, view: Uint8Array | undefined): Extent | undefined {
  if (view === undefined || view.length === 0) return undefined
  return { dataOffset: view.byteOffset - block.byteOffset, length: view.length }
}
