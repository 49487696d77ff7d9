/**
 * The messages between the main thread and the network worker.
 *
 * Invariant: `id` is chosen by the main thread and answered exactly once, unless it was cancelled first. The
 * bytes of a `block` are verified, and their ArrayBuffer is transferred, not copied.
 */
import type { ErrorCode } from '../core/errors.js'
import type { SourcesConfig } from './config.js'
import type { Priority, SourceStatus } from './source.js'

/** What the worker is started with. */
export type WorkerConfig = Pick<SourcesConfig, 'gateways' | 'kubo'>

export type ToWorker =
  | { op: 'fetch'; id: number; cid: Uint8Array; deadlineMs: number; priority: Priority }
  | { op: 'cancel'; id: number }
  /** Somebody waits for it now. */
  | { op: 'raise'; id: number }
  | { op: 'status'; id: number }
  /** Answered by the end of the thread. */
  | { op: 'close' }

export type FromWorker =
  | { op: 'block'; id: number; bytes: Uint8Array }
  | { op: 'failed'; id: number; code: ErrorCode; message: string }
  | { op: 'status'; id: number; sources: SourceStatus[] }
