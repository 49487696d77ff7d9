/**
 * From request to reply.
 *
 * Invariant: every request that expects a reply gets exactly one, whatever its handler does; what the kernel did
 * not take is undone. Nothing a handler throws gets further than here.
 *
 * A request that is answered at once is answered in the turn that read it. The others are kept by their `unique`
 * until their promise settles, so that FUSE_INTERRUPT can find them.
 */
import { constants } from 'node:os'
import { CidfsError } from '../core/errors.js'
import { logger } from '../core/log.js'
import { isPromise } from '../core/maybe-promise.js'
import { checkResult } from '../core/native.js'
import { errnoOf } from '../fs/errno.js'
import type { FileRanges } from '../fs/file-system.js'
import { IN_HEADER_BYTES, OUT_HEADER_BYTES } from './abi.js'
import type { Channel } from './channel.js'
import type { Host, Operation } from './operation.js'
import { OPERATIONS, operationName } from './operations.js'
import type { Reply } from './reply.js'
import { type Arguments, Request, uniqueKey } from './request.js'
import type { Statistics } from './statistics.js'

const trace = logger('fuse:trace')
const { EINVAL, ENOSYS } = constants.errno

/** What a dispatcher works with; `host` is what handlers see of the session. */
export interface Surroundings {
  host: Host
  channel: Channel
  args: Arguments
  reply: Reply
  statistics: Statistics
  /** Told what a handler threw that nobody foresaw. */
  onUnforeseen(err: unknown, operation: string): void
  /** An error was the answer to this opcode. */
  onFailed(opcode: number, err: unknown): void
}

export class Dispatcher {
  readonly #with: Surroundings
  readonly #pending = new Map<bigint, Request>()
  /** The one whose handler runs, or was the last to run. */
  #latest: Request | undefined

  constructor(surroundings: Surroundings) {
    this.#with = surroundings
  }

  /** Requests whose handlers have not settled. */
  get pending(): number {
    return this.#pending.size
  }

  /** Requests are read in order: what is not pending was answered already, and the kernel drops its interrupt. */
  interrupt(uniqueLow: number, uniqueHigh: number): void {
    this.#pending.get(uniqueKey(uniqueLow, uniqueHigh))?.interrupt()
  }

  /** A line for each request that has no answer yet. */
  describe(): string {
    const all = new Set([...this.#pending.values(), ...(this.#latest === undefined ? [] : [this.#latest])])
    const lines = [...all].map(request => {
      const { opcode, ino, pid } = request
      const isLatest = request === this.#latest ? ', read last' : ''
      return `  ${operationName(opcode)} inode ${ino}, for process ${pid}${isLatest}\n`
    })
    return lines.join('')
  }

  interruptAll(): void {
    for (const request of this.#pending.values()) request.interrupt()
  }

  /**
   * Handles the request of `length` bytes that was just read.
   * @returns false when promises want their turn before the next request is read.
   */
  dispatch(length: number): boolean {
    const { args, statistics } = this.#with
    const request = new Request(args.words)
    this.#latest = request
    statistics.request(request.opcode)
    if (trace.enabled) trace('%s ino=%d pid=%d', operationName(request.opcode), request.ino, request.pid)
    const operation = OPERATIONS[request.opcode]
    if (operation === undefined) return this.#sendError(request, ENOSYS)
    args.length = length - IN_HEADER_BYTES
    if (args.words[0] !== length || args.length < operation.minimumBytes)
      return this.#sendError(request, EINVAL)
    return this.#run(operation, request)
  }

  #run(operation: Operation, request: Request): boolean {
    try {
      const value = operation.run(this.#with.host, this.#with.args, request)
      if (isPromise(value)) return this.#wait(operation, request, value)
      return this.#succeed(operation, request, value)
    } catch (err) {
      return this.#fail(operation, request, err)
    }
  }

  #wait(operation: Operation, request: Request, promise: Promise<unknown>): false {
    const key = uniqueKey(request.uniqueLow, request.uniqueHigh)
    if (!operation.oneWay) this.#pending.set(key, request)
    promise.then(
      value => {
        this.#pending.delete(key)
        this.#succeed(operation, request, value)
      },
      err => {
        this.#pending.delete(key)
        this.#fail(operation, request, err)
      },
    )
    return false
  }

  #succeed(operation: Operation, request: Request, value: unknown): true {
    if (operation.oneWay) return true
    try {
      if (this.#send(operation, request, value) < 0) this.#undo(operation, request, value)
      else operation.delivered?.(this.#with.host, value, request)
    } catch (err) {
      this.#undo(operation, request, value)
      this.#fail(operation, request, err)
    }
    return true
  }

  /** A negative errno when the kernel did not take the reply: interrupted (ENOENT) or unmounted. */
  #send(operation: Operation, request: Request, value: unknown): number {
    const { reply, channel } = this.#with
    reply.begin()
    const payload = operation.encode?.(reply, value)
    if (payload !== undefined && 'ranges' in payload) return this.#sendRanges(request, payload)
    reply.header(0, request.uniqueLow, request.uniqueHigh, reply.length + (payload?.length ?? 0))
    return channel.reply(reply.length, payload)
  }

  /** What `replyRanges` refuses was not answered: that is an error, not an interruption. */
  #sendRanges(request: Request, file: FileRanges): number {
    const { reply, channel } = this.#with
    let length = OUT_HEADER_BYTES
    for (const range of file.ranges) length += range.length
    reply.header(0, request.uniqueLow, request.uniqueHigh, length)
    if (length > OUT_HEADER_BYTES) return checkResult(channel.replyRanges(file), 'read')
    const result = channel.reply(OUT_HEADER_BYTES, undefined)
    if (result === 0) file.release()
    return result
  }

  #undo(operation: Operation, request: Request, value: unknown): void {
    const failed = (err: unknown) => this.#report(err, operation.name)
    try {
      const undone = operation.undo?.(this.#with.host, value, request)
      if (isPromise(undone)) undone.catch(failed)
    } catch (err) {
      failed(err)
    }
  }

  #fail(operation: Operation, request: Request, err: unknown): true {
    this.#report(err, operation.name)
    if (!operation.oneWay) this.#sendError(request, errnoOf(err))
    this.#with.onFailed(request.opcode, err)
    return true
  }

  #sendError(request: Request, errno: number): true {
    const { reply, channel, statistics } = this.#with
    statistics.error(request.opcode)
    if (trace.enabled) trace('%s ino=%d: errno %d', operationName(request.opcode), request.ino, errno)
    reply.header(errno, request.uniqueLow, request.uniqueHigh, OUT_HEADER_BYTES)
    channel.reply(OUT_HEADER_BYTES, undefined)
    return true
  }

  #report(err: unknown, operation: string): void {
    if (err instanceof CidfsError) return
    if (err instanceof Error && ('errno' in err || err.name === 'AbortError')) return
    this.#with.onUnforeseen(err, operation)
  }
}
