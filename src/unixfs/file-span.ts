/** What a range of a file is made of. */
import type { CID } from '../core/cid.js'

/** Bytes `[dataOffset, dataOffset + length)` of a block are bytes `[start, start + length)` of the file. */
export interface BlockSpan {
  cid: CID
  start: number
  length: number
  dataOffset: number
  /** Length the whole block must have (`checkLeaf`); undefined where the block itself was checked. */
  blockLength: number | undefined
  inline?: undefined
}

/** Content that is there already, from an identity CID: `inline` is the file's bytes from `start` on. */
export interface InlineSpan {
  cid?: undefined
  start: number
  length: number
  inline: Uint8Array
}

export type Span = BlockSpan | InlineSpan
