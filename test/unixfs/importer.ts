/** The stock importer with the profile's parameters: the oracle of the builders. */
import { type ImportCandidate, type ImporterOptions, importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'
import type { CID } from '../../src/core/cid.js'
import type { Built } from '../../src/unixfs/built.js'
import type { MemoryBlocks } from './support.js'

/** The last thing the importer made of `source`: the file, or the root of the tree. */
export async function imported(
  source: ImportCandidate[],
  blocks: MemoryBlocks,
  options: ImporterOptions = {},
): Promise<Built> {
  let last: Built | undefined
  for await (const { cid, size } of importer(source, blocks.store, {
    profile: 'unixfs-v1-2025',
    ...options,
  })) {
    last = { cid: cid as CID, tsize: Number(size) }
  }
  if (last === undefined) throw new Error('nothing imported')
  return last
}

/** One file, in chunks and nodes of these sizes. */
export function importedFile(
  content: Uint8Array,
  blocks: MemoryBlocks,
  { chunkBytes, maxLinks }: { chunkBytes: number; maxLinks: number },
): Promise<Built> {
  return imported([{ content }], blocks, {
    chunker: fixedSize({ chunkSize: chunkBytes }),
    layout: balanced({ maxChildrenPerNode: maxLinks }),
  })
}
