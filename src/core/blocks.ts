/** The shapes in which blocks travel between layers. */
import type { CID } from './cid.js'
import type { MaybePromise } from './maybe-promise.js'

/** Where a block lies at rest: bytes `[offset, offset + length)` of a container of the store. */
export interface Location {
  container: number
  offset: number
  length: number
}

export interface GetOptions {
  /** Ends the wait with `INTERRUPTED`; the fetch itself ends when nobody else waits for it. */
  signal?: AbortSignal | undefined
  /** Milliseconds until `TIMEOUT`; the configured read deadline when absent. */
  deadlineMs?: number | undefined
}

/** Whole, verified blocks; local ones are returned without a promise. */
export interface BlockReader {
  /** @throws CidfsError `UNREACHABLE`, `TIMEOUT`, `BAD_BLOCK`, `INTERRUPTED`, `UNSUPPORTED_HASH`. */
  get(cid: CID, options?: GetOptions): MaybePromise<Uint8Array>
}

/** Accepts blocks whose hash the caller has verified or just computed. */
export interface BlockWriter {
  put(cid: CID, bytes: Uint8Array): void
}

/** A range of an open file, for replies that never pass through JavaScript. */
export interface FileRange {
  fd: number
  offset: number
  length: number
}
