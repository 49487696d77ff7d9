/**
 * What the engine asks of a place that may have blocks.
 *
 * Invariant: a source is never trusted. What `get` returns is unverified; whoever calls it hashes it, unless the
 * source has had to (`verifies`: our own code, which knows a block by its hash alone). A source
 * keeps no opinion of its own health either: it reports what happened, `lane.ts` draws the conclusions.
 * Why: gateways, Kubo and peers fail in the same few ways, and are raced against each other by one engine.
 */
import type { CID } from '../core/cid.js'

export type SourceKind = 'gateway' | 'kubo' | 'peer'

export interface AskOptions {
  /** Ends the request and frees its connection. */
  signal: AbortSignal
  /** `demand` when absent; for sources that have a queue of their own. */
  priority?: Priority
}

export interface Source {
  /** Shown in `status` and in error messages; unique among the sources of one engine. */
  readonly name: string
  readonly kind: SourceKind
  /** Requests that may run at the same time. */
  readonly maxInFlight: number
  /** Milliseconds a block is expected to take, until the source has been measured. */
  readonly costMs: number
  /** What `get` returns has been hashed already; it is not done twice. */
  readonly verifies?: true
  /**
   * The bytes that are claimed to be the block. They fill an ArrayBuffer of their own, so that it can be
   * transferred. Never more than `MAX_BLOCK_BYTES`.
   * @throws SourceError
   */
  get(cid: CID, options: AskOptions): Promise<Uint8Array>
  /**
   * Whether the source answers at all; asks for no block.
   * @throws SourceError
   */
  probe(options: AskOptions): Promise<void>
  /**
   * Whether it has the block, without sending it. Absent where only `get` can tell.
   * @throws SourceError when it does not say; the signal's reason when it aborts.
   */
  has?(cid: CID, options: AskOptions): Promise<boolean>
  /** Somebody waits now for a block that `get` was asked for as read-ahead. */
  raise?(cid: CID): void
  /** Ends every connection. Requests still running fail. */
  close(): Promise<void>
}

/**
 * How a source failed:
 * - `absent`: it answered, and does not have the block;
 * - `wrong`: it sent bytes that are not the block;
 * - `unreachable`: no connection, or none in time;
 * - `failed`: everything else: an error status, a broken body, silence in the middle of an answer.
 */
export type FailureKind = 'absent' | 'wrong' | 'unreachable' | 'failed'

/** The one error a source throws. The message is a clause, such as `connection refused`. */
export class SourceError extends Error {
  readonly kind: FailureKind

  constructor(kind: FailureKind, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'SourceError'
    this.kind = kind
  }

  /** `err` itself, or what it means as a failure of a source. */
  static from(err: unknown): SourceError {
    if (err instanceof SourceError) return err
    return new SourceError('failed', err instanceof Error ? err.message : String(err), { cause: err })
  }
}

export type SourceState = 'ok' | 'backing-off' | 'failed'

/** One line of `status`. */
export interface SourceStatus {
  name: string
  kind: SourceKind
  /** `backing-off`: left alone for a while after failures; `failed`: so, and it has never worked. */
  state: SourceState
  inFlight: number
  blocks: number
  bytes: number
  /** Over the last few seconds. */
  rateBytesPerSecond: number
  /** Undefined until a block has come. */
  latencyMsP50: number | undefined
  errors: number
  lastError: string | undefined
  /** Milliseconds since the epoch. */
  lastErrorAt: number | undefined
}

/** A read that somebody waits for, or a guess about what will be read next. */
export type Priority = 'demand' | 'read-ahead'
