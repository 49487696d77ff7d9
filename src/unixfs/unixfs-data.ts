/**
 * The UnixFS `Data` message: what a dag-pb node says it is.
 *
 * Invariant: a decoded message has a known type; sizes above 2^53 - 1 saturate and are refused where they
 * matter. Unknown fields are passed over and the last of a repeated field counts, as protobuf has it;
 * metadata that makes no sense (nanoseconds out of range, a time without seconds) is dropped, not fatal.
 *
 * Specification: https://specs.ipfs.tech/unixfs/
 */
import {
  broken,
  fieldLength,
  ProtobufReader,
  ProtobufWriter,
  varintLength,
  WIRE_BYTES,
  WIRE_FIXED32,
  WIRE_VARINT,
} from './protobuf.js'

/** In the order of their numbers on the wire. */
const TYPES = ['raw', 'directory', 'file', 'metadata', 'symlink', 'hamt-shard'] as const

export type UnixfsType = (typeof TYPES)[number]

/** Seconds (negative before 1970) and nanoseconds (0 to 999,999,999) since the epoch. */
export interface UnixfsTime {
  seconds: number
  nanoseconds: number
}

export interface UnixfsData {
  type: UnixfsType
  /** Content of a file, target of a symlink, bitmap of a HAMT shard. A view of the decoded bytes. */
  data?: Uint8Array | undefined
  filesize?: number | undefined
  blocksizes: readonly number[]
  hashType?: number | undefined
  fanout?: number | undefined
  /** All 32 bits; only the low twelve mean anything to a file system. */
  mode?: number | undefined
  mtime?: UnixfsTime | undefined
}

/** @throws CidfsError `MALFORMED_DAG`. */
export function decodeUnixfsData(bytes: Uint8Array): UnixfsData {
  const reader = new ProtobufReader(bytes)
  const blocksizes: number[] = []
  const fields: Partial<UnixfsData> = {}
  while (!reader.done) {
    const tag = reader.varint()
    if (!decodeField(reader, tag, fields, blocksizes)) reader.skipField(tag % 8)
  }
  if (fields.type === undefined) throw broken('unixfs: no type')
  return { ...fields, type: fields.type, blocksizes }
}

const TAG_TYPE = (1 << 3) | WIRE_VARINT
const TAG_DATA = (2 << 3) | WIRE_BYTES
const TAG_FILESIZE = (3 << 3) | WIRE_VARINT
const TAG_BLOCKSIZES = (4 << 3) | WIRE_VARINT
const TAG_BLOCKSIZES_PACKED = (4 << 3) | WIRE_BYTES
const TAG_HASH_TYPE = (5 << 3) | WIRE_VARINT
const TAG_FANOUT = (6 << 3) | WIRE_VARINT
const TAG_MODE = (7 << 3) | WIRE_VARINT
const TAG_MTIME = (8 << 3) | WIRE_BYTES

/** False when the field is none of ours and still has to be passed over. */
function decodeField(
  reader: ProtobufReader,
  tag: number,
  fields: Partial<UnixfsData>,
  blocksizes: number[],
): boolean {
  if (tag === TAG_TYPE) fields.type = typeOf(reader.varint())
  else if (tag === TAG_DATA) fields.data = reader.view()
  else if (tag === TAG_FILESIZE) fields.filesize = reader.varint()
  else if (tag === TAG_BLOCKSIZES) blocksizes.push(reader.varint())
  else if (tag === TAG_BLOCKSIZES_PACKED) decodePacked(reader, blocksizes)
  else if (tag === TAG_HASH_TYPE) fields.hashType = reader.varint()
  else if (tag === TAG_FANOUT) fields.fanout = reader.varint()
  else if (tag === TAG_MODE) fields.mode = reader.varint() % 2 ** 32
  else if (tag === TAG_MTIME) fields.mtime = decodeTime(reader.view())
  else return false
  return true
}

function typeOf(value: number): UnixfsType {
  const type = TYPES[value]
  if (type === undefined) throw broken(`unixfs: unknown type ${value}`)
  return type
}

function decodePacked(reader: ProtobufReader, blocksizes: number[]): void {
  const end = reader.lengthDelimited()
  const packed = new ProtobufReader(reader.bytes, reader.pos, end)
  while (!packed.done) blocksizes.push(packed.varint())
  reader.pos = end
}

const TAG_SECONDS = (1 << 3) | WIRE_VARINT
const TAG_NANOSECONDS = (2 << 3) | WIRE_FIXED32

function decodeTime(bytes: Uint8Array): UnixfsTime | undefined {
  const reader = new ProtobufReader(bytes)
  let seconds: number | undefined
  let nanoseconds = 0
  while (!reader.done) {
    const tag = reader.varint()
    if (tag === TAG_SECONDS) seconds = reader.int64()
    else if (tag === TAG_NANOSECONDS) nanoseconds = reader.fixed32()
    else reader.skipField(tag % 8)
  }
  if (seconds === undefined) return undefined
  return { seconds, nanoseconds: nanoseconds < 1e9 ? nanoseconds : 0 }
}

/** The encoding Kubo and `ipfs-unixfs` write: fields in order, block sizes unpacked, absent ones left out. */
export function encodeUnixfsData(message: UnixfsData): Uint8Array {
  const mtime = message.mtime === undefined ? undefined : encodeTime(message.mtime)
  const writer = new ProtobufWriter(encodedLength(message, mtime))
  writer.byte(TAG_TYPE)
  writer.byte(TYPES.indexOf(message.type))
  if (message.data !== undefined) writer.field(TAG_DATA, message.data)
  encodeVarint(writer, TAG_FILESIZE, message.filesize)
  for (const size of message.blocksizes) encodeVarint(writer, TAG_BLOCKSIZES, size)
  encodeVarint(writer, TAG_HASH_TYPE, message.hashType)
  encodeVarint(writer, TAG_FANOUT, message.fanout)
  encodeVarint(writer, TAG_MODE, message.mode)
  if (mtime !== undefined) writer.field(TAG_MTIME, mtime)
  return writer.bytes
}

function encodeVarint(writer: ProtobufWriter, tag: number, value: number | undefined): void {
  if (value === undefined) return
  writer.byte(tag)
  writer.varint(value)
}

function encodedLength(message: UnixfsData, mtime: Uint8Array | undefined): number {
  let length = 2
  if (message.data !== undefined) length += fieldLength(message.data.length)
  const { filesize, hashType, fanout, mode } = message
  for (const value of [filesize, hashType, fanout, mode]) {
    if (value !== undefined) length += 1 + varintLength(value)
  }
  for (const size of message.blocksizes) length += 1 + varintLength(size)
  if (mtime !== undefined) length += fieldLength(mtime.length)
  return length
}

function encodeTime({ seconds, nanoseconds }: UnixfsTime): Uint8Array {
  const writer = new ProtobufWriter(16)
  writer.byte(TAG_SECONDS)
  writer.int64(seconds)
  if (nanoseconds > 0) {
    writer.byte(TAG_NANOSECONDS)
    writer.fixed32(nanoseconds)
  }
  return writer.bytes.subarray(0, writer.pos)
}
