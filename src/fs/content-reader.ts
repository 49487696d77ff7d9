/**
 * Answers READ of immutable files: which ranges of which containers hold the bytes asked for.
 *
 * Invariant: what is held locally is answered without a promise and without its bytes passing through here;
 * only blocks that overlap the range are asked for, all at once; a missing one fails this read and no other.
 * Why ranges: the transport copies from the page cache of the container to the kernel by itself.
 */
import type { FileRange, GetOptions } from '../core/blocks.js'
import { type CID, keyOf } from '../core/cid.js'
import { isPromise, type MaybePromise, then } from '../core/maybe-promise.js'
import type { BlockService } from '../sources/block-service.js'
import type { Store } from '../store/store.js'
import { checkLeaf, type FileTable, type Span } from '../unixfs/file-table.js'
import type { FileRanges, ReadResult } from './file-system.js'

export class ContentReader {
  readonly #store: Store
  readonly #blocks: Pick<BlockService, 'get' | 'obtain'>

  constructor(store: Store, blocks: Pick<BlockService, 'get' | 'obtain'>) {
    this.#store = store
    this.#blocks = blocks
  }

  /** Bytes `[offset, offset + length)` of a UnixFS file, cut at its end. */
  readFile(table: FileTable, offset: number, length: number, options: GetOptions): MaybePromise<ReadResult> {
    const end = Math.min(table.sizeBytes, offset + length)
    if (offset >= end) return EMPTY
    return then(table.spans(offset, end, this.#blocks, options), spans => this.#readSpans(spans, options))
  }

  /** Bytes of a block that is a file by itself. */
  readBlock(cid: CID, offset: number, length: number, options: GetOptions): MaybePromise<ReadResult> {
    const location = this.#store.locate(cid)
    if (location === undefined) {
      return then(this.#blocks.get(cid, options), bytes => bytes.subarray(offset, offset + length))
    }
    const available = Math.max(0, Math.min(length, location.length - offset))
    if (available === 0) return EMPTY
    const collector = new RangeCollector(this.#store)
    collector.add(location.container, location.offset + offset, available)
    return collector.finish()
  }

  #readSpans(spans: Span[], options: GetOptions): MaybePromise<ReadResult> {
    const missing = spans.filter(span => span.cid !== undefined && !this.#store.has(span.cid))
    if (missing.length === 0) return this.#collect(spans, NOTHING_FETCHED)
    return this.#fetch(missing, options).then(fetched => this.#collect(spans, fetched))
  }

  async #fetch(spans: Span[], options: GetOptions): Promise<Map<string, Uint8Array>> {
    const fetched = new Map<string, Uint8Array>()
    const pending = spans.map(async span => {
      if (span.cid === undefined) return
      const bytes = await this.#blocks.obtain(span.cid, options)
      if (bytes !== undefined) fetched.set(keyOf(span.cid), bytes)
    })
    await Promise.all(pending)
    return fetched
  }

  /** Ranges where everything lies in the store, else bytes (inline data, a store that took nothing). */
  #collect(spans: Span[], fetched: Map<string, Uint8Array>): MaybePromise<ReadResult> {
    const collector = new RangeCollector(this.#store)
    try {
      for (const span of spans) {
        const location = span.cid === undefined ? undefined : this.#store.locate(span.cid)
        if (location === undefined || span.cid === undefined) {
          collector.release()
          return this.#gather(spans, fetched)
        }
        checkLeaf(span, location.length)
        collector.add(location.container, location.offset + span.dataOffset, span.length)
      }
      return collector.finish()
    } catch (err) {
      collector.release()
      throw err
    }
  }

  #gather(spans: Span[], fetched: Map<string, Uint8Array>): MaybePromise<Uint8Array> {
    const parts: Uint8Array[] = []
    for (const span of spans) {
      if (span.cid === undefined) {
        parts.push(span.inline)
        continue
      }
      const block = fetched.get(keyOf(span.cid)) ?? this.#blocks.get(span.cid)
      if (isPromise(block))
        return block.then(bytes => this.#gather(spans, fetched.set(keyOf(span.cid), bytes)))
      checkLeaf(span, block.length)
      parts.push(block.subarray(span.dataOffset, span.dataOffset + span.length))
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts)
  }
}

const EMPTY = new Uint8Array(0)
const NOTHING_FETCHED: Map<string, Uint8Array> = new Map()

/** Ranges of containers, each held open until released. */
class RangeCollector implements FileRanges {
  readonly ranges: FileRange[] = []
  readonly #store: Store
  readonly #containers: number[] = []

  constructor(store: Store) {
    this.#store = store
  }

  add(container: number, offset: number, length: number): void {
    const fd = this.#store.acquire(container)
    this.#containers.push(container)
    const last = this.ranges.at(-1)
    if (last?.fd === fd && last.offset + last.length === offset) last.length += length
    else this.ranges.push({ fd, offset, length })
  }

  finish(): FileRanges {
    return this
  }

  release(): void {
    for (const container of this.#containers.splice(0)) this.#store.release(container)
  }
}
