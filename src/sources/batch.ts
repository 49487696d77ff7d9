/**
 * Many blocks at once: the children of a directory that is listed, a whole DAG that is prefetched.
 *
 * Invariant: at most `concurrency` of them are asked for at a time, and one that cannot be had stops none of
 * the others.
 */
import type { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import type { BlockService, ReadOptions } from './block-service.js'

export interface BatchOptions extends ReadOptions {
  /** Blocks on their way at the same time. */
  concurrency?: number
  /** After each block, whether it came or not. */
  onProgress?(done: number, total: number): void
}

/** A block that could not be had. */
export interface Missed {
  cid: CID
  error: unknown
}

/**
 * Sees to it that the blocks are held here; returns those that could not be had.
 * Of `read-ahead` priority unless the options say otherwise.
 * @throws CidfsError `INTERRUPTED` when the signal aborts; what was on its way is cancelled.
 */
export async function prefetch(
  blocks: Pick<BlockService, 'ensure'>,
  cids: readonly CID[],
  options: BatchOptions = {},
): Promise<Missed[]> {
  const { concurrency = 128, onProgress, ...read } = options
  const missed: Missed[] = []
  let next = 0
  let done = 0
  const take = async (): Promise<void> => {
    while (next < cids.length && !read.signal?.aborted) {
      const cid = cids[next++] as CID
      await ensure(blocks, cid, read).catch((error: unknown) => missed.push({ cid, error }))
      onProgress?.(++done, cids.length)
    }
  }
  await Promise.all(Array.from({ length: Math.min(concurrency, cids.length) }, take))
  if (read.signal?.aborted) throw new CidfsError('INTERRUPTED', 'interrupted')
  return missed
}

async function ensure(blocks: Pick<BlockService, 'ensure'>, cid: CID, read: ReadOptions): Promise<void> {
  await blocks.ensure(cid, { priority: 'read-ahead', ...read })
}
