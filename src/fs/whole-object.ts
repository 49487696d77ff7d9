/**
 * Finds the object of the store that holds exactly the bytes of an immutable file.
 *
 * Invariant: an object is only named when every leaf of the file lies in it, each at its own offset, and nothing
 * else does. The first leaf and the size are not enough: another file can share both.
 * Why: the kernel can then read that file in our place, from the pages that the staged file has.
 */
import * as fs from 'node:fs'
import { promisify } from 'node:util'
import type { BlockReader } from '../core/blocks.js'
import type { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { isPromise, type MaybePromise } from '../core/maybe-promise.js'
import type { Store } from '../store/store.js'
import type { FileTable, Span } from '../unixfs/file-table.js'
import type { Passthrough } from './file-system.js'

/** Looked through at a time: some hundreds of leaves, a millisecond. */
const SLICE_BYTES = 256 * 1024 * 1024

const nextTurn = promisify(setImmediate)

interface PlacedSpan {
  /** Container of the leaf; undefined when it is not held. */
  object: number | undefined
  offset: number
  start: number
}

export class WholeObjects {
  readonly #store: Store
  /** Nodes that are held, and no others. */
  readonly #local: BlockReader
  /** The kernel will never take one: nobody needs to look. */
  #unsupported = false

  constructor(store: Store) {
    this.#store = store
    this.#local = {
      get(cid) {
        const block = store.get(cid)
        if (block === undefined) throw new CidfsError('NOT_FOUND', `${cid} is not held`)
        return block
      },
    }
  }

  /** The object that is the block's only content. */
  ofBlock(cid: CID): number | undefined {
    if (this.#unsupported) return undefined
    const location = this.#store.locate(cid)
    if (location?.offset !== 0) return undefined
    return this.#isWhole(location.container, location.length) ? location.container : undefined
  }

  /** The object that is the whole file. Nothing is fetched for it. */
  ofFile(table: FileTable): MaybePromise<number | undefined> {
    if (this.#unsupported) return undefined
    const object = this.#spans(table, 0, 1)?.[0]?.object
    if (object === undefined || !this.#isWhole(object, table.sizeBytes)) return undefined
    return table.sizeBytes <= SLICE_BYTES
      ? this.#inPlace(table, object, 0)
      : this.#inPlaceThroughout(table, object)
  }

  async #inPlaceThroughout(table: FileTable, object: number): Promise<number | undefined> {
    for (let start = 0; start < table.sizeBytes; start += SLICE_BYTES) {
      if (this.#inPlace(table, object, start) === undefined) return undefined
      await nextTurn()
    }
    return object
  }

  /** `object`, if it holds each leaf of the slice where the file has it. */
  #inPlace(table: FileTable, object: number, start: number): number | undefined {
    const placed = this.#spans(table, start, start + SLICE_BYTES)
    return placed?.every(span => span.object === object && span.offset === span.start) ? object : undefined
  }

  /** Where the bytes of a range lie; undefined when some of its nodes are not held. */
  #spans(table: FileTable, start: number, end: number): PlacedSpan[] | undefined {
    try {
      const spans = table.spans(start, end, this.#local)
      return isPromise(spans) ? undefined : spans.map(span => this.#placed(span))
    } catch {
      return undefined
    }
  }

  #placed({ cid, start, ...span }: Span): PlacedSpan {
    const location = cid && this.#store.locate(cid)
    const dataOffset = 'dataOffset' in span ? span.dataOffset : 0
    return { object: location?.container, offset: (location?.offset ?? 0) + dataOffset, start }
  }

  #isWhole(container: number, sizeBytes: number): boolean {
    const known = this.#store.containers.get(container)
    return known?.kind === 'object' && known.sealed && known.length === sizeBytes
  }

  /** Offers the object, unless it has gone or is not what it was. */
  passthrough(object: number): Passthrough {
    return {
      offer: attempt => {
        const expected = this.#store.containers.get(object)?.length
        if (expected === undefined) return
        const fd = this.#store.acquire(object)
        try {
          if (fs.fstatSync(fd).size === expected) this.#unsupported = attempt(fd) === 'unsupported'
        } finally {
          this.#store.release(object)
        }
      },
    }
  }
}
