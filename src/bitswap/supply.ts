/** What the bitswap server asks of the store, which lives on another thread. */
import type { CID } from '../core/cid.js'

/** A block at rest: bytes `[offset, offset + length)` of a file. */
export interface HeldBlock {
  path: string
  offset: number
  length: number
}

export interface BlockSupply {
  /**
   * Where the blocks lie, in the same order; undefined: not held, or not for others (the setting `pinned`, `off`).
   * At most 128 CIDs at a time. An error counts as "not held".
   */
  locate(cids: readonly CID[]): Promise<(HeldBlock | undefined)[]>
}
