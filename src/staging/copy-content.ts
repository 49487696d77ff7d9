/**
 * Makes the working copy of a published file.
 *
 * Invariant: the copy is complete when the promise resolves; the source is only read. Where the content lies
 * in one container of the store, the file system of the disk copies (sharing extents where it can), otherwise
 * the kernel copies range by range; bytes only pass through here where they are inside a node of the DAG.
 */
import * as fs from 'node:fs'
import { promisify } from 'node:util'
import type { BlockReader } from '../core/blocks.js'
import type { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { native } from '../core/native.js'
import type { Store } from '../store/store.js'
import { FileTable, type Span } from '../unixfs/file-table.js'

/** Writes the content under `cid` into the new file `path`. */
export type CopyContent = (cid: CID, path: string) => Promise<void>

/** One copy_file_range call: short enough for the thread that answers the kernel. */
const SLICE_BYTES = 4 * 1024 * 1024

const nextTurn = promisify(setImmediate)

/** A `CopyContent` over the store; blocks that are not held are fetched by `blocks`. */
export function contentCopier(store: Store, blocks: BlockReader): CopyContent {
  return async (cid, path) => {
    const table = FileTable.open(cid, await blocks.get(cid))
    const fd = fs.openSync(path, 'wx', 0o600)
    try {
      for (let start = 0; start < table.sizeBytes; start += SLICE_BYTES) {
        const end = Math.min(table.sizeBytes, start + SLICE_BYTES)
        await store.space.take(end - start)
        for (const span of await table.spans(start, end, blocks)) await copySpan(store, blocks, span, fd)
        await nextTurn()
      }
    } finally {
      fs.closeSync(fd)
    }
  }
}

async function copySpan(store: Store, blocks: BlockReader, span: Span, fd: number): Promise<void> {
  if (span.cid === undefined) return writeFully(fd, span.inline, span.start)
  const location = store.locate(span.cid)
  if (location === undefined) {
    const block = await blocks.get(span.cid)
    return writeFully(fd, block.subarray(span.dataOffset, span.dataOffset + span.length), span.start)
  }
  const source = store.acquire(location.container)
  try {
    copyFully(source, location.offset + span.dataOffset, fd, span.start, span.length)
  } finally {
    store.release(location.container)
  }
}

function copyFully(inFd: number, inOffset: number, outFd: number, outOffset: number, length: number): void {
  for (let done = 0; done < length; ) {
    const count = native.copyFileRange(inFd, inOffset + done, outFd, outOffset + done, length - done)
    if (count === 0)
      throw new CidfsError('STORE_DAMAGED', 'a container of the store is shorter than its index says')
    done += count
  }
}

function writeFully(fd: number, bytes: Uint8Array, offset: number): void {
  for (let done = 0; done < bytes.length; ) {
    done += fs.writeSync(fd, bytes, done, bytes.length - done, offset + done)
  }
}
