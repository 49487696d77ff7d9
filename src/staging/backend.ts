/**
 * Where published content is handed to besides the local store.
 *
 * Invariant: `publish` resolves only when the back-end holds and pins the whole DAG; both calls may be repeated
 * after a failure or a crash without harm.
 */
import type { CID } from '../core/cid.js'

export interface Backend {
  readonly name: string
  /** Copies the DAG under `cid` there and pins it. Throws CidfsError `BACKEND`. */
  publish(cid: CID, label: string, signal: AbortSignal): Promise<void>
  /** Gives the pin back; content that is not pinned there is no error. */
  unpublish(cid: CID, signal: AbortSignal): Promise<void>
}
