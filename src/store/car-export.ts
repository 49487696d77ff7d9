/**
 * Writes a DAG as a CARv1.
 *
 * Invariant: depth first, in the order of links, each block once; identity CIDs are followed and left out.
 * Nothing is read before the consumer asks for it, and at most one block and one small buffer are held.
 *
 * Specification: https://ipld.io/specs/transport/car/carv1/
 */
import type { BlockReader } from '../core/blocks.js'
import { type CID, CODEC_RAW, isIdentity, keyOf } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { encodeHeader, encodeSectionHead } from './car-format.js'
import type { Links } from './walk.js'

/** Small blocks leave together in chunks of about this size. */
const CHUNK_BYTES = 64 * 1024

export interface ExportOptions {
  signal?: AbortSignal | undefined
  onProgress?: ((progress: { blocks: number; bytes: number }) => void) | undefined
}

/**
 * The chunks of a CARv1 with this root. A stream that ends with an error is no whole CAR.
 * @throws CidfsError `INTERRUPTED`, and what `read` and `links` throw, for example `UNREACHABLE`.
 */
export async function* exportCar(
  root: CID,
  read: BlockReader,
  links: Links,
  options: ExportOptions = {},
): AsyncGenerator<Uint8Array> {
  const chunks = new Chunks()
  chunks.push(encodeHeader([root]))
  let blocks = 0
  let bytes = 0
  for await (const block of blocksOf(root, read, links, options.signal)) {
    chunks.push(encodeSectionHead(block.cid, block.bytes.length))
    chunks.push(block.bytes)
    blocks++
    bytes += block.bytes.length
    if (chunks.length >= CHUNK_BYTES) yield* chunks.drain()
    options.onProgress?.({ blocks, bytes })
  }
  yield* chunks.drain()
}

async function* blocksOf(
  root: CID,
  read: BlockReader,
  links: Links,
  signal: AbortSignal | undefined,
): AsyncGenerator<{ cid: CID; bytes: Uint8Array }> {
  const written = new Set<string>()
  const followed = new Set<string>()
  const stack: CID[] = [root]
  for (let cid = stack.pop(); cid !== undefined; cid = stack.pop()) {
    if (signal?.aborted) throw new CidfsError('INTERRUPTED', 'interrupted')
    const key = keyOf(cid)
    // a block may be linked as raw first and as a node later: written once, followed all the same
    const isRaw = cid.code === CODEC_RAW
    if (isRaw ? written.has(key) : !addTo(followed, `${cid.code}:${key}`)) continue
    const bytes = isIdentity(cid) ? cid.multihash.digest : await read.get(cid, { signal })
    if (!isIdentity(cid) && addTo(written, key)) yield { cid, bytes }
    if (isRaw) continue
    const children = links(cid, bytes)
    for (let i = children.length - 1; i >= 0; i--) stack.push(children[i] as CID)
  }
}

/** False when it was there already. */
function addTo(set: Set<string>, key: string): boolean {
  const size = set.size
  return set.add(key).size > size
}

/** Gathers small pieces; large ones pass uncopied. */
class Chunks {
  #pieces: Uint8Array[] = []
  length = 0

  push(piece: Uint8Array): void {
    this.#pieces.push(piece)
    this.length += piece.length
  }

  *drain(): Generator<Uint8Array> {
    let small: Uint8Array[] = []
    for (const piece of this.#pieces) {
      if (piece.length < CHUNK_BYTES) {
        small.push(piece)
        continue
      }
      if (small.length > 0) yield Buffer.concat(small)
      small = []
      yield piece
    }
    if (small.length > 0) yield Buffer.concat(small)
    this.#pieces = []
    this.length = 0
  }
}
