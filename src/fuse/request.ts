/**
 * One request of the kernel: who asks, and its arguments while they are in the channel's buffer.
 *
 * Invariant: `Arguments` are only valid until the handler returns (the next read overwrites them); a `Request`
 * lives until it is answered. `unique` is two raw words, never a number: what is sent again after
 * FUSE_NOTIFY_RESEND has the top bit set, and must be echoed to the bit.
 *
 * Reference: struct fuse_in_header
 */
import { CidfsError } from '../core/errors.js'
import { MAX_NAME_BYTES } from '../core/limits.js'
import type { Context, Ino } from '../fs/file-system.js'
import { IN_HEADER_BYTES, REQUEST_BUFFER_BYTES } from './abi.js'

const TWO_32 = 2 ** 32
/** FUSE_UNIQUE_RESEND, in the upper word: the bit that tells a request from its repetition. */
const RESENT = 1 << 31

/** The requester as handlers see it. */
export class Request implements Context {
  readonly opcode: number
  readonly uniqueLow: number
  readonly uniqueHigh: number
  readonly ino: Ino
  readonly uid: number
  readonly gid: number
  readonly pid: number
  readonly id: number
  readonly repeated: boolean
  #controller: AbortController | undefined
  #interrupted = false

  /** `words` begin with a struct fuse_in_header. */
  constructor(words: Uint32Array) {
    this.opcode = words[1]!
    this.uniqueLow = words[2]!
    this.uniqueHigh = words[3]!
    this.ino = words[4]! + words[5]! * TWO_32
    this.uid = words[6]!
    this.gid = words[7]!
    this.pid = words[8]!
    this.id = this.uniqueLow + (this.uniqueHigh & ~RESENT) * TWO_32
    this.repeated = (this.uniqueHigh & RESENT) !== 0
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#interrupted) this.#abort()
    }
    return this.#controller.signal
  }

  /** What FUSE_INTERRUPT means for the handler: its signal is aborted with `INTERRUPTED`. */
  interrupt(): void {
    if (this.#interrupted) return
    this.#interrupted = true
    this.#abort()
  }

  #abort(): void {
    this.#controller?.abort(new CidfsError('INTERRUPTED', 'interrupted by a signal'))
  }
}

/** Map key of a `unique`, for the requests that an INTERRUPT may name. */
export function uniqueKey(low: number, high: number): bigint {
  return (BigInt(high) << 32n) | BigInt(low)
}

/** Reads the arguments behind the header. Offsets are bytes from the end of the header, multiples of 4. */
export class Arguments {
  /** The channel's input buffer. Not a Buffer: `slice` of one would not copy, and handlers get parts of this. */
  readonly bytes = new Uint8Array(REQUEST_BUFFER_BYTES)
  readonly words = new Uint32Array(this.bytes.buffer)
  /** Bytes of arguments of the current request. */
  length = 0

  u32(at: number): number {
    return this.words[(IN_HEADER_BYTES + at) >> 2]!
  }

  /** Exact below 2^53; file offsets and our own ids are. */
  u64(at: number): number {
    const index = (IN_HEADER_BYTES + at) >> 2
    return this.words[index]! + this.words[index + 1]! * TWO_32
  }

  i64(at: number): number {
    const index = (IN_HEADER_BYTES + at) >> 2
    return this.words[index]! + (this.words[index + 1]! | 0) * TWO_32
  }

  /** `length` bytes from `at`. @throws CidfsError `INVALID` when the request is shorter. */
  slice(at: number, length: number): Uint8Array {
    if (at + length > this.length) throw new CidfsError('INVALID', 'request shorter than it says')
    return this.bytes.subarray(IN_HEADER_BYTES + at, IN_HEADER_BYTES + at + length)
  }

  /** The bytes before the next NUL. @throws CidfsError `INVALID` when there is none. */
  string(at: number): Uint8Array {
    const end = this.bytes.indexOf(0, IN_HEADER_BYTES + at) - IN_HEADER_BYTES
    if (end < at || end >= this.length) throw new CidfsError('INVALID', 'string without an end')
    return this.bytes.subarray(IN_HEADER_BYTES + at, IN_HEADER_BYTES + end)
  }

  /** A name; the kernel itself sets no limit since Linux 6.15. @throws CidfsError `NAME_TOO_LONG`. */
  name(at: number): Uint8Array {
    const name = this.string(at)
    if (name.length > MAX_NAME_BYTES) throw new CidfsError('NAME_TOO_LONG', 'name of more than 255 bytes')
    return name
  }

  /** Two names, one behind the other. */
  names(at: number): [Uint8Array, Uint8Array] {
    const first = this.name(at)
    return [first, this.name(at + first.length + 1)]
  }

  text(at: number): string {
    const name = this.name(at)
    return Buffer.from(name.buffer, name.byteOffset, name.length).toString('utf8')
  }
}
