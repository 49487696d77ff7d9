/**
 * The open /dev/fuse connection: the addon's channel with types, and the jobs that its threads do for us.
 *
 * Invariant: the ranges of every job are released exactly once, however the job ends. While too many jobs wait for
 * the disk no further request is read: each waits in the kernel, where it costs nothing.
 */
import { addon, type ChannelHandle, checkResult, NativeError } from '../core/native.js'
import type { FileRanges } from '../fs/file-system.js'
import type { Reply } from './reply.js'
import type { Arguments } from './request.js'

/** Reads left to the threads at a time. The kernel's own limit for read-ahead is a fraction of it. */
const MAX_JOBS = 512
const INITIAL_RANGES = 64

export interface ChannelEvents {
  onReadable(): void
  /** A job of `replyRanges` failed with this negative errno; the kernel was told EIO. */
  onJobFailed(errno: number): void
  onClosed(): void
}

export class Channel {
  readonly fd: number
  readonly #handle: ChannelHandle
  readonly #reply: Reply
  readonly #jobs = new Map<number, FileRanges>()
  #ranges = new Float64Array(3 * INITIAL_RANGES)
  #nextJob = 1
  /** `paused`: until there are fewer jobs; `held`: until `start`. */
  #state: 'idle' | 'reading' | 'paused' | 'held' | 'closed' = 'idle'
  readonly #events: ChannelEvents

  /** Takes the descriptor over. Nothing is read before `start`. @throws NativeError. */
  constructor(fd: number, args: Arguments, reply: Reply, events: ChannelEvents) {
    this.fd = fd
    this.#events = events
    this.#reply = reply
    const handle = addon().channelOpen(
      fd,
      args.bytes,
      reply.bytes,
      () => events.onReadable(),
      (job, result) => this.#onDone(job, result),
      () => events.onClosed(),
    )
    if (typeof handle === 'number') throw new NativeError(handle, 'uv_poll_init')
    this.#handle = handle
  }

  start(): void {
    if (this.#state === 'closed') return
    this.#state = 'reading'
    checkResult(addon().channelPoll(this.#handle, true), 'uv_poll_start')
  }

  /** Reads nothing more, until `start`. */
  pause(): void {
    if (this.#state === 'closed') return
    this.#state = 'held'
    checkResult(addon().channelPoll(this.#handle, false), 'uv_poll_stop')
  }

  /** Jobs that the threads have not finished. */
  get jobs(): number {
    return this.#jobs.size
  }

  /** Bytes of the next request, 0 when there is none, a negative errno when the connection is gone. */
  read(): number {
    return this.#state === 'reading' ? addon().channelRead(this.#handle) : 0
  }

  /** Sends `length` bytes of the reply's buffer and the payload. A negative errno when the kernel does not want it. */
  reply(length: number, payload: Uint8Array | undefined): number {
    return addon().channelReply(this.#handle, length, payload)
  }

  /**
   * Sends the reply's header and the bytes of the ranges, which are released afterwards, now or later.
   * @returns below 0: not sent, and not released.
   */
  replyRanges(file: FileRanges): number {
    const count = this.#pack(file)
    const job = this.#nextJob++
    const result = addon().channelReplyRanges(this.#handle, this.#ranges, count, job)
    if (result === 1) file.release()
    if (result === 0) this.#enqueue(job, file)
    return result
  }

  /** Neighbouring ranges of one file become one; one read(2) costs more than the comparison. */
  #pack({ ranges }: FileRanges): number {
    if (this.#ranges.length < 3 * ranges.length) this.#ranges = new Float64Array(6 * ranges.length)
    const packed = this.#ranges
    let end = 0
    for (const { fd, offset, length } of ranges) {
      if (length === 0) continue
      if (end > 0 && packed[end - 3] === fd && packed[end - 2]! + packed[end - 1]! === offset) {
        packed[end - 1]! += length
        continue
      }
      packed[end++] = fd
      packed[end++] = offset
      packed[end++] = length
    }
    return end / 3
  }

  #enqueue(job: number, file: FileRanges): void {
    this.#jobs.set(job, file)
    if (this.#jobs.size < MAX_JOBS || this.#state !== 'reading') return
    this.#state = 'paused'
    checkResult(addon().channelPoll(this.#handle, false), 'uv_poll_stop')
  }

  #onDone(job: number, result: number): void {
    const file = this.#jobs.get(job)
    this.#jobs.delete(job)
    if (this.#state === 'paused' && this.#jobs.size < MAX_JOBS / 2) this.start()
    if (result < 0) this.#events.onJobFailed(result)
    file?.release()
  }

  /** Sends a complete message at once; only for what the kernel takes without waiting for anything. */
  send(message: Uint8Array): number {
    this.#reply.bytes.set(message)
    return this.reply(message.length, undefined)
  }

  /** Hands a complete message to the notifying thread. */
  notify(message: Uint8Array): void {
    addon().channelNotify(this.#handle, message)
  }

  /** An id by which replies can name the file `fd`, or a negative errno. It lasts until `closeBacking`. */
  openBacking(fd: number): number {
    return addon().channelBackingOpen(this.#handle, fd)
  }

  closeBacking(id: number): void {
    addon().channelBackingClose(this.#handle, id)
  }

  /**
   * Ends the connection; `onClosed` follows. `impatient`: also when a thread is blocked in the kernel, which then
   * keeps the descriptor until it is let go.
   */
  close(impatient: boolean): void {
    this.#state = 'closed'
    addon().channelClose(this.#handle, impatient)
  }
}
