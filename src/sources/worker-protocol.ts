/**
 * The messages between the main thread and the network worker.
 *
 * Invariant: `id` is chosen by the main thread and answered exactly once, unless it was cancelled first. The
 * bytes of a `block` are verified, and their ArrayBuffer is transferred, not copied.
 */
import type { ErrorCode } from '../core/errors.js'
import type { Found } from '../p2p/ipns-network.js'
import type { PutOutcome } from '../p2p/ipns-record.js'
import type { NodeStatus } from '../p2p/node-status.js'
import type { Provider } from '../p2p/routing.js'
import type { CallMessage } from './calls.js'
import type { SourcesConfig } from './config.js'
import type { Priority, SourceStatus } from './source.js'
import type { WhoHas } from './who-has.js'

/** What the worker is started with. */
export type WorkerConfig = Pick<SourcesConfig, 'gateways' | 'kubo' | 'node'>

/**
 * What the main thread asks besides blocks; CIDs travel as bytes. While the node is off, starting or restarting,
 * what needs it fails with `UNREACHABLE` and the reason; `nodeStatus` never fails.
 */
export interface WorkerMethods {
  nodeStatus(args: null): NodeStatus
  /** Those found until the call is abandoned, all routers are through, or there are `limit`. */
  findProviders(args: { cid: Uint8Array; limit: number; deadlineMs: number }): Provider[]
  /** Tells the routers that the block is here; returns how many peers took the record. */
  provide(args: { cid: Uint8Array }): number
  /** The newest valid record of the key with that multihash, of those that come until then (since the epoch). */
  findRecord(args: { name: Uint8Array; untilMs: number }): Found
  /** Gives a signed record to every place that takes records. */
  publishRecord(args: { name: Uint8Array; record: Uint8Array }): PutOutcome[]
  /** Who has a block, as far as it is known after `timeoutMs`. */
  whoHas(args: { cid: Uint8Array; timeoutMs: number }): WhoHas
}

/** Where the bytes of a block are: any thread may read them, and finds that they moved when there are too few. */
export interface BlockPlace {
  path: string
  offset: number
  length: number
}

/** What the network worker asks of the main thread, which owns the store. */
export interface MainMethods {
  /** For each CID, where its block is; null when it is not held, or not to be served. */
  locate(args: { cids: Uint8Array[] }): (BlockPlace | null)[]
}

export type ToWorker =
  | { op: 'fetch'; id: number; cid: Uint8Array; deadlineMs: number; priority: Priority }
  | { op: 'cancel'; id: number }
  /** Somebody waits for it now. */
  | { op: 'raise'; id: number }
  | { op: 'status'; id: number }
  /** Memory of a block that nobody reads any more. */
  | { op: 'reuse'; buffer: ArrayBuffer }
  /** Answered by the end of the thread. */
  | { op: 'close' }
  | CallMessage

export type FromWorker =
  | { op: 'block'; id: number; bytes: Uint8Array }
  | { op: 'failed'; id: number; code: ErrorCode; message: string }
  | { op: 'status'; id: number; sources: SourceStatus[] }
  | CallMessage
