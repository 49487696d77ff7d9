/**
 * Keys of the databases that name DAGs rather than blocks: codec and multihash.
 *
 * Why the codec: it decides what a DAG holds, the same bytes are one block as raw and a tree as dag-pb. Why not
 * the version: a CIDv0 and its CIDv1 name the same DAG.
 */
import type { CID } from '../core/cid.js'

/** The bytes of the CID as version 1. */
export function dagKey(cid: CID): Uint8Array {
  return cid.toV1().bytes
}
