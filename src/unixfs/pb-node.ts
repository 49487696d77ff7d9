/**
 * dag-pb nodes: links and data.
 *
 * Invariant: names are bytes and stay bytes; a decoded node has only links whose CIDs parse. Fields may come
 * links first (canonical) or data first, nothing else: unknown, repeated and misordered fields are refused,
 * as the implementations in Go and JavaScript do.
 * Why not `@ipld/dag-pb`: it decodes names as UTF-8 and so loses those that are not, and it makes four objects
 * of each link. Here a node is its block and a table of offsets; a link becomes an object when asked for.
 *
 * Specification: https://ipld.io/specs/codecs/dag-pb/spec/
 */
import { CID } from '../core/cid.js'
import {
  broken,
  fieldLength,
  ProtobufReader,
  ProtobufWriter,
  varintLength,
  WIRE_BYTES,
  WIRE_VARINT,
} from './protobuf.js'

export interface PbLink {
  readonly cid: CID
  /** Empty when the link has none. */
  readonly name: Uint8Array
  /** Bytes of the DAG below, as its author claims; saturates at 2^53 - 1, 0 when absent. */
  readonly tsize: number
}

/** Offsets kept per link: start and end of the CID and of the name, start of the Tsize (0: none). */
const STRIDE = 5
/** Unused bytes around a block that are not worth a copy. */
const SLACK_BYTES = 4096

/** A decoded node. Views it hands out are views of `bytes`. */
export class PbNode {
  readonly bytes: Uint8Array
  /** undefined when the node has no Data field. */
  readonly data: Uint8Array | undefined
  readonly linkCount: number
  readonly #offsets: Uint32Array

  constructor(bytes: Uint8Array, data: Uint8Array | undefined, offsets: Uint32Array) {
    this.bytes = bytes
    this.data = data
    this.linkCount = offsets.length / STRIDE
    this.#offsets = offsets
  }

  /** A CID that does not keep the block alive. */
  cid(index: number): CID {
    const at = index * STRIDE
    return CID.decode(this.bytes.slice(this.#offsets[at]!, this.#offsets[at + 1]!))
  }

  name(index: number): Uint8Array {
    const at = index * STRIDE
    return this.bytes.subarray(this.#offsets[at + 2]!, this.#offsets[at + 3]!)
  }

  nameLength(index: number): number {
    const at = index * STRIDE
    return this.#offsets[at + 3]! - this.#offsets[at + 2]!
  }

  tsize(index: number): number {
    const at = this.#offsets[index * STRIDE + 4]!
    return at === 0 ? 0 : new ProtobufReader(this.bytes, at).varint()
  }

  /**
   * A node that may be kept: itself, or one over a copy when its block is a part of a larger buffer, so that it
   * does not keep a whole response or slab alive.
   */
  compact(): PbNode {
    const { bytes, data } = this
    if (bytes.buffer.byteLength <= bytes.length + SLACK_BYTES) return this
    const copy = new Uint8Array(bytes)
    const at = data === undefined ? 0 : data.byteOffset - bytes.byteOffset
    return new PbNode(copy, data && copy.subarray(at, at + data.length), this.#offsets)
  }

  link(index: number): PbLink {
    return { cid: this.cid(index), name: this.name(index), tsize: this.tsize(index) }
  }

  links(): PbLink[] {
    return Array.from({ length: this.linkCount }, (_, index) => this.link(index))
  }
}

/**
 * The node in a dag-pb block. The block is not copied.
 * @throws CidfsError `MALFORMED_DAG`.
 */
export function decodePbNode(bytes: Uint8Array): PbNode {
  const { data, linkCount } = outline(bytes)
  const offsets = new Uint32Array(linkCount * STRIDE)
  const reader = new ProtobufReader(bytes)
  for (let at = 0; at < offsets.length; ) {
    const isLink = reader.varint() === LINK_TAG
    const end = reader.lengthDelimited()
    if (isLink) {
      decodeLink(bytes, reader.pos, end, offsets, at)
      at += STRIDE
    }
    reader.pos = end
  }
  return new PbNode(bytes, data, offsets)
}

const DATA_TAG = (1 << 3) | WIRE_BYTES
const LINK_TAG = (2 << 3) | WIRE_BYTES

/** First pass: the data, how many links there are, and whether the order of the fields is allowed. */
function outline(bytes: Uint8Array): { data: Uint8Array | undefined; linkCount: number } {
  const reader = new ProtobufReader(bytes)
  let data: Uint8Array | undefined
  let linkCount = 0
  let linksEnded = false
  while (!reader.done) {
    const tag = reader.varint()
    if (tag === LINK_TAG) {
      if (linksEnded) throw broken('dag-pb: links on both sides of the data')
      linkCount++
      reader.pos = reader.lengthDelimited()
    } else if (tag === DATA_TAG) {
      if (data !== undefined) throw broken('dag-pb: two data fields')
      data = reader.view()
      linksEnded = linkCount > 0
    } else throw broken(`dag-pb: unexpected tag ${tag}`)
  }
  return { data, linkCount }
}

const HASH_TAG = (1 << 3) | WIRE_BYTES
const NAME_TAG = (2 << 3) | WIRE_BYTES
const TSIZE_TAG = (3 << 3) | WIRE_VARINT

function decodeLink(bytes: Uint8Array, start: number, end: number, offsets: Uint32Array, at: number): void {
  const reader = new ProtobufReader(bytes, start, end)
  let previous = 0
  while (!reader.done) {
    const tag = reader.varint()
    if (tag <= previous) throw broken('dag-pb: link fields repeated or out of order')
    previous = tag
    if (tag === HASH_TAG || tag === NAME_TAG) {
      const slot = tag === HASH_TAG ? at : at + 2
      const fieldEnd = reader.lengthDelimited()
      offsets[slot] = reader.pos
      offsets[slot + 1] = fieldEnd
      reader.pos = fieldEnd
    } else if (tag === TSIZE_TAG) {
      offsets[at + 4] = reader.pos
      reader.varint()
    } else throw broken(`dag-pb: unexpected tag ${tag} in a link`)
  }
  checkCid(bytes, offsets[at]!, offsets[at + 1]!)
}

/** Whether `CID.decode` will take these bytes, without making an object. */
function checkCid(bytes: Uint8Array, start: number, end: number): void {
  if (end - start === 34 && bytes[start] === 0x12 && bytes[start + 1] === 0x20) return
  if (bytes[start] === 1 && hasShortPrefix(bytes, start, end)) return
  const reader = new ProtobufReader(bytes, start, end)
  if (start === end) throw broken('dag-pb: link without a CID')
  if (cidVarint(reader) !== 1) throw broken('dag-pb: link with an unknown CID version')
  cidVarint(reader)
  cidVarint(reader)
  if (cidVarint(reader) !== end - reader.pos)
    throw broken('dag-pb: link with bytes missing or behind its CID')
}

/** Nearly all CIDs: codec, hash function and length of the digest take a byte each. */
function hasShortPrefix(bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start < 4 || (bytes[start + 1]! | bytes[start + 2]! | bytes[start + 3]!) >= 0x80) return false
  return bytes[start + 3] === end - start - 4
}

/** Those of CIDs must be minimal, unlike those of protobuf. */
function cidVarint(reader: ProtobufReader): number {
  const start = reader.pos
  const value = reader.varint()
  if (reader.pos - start !== varintLength(value) || value === Number.MAX_SAFE_INTEGER) {
    throw broken('dag-pb: link with a malformed CID')
  }
  return value
}

/** What `encodePbNode` needs of a link. */
export interface EncodableLink {
  cid: CID
  name: Uint8Array
  tsize: number
}

/** Bytes a link adds to the encoded node that holds it. */
export function linkLength(cidLength: number, nameLength: number, tsize: number): number {
  return fieldLength(linkBodyLength(cidLength, nameLength, tsize))
}

function linkBodyLength(cidLength: number, nameLength: number, tsize: number): number {
  return fieldLength(cidLength) + fieldLength(nameLength) + 1 + varintLength(tsize)
}

/**
 * The canonical encoding: links in the order given (the caller sorts them), then data. Every link has all
 * three fields, as Kubo writes them.
 */
export function encodePbNode(links: readonly EncodableLink[], data: Uint8Array): Uint8Array {
  let sizeBytes = fieldLength(data.length)
  for (const { cid, name, tsize } of links) sizeBytes += linkLength(cid.bytes.length, name.length, tsize)
  const writer = new ProtobufWriter(sizeBytes)
  for (const link of links) encodeLink(writer, link)
  writer.field(DATA_TAG, data)
  return writer.bytes
}

function encodeLink(writer: ProtobufWriter, { cid, name, tsize }: EncodableLink): void {
  writer.byte(LINK_TAG)
  writer.varint(linkBodyLength(cid.bytes.length, name.length, tsize))
  writer.field(HASH_TAG, cid.bytes)
  writer.field(NAME_TAG, name)
  writer.byte(TSIZE_TAG)
  writer.varint(tsize)
}
