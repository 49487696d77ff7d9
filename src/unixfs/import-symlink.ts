/** Builds symbolic links, as Kubo adds them: one dag-pb block, its Tsize the length of the block. */
import { CODEC_DAG_PB, cidOf } from '../core/cid.js'
import type { Built, PutBlock } from './built.js'
import { encodePbNode } from './pb-node.js'
import { encodeUnixfsData } from './unixfs-data.js'

/** The symbolic link to `target`, whose bytes are taken as they are. */
export function buildSymlink(target: Uint8Array, put: PutBlock): Built {
  const bytes = encodePbNode([], encodeUnixfsData({ type: 'symlink', data: target, blocksizes: [] }))
  const cid = cidOf(CODEC_DAG_PB, bytes)
  put(cid, bytes)
  return { cid, tsize: bytes.length }
}
