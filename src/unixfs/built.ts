/** What the builders take and return. */
import type { CID } from '../core/cid.js'

/** Takes each block that was made, children before parents; `bytes` are the taker's to keep. */
export type PutBlock = (cid: CID, bytes: Uint8Array) => void

export interface Built {
  cid: CID
  /** Bytes of all blocks of the DAG, repeated ones counted each time, as a link to it says. */
  tsize: number
}
