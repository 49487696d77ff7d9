/**
 * The protobuf wire format, as far as dag-pb and UnixFS use it.
 *
 * Invariant: no read goes past `end`, every loop consumes bytes, and what does not parse throws
 * `MALFORMED_DAG`. Integers above 2^53 - 1 saturate: as a length they then lie behind the end, as a size they
 * can be told from any honest one.
 *
 * Specification: https://protobuf.dev/programming-guides/encoding/
 */
import { CidfsError } from '../core/errors.js'

export const WIRE_VARINT = 0
export const WIRE_FIXED64 = 1
export const WIRE_BYTES = 2
export const WIRE_FIXED32 = 5

const TWO_32 = 2 ** 32

/** A cursor over `bytes[pos, end)`. */
export class ProtobufReader {
  readonly bytes: Uint8Array
  pos: number
  readonly end: number

  constructor(bytes: Uint8Array, start = 0, end = bytes.length) {
    this.bytes = bytes
    this.pos = start
    this.end = end
  }

  get done(): boolean {
    return this.pos >= this.end
  }

  /** An unsigned 64-bit integer, saturating at 2^53 - 1. */
  varint(): number {
    const { bytes, end } = this
    let value = 0
    let scale = 1
    for (let i = 0; i < 10; i++) {
      if (this.pos >= end) throw broken('protobuf: truncated')
      const byte = bytes[this.pos++]!
      value += (byte & 0x7f) * scale
      if (byte < 0x80) {
        if (i === 9 && byte > 1) break
        return Math.min(value, Number.MAX_SAFE_INTEGER)
      }
      scale *= 128
    }
    throw broken('protobuf: varint overflow')
  }

  /** A signed 64-bit integer in two's complement, saturating at ±(2^53 - 1). */
  int64(): number {
    let low = 0
    let high = 0
    for (let shift = 0; shift < 70; shift += 7) {
      if (this.pos >= this.end) throw broken('protobuf: truncated')
      const byte = this.bytes[this.pos++]!
      const bits = byte & 0x7f
      if (shift < 28) low |= bits << shift
      else if (shift === 28) {
        low |= bits << 28
        high |= bits >>> 4
      } else high |= bits << (shift - 32)
      if (byte < 0x80) {
        if (shift === 63 && byte > 1) break
        return saturate((high | 0) * TWO_32 + (low >>> 0))
      }
    }
    throw broken('protobuf: varint overflow')
  }

  fixed32(): number {
    this.skip(4)
    const { bytes, pos } = this
    return (
      (bytes[pos - 4]! | (bytes[pos - 3]! << 8) | (bytes[pos - 2]! << 16) | (bytes[pos - 1]! << 24)) >>> 0
    )
  }

  /** Reads a length and returns where the bytes behind it end; `pos` is where they start. */
  lengthDelimited(): number {
    const length = this.varint()
    const end = this.pos + length
    if (end > this.end) throw broken('protobuf: length beyond the end')
    return end
  }

  /** A view, not a copy. */
  view(): Uint8Array {
    const end = this.lengthDelimited()
    const view = this.bytes.subarray(this.pos, end)
    this.pos = end
    return view
  }

  skip(length: number): void {
    if (this.pos + length > this.end) throw broken('protobuf: truncated')
    this.pos += length
  }

  /** Passes over a field of a type we do not know. Groups (wire types 3 and 4) never occur here. */
  skipField(wireType: number): void {
    if (wireType === WIRE_VARINT) this.varint()
    else if (wireType === WIRE_FIXED64) this.skip(8)
    else if (wireType === WIRE_BYTES) this.pos = this.lengthDelimited()
    else if (wireType === WIRE_FIXED32) this.skip(4)
    else throw broken(`protobuf: wire type ${wireType}`)
  }
}

function saturate(value: number): number {
  return Math.max(-Number.MAX_SAFE_INTEGER, Math.min(Number.MAX_SAFE_INTEGER, value))
}

/** `MALFORMED_DAG` without a CID: the decoders do not know whose bytes they read (see node.ts). */
export function broken(reason: string): CidfsError {
  return new CidfsError('MALFORMED_DAG', reason)
}

/** Bytes that the varint of `value` (a safe non-negative integer) takes. */
export function varintLength(value: number): number {
  let length = 1
  while (value >= 128) {
    value = Math.floor(value / 128)
    length++
  }
  return length
}

/** Bytes of a length-delimited field with a tag of one byte. */
export function fieldLength(length: number): number {
  return 1 + varintLength(length) + length
}

/** Writes forward into a buffer of exactly the right size. */
export class ProtobufWriter {
  readonly bytes: Uint8Array
  pos = 0

  constructor(sizeBytes: number) {
    this.bytes = new Uint8Array(sizeBytes)
  }

  byte(value: number): void {
    this.bytes[this.pos++] = value
  }

  varint(value: number): void {
    while (value >= 128) {
      this.bytes[this.pos++] = (value % 128) | 0x80
      value = Math.floor(value / 128)
    }
    this.bytes[this.pos++] = value
  }

  /** `value` may be negative: ten bytes then. */
  int64(value: number): void {
    let rest = BigInt.asUintN(64, BigInt(value))
    while (rest >= 128n) {
      this.bytes[this.pos++] = Number(rest & 0x7fn) | 0x80
      rest >>= 7n
    }
    this.bytes[this.pos++] = Number(rest)
  }

  fixed32(value: number): void {
    for (let shift = 0; shift < 32; shift += 8) this.bytes[this.pos++] = (value >>> shift) & 0xff
  }

  /** Tag of one byte, length, bytes. */
  field(tag: number, value: Uint8Array): void {
    this.byte(tag)
    this.varint(value.length)
    this.bytes.set(value, this.pos)
    this.pos += value.length
  }
}
