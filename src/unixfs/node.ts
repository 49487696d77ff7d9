/**
 * A dag-pb block with UnixFS in it, and the getting of blocks that this layer shares.
 *
 * Invariant: every error about the content of a block is `MALFORMED_DAG` and names the CID of that block.
 */
import type { BlockReader, GetOptions } from '../core/blocks.js'
import { type CID, CODEC_DAG_PB, isIdentity } from '../core/cid.js'
import { CidfsError, messageOf } from '../core/errors.js'
import { MAX_IDENTITY_BYTES } from '../core/limits.js'
import type { MaybePromise } from '../core/maybe-promise.js'
import { decodePbNode, type PbNode } from './pb-node.js'
import { decodeUnixfsData, type UnixfsData } from './unixfs-data.js'

export interface UnixfsNode {
  pb: PbNode
  unixfs: UnixfsData
}

export function malformed(cid: CID, reason: string, cause?: unknown): CidfsError {
  const text = cid.toString()
  return new CidfsError('MALFORMED_DAG', `${text}: ${reason}`, { cid: text, cause })
}

/**
 * The UnixFS node in a dag-pb block.
 * @throws CidfsError `MALFORMED_DAG`.
 */
export function decodeNode(cid: CID, bytes: Uint8Array): UnixfsNode {
  if (cid.code !== CODEC_DAG_PB) throw malformed(cid, 'not dag-pb')
  try {
    const pb = decodePbNode(bytes)
    if (pb.data === undefined) throw new CidfsError('MALFORMED_DAG', 'dag-pb without UnixFS data')
    return { pb, unixfs: decodeUnixfsData(pb.data) }
  } catch (err) {
    throw malformed(cid, messageOf(err), err)
  }
}

/**
 * The bytes of a block. Those of an identity CID are in the CID: nobody is asked.
 * @throws CidfsError what `BlockReader.get` throws; `MALFORMED_DAG` for an oversized identity CID.
 */
export function getBlock(
  blocks: BlockReader,
  cid: CID,
  options: GetOptions | undefined,
): MaybePromise<Uint8Array> {
  return isIdentity(cid) ? identityBytes(cid) : blocks.get(cid, options)
}

/** @throws CidfsError `MALFORMED_DAG` when the digest exceeds the limit. */
export function identityBytes(cid: CID): Uint8Array {
  const { digest } = cid.multihash
  if (digest.length > MAX_IDENTITY_BYTES) throw malformed(cid, `identity digest of ${digest.length} bytes`)
  return digest
}
