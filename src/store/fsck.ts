/**
 * Verifies the blocks at rest: reads each one that the index names and hashes it.
 *
 * Invariant: only what was read and found wrong is reported, and only that is removed. A removed block is as if
 * it had never been fetched; the bytes stay where they are until garbage collection.
 */
import type { Location } from '../core/blocks.js'
import { CID, CODEC_RAW, canVerify, Digest, verify } from '../core/cid.js'
import type { IndexEntry } from './block-index.js'
import { Pacer } from './pacer.js'
import type { Store } from './store.js'

const PAGE = 256

export interface BadBlock {
  /** The multihash as a raw CIDv1: the index does not know the codec. */
  cid: CID
  location: Location
  /** `missing`: its file is gone or too short. `mismatch`: the bytes are others. */
  reason: 'missing' | 'mismatch'
}

export interface FsckResult {
  /** Blocks looked at, and the bytes of those that could be read. */
  blocks: number
  bytes: number
  bad: BadBlock[]
}

export interface FsckOptions {
  /** Remove what is bad, so that it is fetched again. */
  repair?: boolean
  signal?: AbortSignal | undefined
  onProgress?: (progress: { blocks: number; bytes: number }) => void
}

/**
 * Checks every block of the store.
 * @throws CidfsError `INTERRUPTED`, `IO`.
 */
export async function fsck(store: Store, options: FsckOptions = {}): Promise<FsckResult> {
  const result: FsckResult = { blocks: 0, bytes: 0, bad: [] }
  const pacer = new Pacer(options.signal)
  let page = store.index.page(undefined, PAGE)
  for (; page.length > 0; page = store.index.page(page.at(-1)?.multihash, PAGE)) {
    for (const entry of page) {
      checkEntry(store, entry, options.repair === true, result)
      if (pacer.due) await pacer.pause()
    }
    options.onProgress?.({ blocks: result.blocks, bytes: result.bytes })
  }
  return result
}

function checkEntry(
  store: Store,
  { multihash, location }: IndexEntry,
  repair: boolean,
  result: FsckResult,
): void {
  const cid = CID.createV1(CODEC_RAW, Digest.decode(multihash))
  // moved or dropped since the page was read
  if (!isAt(location, store.locate(cid))) return
  const bytes = store.peek(location)
  result.blocks++
  result.bytes += bytes?.length ?? 0
  if (bytes !== undefined && (!canVerify(cid) || verify(cid, bytes))) return
  result.bad.push({ cid, location, reason: bytes === undefined ? 'missing' : 'mismatch' })
  if (repair) store.forgetMissing(cid, location)
}

function isAt(expected: Location, found: Location | undefined): boolean {
  return found?.container === expected.container && found.offset === expected.offset
}
