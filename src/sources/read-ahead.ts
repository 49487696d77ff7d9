/**
 * Guesses what an open file is read next, and has it fetched before it is asked for.
 *
 * Invariant: no more than the window is on its way or unread ahead of the reader, and nothing is guessed before
 * two reads in a row have been next to each other. Guesses never fail anything: an error ends them until the
 * reader has come past it or has jumped. A reader that skips into what was guessed goes on from there: pages that
 * other readers of the file brought are not asked for, and what is on its way is not fetched twice.
 * Why a window that grows: one block takes one round trip, and a program that reads to the end is better served
 * by tens of MiB on their way, one that looks at a header by none.
 */
import type { CID } from '../core/cid.js'
import { logger } from '../core/log.js'
import type { MaybePromise } from '../core/maybe-promise.js'
import type { BlockService } from './block-service.js'

const log = logger('sources:read-ahead')

const MIN_WINDOW_BYTES = 2 * 1024 * 1024
const MAX_WINDOW_BYTES = 32 * 1024 * 1024
/** The kernel sends the pieces of one read in any order: this far behind or ahead is still in a row. */
const IN_ROW_BYTES = 1024 * 1024

/** A leaf block of a file. */
export interface PlannedBlock {
  cid: CID
  /** Bytes of the file it holds. */
  sizeBytes: number
}

/**
 * The blocks that hold bytes `[start, end)` of the file, in order. May fetch the parents that say so, and may
 * return blocks that begin before `start` or end behind `end`.
 */
export type Plan = (start: number, end: number, signal: AbortSignal) => MaybePromise<readonly PlannedBlock[]>

export interface ReadAheadOptions {
  minWindowBytes?: number
  maxWindowBytes?: number
}

/** One per file handle. */
export class ReadAhead {
  readonly #blocks: Pick<BlockService, 'ensure'>
  readonly #fileSizeBytes: number
  readonly #plan: Plan
  readonly #minWindow: number
  readonly #maxWindow: number
  #window: number
  #readsInRow = 0
  /** Where the reader is: the end of what it has read in a row. */
  #position = 0
  /** Everything before this has been asked for. */
  #aheadTo = 0
  /** Where the window grows next. */
  #growAt = 0
  #abort = new AbortController()
  #planning = false
  #stoppedUntil = 0
  #closed = false

  constructor(
    blocks: Pick<BlockService, 'ensure'>,
    fileSizeBytes: number,
    plan: Plan,
    options: ReadAheadOptions = {},
  ) {
    this.#blocks = blocks
    this.#fileSizeBytes = fileSizeBytes
    this.#plan = plan
    this.#minWindow = options.minWindowBytes ?? MIN_WINDOW_BYTES
    this.#maxWindow = options.maxWindowBytes ?? MAX_WINDOW_BYTES
    this.#window = this.#minWindow
  }

  /** To be told of every read of the handle, before or while it is answered. Never waits, never fails. */
  onRead(offset: number, sizeBytes: number): void {
    if (this.#closed) return
    if (this.#isInRow(offset)) this.#advance(offset + sizeBytes)
    else this.#jump(offset + sizeBytes)
    if (this.#readsInRow >= 2) void this.#topUp()
  }

  /** The handle is gone: what is on its way is cancelled, unless somebody else reads it. */
  close(): void {
    this.#closed = true
    this.#abort.abort()
  }

  /** Bytes kept on their way while reads are in a row. */
  get windowBytes(): number {
    return this.#window
  }

  #isInRow(offset: number): boolean {
    if (this.#readsInRow === 0) return false
    const furthest = Math.max(this.#position, this.#aheadTo)
    return offset >= this.#position - IN_ROW_BYTES && offset <= furthest + IN_ROW_BYTES
  }

  #advance(end: number): void {
    this.#readsInRow++
    this.#position = Math.max(this.#position, end)
    if (this.#position < this.#growAt) return
    this.#window = Math.min(this.#maxWindow, this.#window * 2)
    this.#growAt = this.#position + this.#window
  }

  #jump(end: number): void {
    this.#abort.abort()
    this.#abort = new AbortController()
    this.#window = Math.max(this.#minWindow, this.#window / 4)
    this.#readsInRow = 1
    this.#position = this.#aheadTo = end
    this.#growAt = end + this.#window
    this.#stoppedUntil = 0
  }

  /** Asks for what lies between what was asked for and the end of the window. */
  async #topUp(): Promise<void> {
    const start = Math.max(this.#aheadTo, this.#position)
    const end = Math.min(this.#fileSizeBytes, this.#position + this.#window)
    // Small steps would plan for every read; a quarter of the window is enough at a time.
    const enough = end - start >= this.#window / 4 || end === this.#fileSizeBytes
    if (this.#planning || start >= end || !enough || this.#position < this.#stoppedUntil) return
    const { signal } = this.#abort
    this.#planning = true
    this.#aheadTo = end
    try {
      for (const { cid } of await this.#plan(start, end, signal)) {
        if (signal.aborted) break
        this.#ensure(cid, end, signal)
      }
    } catch (err) {
      this.#stop(err, end, signal)
    } finally {
      this.#planning = false
    }
  }

  #ensure(cid: CID, end: number, signal: AbortSignal): void {
    try {
      const ensured = this.#blocks.ensure(cid, { priority: 'read-ahead', signal })
      if (ensured instanceof Promise) ensured.catch((err: unknown) => this.#stop(err, end, signal))
    } catch (err) {
      this.#stop(err, end, signal)
    }
  }

  #stop(err: unknown, end: number, signal: AbortSignal): void {
    if (signal.aborted) return
    log('stopped before %d: %s', end, err)
    this.#stoppedUntil = end
  }
}
