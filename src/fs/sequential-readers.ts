/**
 * Read-ahead state of the open files.
 *
 * Invariant: only a hint. A handle without state (from before a restart) gets a new one with its next read;
 * losing one costs speed and nothing else. Files that are held completely have none.
 */
import type { CID } from '../core/cid.js'
import { then } from '../core/maybe-promise.js'
import type { BlockService } from '../sources/block-service.js'
import { type PlannedBlock, ReadAhead } from '../sources/read-ahead.js'
import type { FileTable, Span } from '../unixfs/file-table.js'
import type { Fh } from './file-system.js'

export class SequentialReaders {
  readonly #blocks: BlockService
  readonly #readers = new Map<Fh, ReadAhead>()
  #nextFh = 1

  constructor(blocks: BlockService) {
    this.#blocks = blocks
  }

  open(): Fh {
    return this.#nextFh++
  }

  /** A read of the handle begins. Never waits, never fails. */
  advance(fh: Fh, table: FileTable, offset: number, sizeBytes: number): void {
    let reader = this.#readers.get(fh)
    if (reader === undefined) {
      reader = new ReadAhead(this.#blocks, table.sizeBytes, (start, end, signal) =>
        this.#plan(table, start, end, signal),
      )
      this.#readers.set(fh, reader)
    }
    reader.onRead(offset, sizeBytes)
  }

  release(fh: Fh): void {
    this.#readers.get(fh)?.close()
    this.#readers.delete(fh)
  }

  close(): void {
    for (const fh of this.#readers.keys()) this.release(fh)
  }

  /** Missing leaves of the range; the nodes above them are fetched on the way. */
  #plan(table: FileTable, start: number, end: number, signal: AbortSignal): ReturnType<typeof plannedBlocks> {
    const blocks = { get: (cid: CID) => this.#blocks.get(cid, { signal, priority: 'read-ahead' }) }
    return plannedBlocks(table.spans(start, end, blocks, { signal }), this.#blocks)
  }
}

function plannedBlocks(
  spans: ReturnType<FileTable['spans']>,
  blocks: BlockService,
): PlannedBlock[] | Promise<PlannedBlock[]> {
  return then(spans, (found: Span[]) => {
    const planned: PlannedBlock[] = []
    for (const span of found) {
      if (span.cid !== undefined && !blocks.has(span.cid))
        planned.push({ cid: span.cid, sizeBytes: span.length })
    }
    return planned
  })
}
