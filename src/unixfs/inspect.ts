/**
 * What a block is, seen from a file system, and where it leads.
 *
 * Invariant: answers from one block alone. Only dag-pb has structure here; a block of any other codec is its
 * plain bytes, so every CID can be read.
 */
import { type CID, CODEC_DAG_PB } from '../core/cid.js'
import { messageOf } from '../core/errors.js'
import { fileShape } from './file-shape.js'
import { decodeNode, malformed, type UnixfsNode } from './node.js'
import { decodePbNode } from './pb-node.js'
import type { UnixfsTime } from './unixfs-data.js'

/** Permissions are the low twelve bits; undefined where the node records none. */
export interface Metadata {
  mode?: number | undefined
  mtime?: UnixfsTime | undefined
}

export type Inspected =
  | ({ kind: 'file'; sizeBytes: number } & Metadata)
  | ({ kind: 'directory' } & Metadata)
  | ({ kind: 'hamt' } & Metadata)
  | ({ kind: 'symlink'; target: Uint8Array } & Metadata)
  | { kind: 'bytes'; sizeBytes: number }

/**
 * What the block `bytes` of `cid` is. A symlink's target is a copy.
 * @throws CidfsError `MALFORMED_DAG` for dag-pb that is not valid UnixFS, or of type metadata.
 */
export function inspect(cid: CID, bytes: Uint8Array): Inspected {
  if (cid.code !== CODEC_DAG_PB) return { kind: 'bytes', sizeBytes: bytes.length }
  const node = decodeNode(cid, bytes)
  const metadata = metadataOf(node)
  switch (node.unixfs.type) {
    case 'file':
    case 'raw':
      return { kind: 'file', sizeBytes: fileShape(cid, node).sizeBytes, ...metadata }
    case 'directory':
      return { kind: 'directory', ...metadata }
    case 'hamt-shard':
      return { kind: 'hamt', ...metadata }
    case 'symlink':
      return { kind: 'symlink', target: new Uint8Array(node.unixfs.data ?? []), ...metadata }
    case 'metadata':
      throw malformed(cid, 'UnixFS metadata node')
  }
}

/** Mode and modification time a node records. */
export function metadataOf({ unixfs }: UnixfsNode): Metadata {
  return { mode: unixfs.mode === undefined ? undefined : unixfs.mode & 0o7777, mtime: unixfs.mtime }
}

/**
 * The CIDs a block links to, in order, repeated ones included: for walks over whole DAGs. dag-pb need not be
 * UnixFS. Links within dag-cbor, dag-json and other codecs are not followed: they have no path in the file
 * system, and their blocks are leaves here.
 * @throws CidfsError `MALFORMED_DAG` for dag-pb that does not parse.
 */
export function links(cid: CID, bytes: Uint8Array): CID[] {
  if (cid.code !== CODEC_DAG_PB) return []
  try {
    const node = decodePbNode(bytes)
    return Array.from({ length: node.linkCount }, (_, index) => node.cid(index))
  } catch (err) {
    throw malformed(cid, messageOf(err), err)
  }
}
