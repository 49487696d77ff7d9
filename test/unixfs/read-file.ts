/** Reads files through `FileTable`, as the file system above does. */
import type { CID } from '../../src/core/cid.js'
import { FileTable } from '../../src/unixfs/file-table.js'
import { getBlock } from '../../src/unixfs/node.js'
import type { MemoryBlocks } from './support.js'

/** Bytes `[start, end)` of a file; also checks that the spans are consecutive, clipped and of the right size. */
export async function readRange(
  table: FileTable,
  start: number,
  end: number,
  blocks: MemoryBlocks,
): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  let at = start
  for (const span of await table.spans(start, end, blocks)) {
    if (span.start !== at || span.length <= 0) throw new Error(`span at ${span.start}, expected ${at}`)
    at += span.length
    if (span.inline !== undefined) {
      if (span.inline.length !== span.length) throw new Error('inline span of another length')
      parts.push(span.inline)
      continue
    }
    const bytes = blocks.bytesOf(span.cid)
    table.checkLeaf(span, bytes.length)
    const part = bytes.subarray(span.dataOffset, span.dataOffset + span.length)
    if (part.length !== span.length) throw new Error('span beyond its block')
    parts.push(part)
  }
  if (at !== Math.max(start, Math.min(end, table.sizeBytes))) throw new Error(`spans end at ${at}`)
  return Buffer.concat(parts)
}

export async function readFile(cid: CID, blocks: MemoryBlocks): Promise<Uint8Array> {
  const table = FileTable.open(cid, await getBlock(blocks, cid, undefined))
  return readRange(table, 0, table.sizeBytes, blocks)
}
