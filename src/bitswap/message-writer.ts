/**
 * Writes bitswap messages, in pieces for the transport to send one after another.
 *
 * Invariant: blocks are pieces as they are, never copied. What is written for a version is what it knows: 1.0.0
 * has neither prefixes nor CIDs of version 1, and neither it nor 1.1.0 has presences and want-haves.
 *
 * Specification: https://specs.ipfs.tech/bitswap-protocol/
 */
import type { WantEntry } from './message-parser.js'

export interface OutgoingBlock {
  /** A CID without its digest, see `prefixOf`. */
  prefix: Uint8Array
  bytes: Uint8Array
}

export interface Presence {
  cid: Uint8Array
  has: boolean
}

export interface OutgoingMessage {
  wants?: readonly WantEntry[]
  blocks?: readonly OutgoingBlock[]
  presences?: readonly Presence[]
  /** Bytes that are queued for the peer and not in this message. */
  pendingBytes?: number
}

// Tags of one byte: field number and wire type.
const WANTLIST = 0x0a
const BLOCK_V0 = 0x12
const PAYLOAD = 0x1a
const PRESENCE = 0x22
const PENDING_BYTES = 0x28
const DATA = 0x12
const CID_OR_PREFIX = 0x0a

/** The message without its length prefix. */
export function encodeMessage(message: OutgoingMessage): Uint8Array[] {
  const pieces: Uint8Array[] = []
  const { wants = [], blocks = [], presences = [], pendingBytes = 0 } = message
  if (wants.length > 0) pieces.push(encodeWants(wants))
  for (const block of blocks) pieces.push(encodeBlockHead(block), block.bytes)
  if (presences.length > 0) pieces.push(encodePresences(presences))
  if (pendingBytes > 0) pieces.push(encodePending(pendingBytes))
  return pieces
}

/** A message of blocks for a peer that speaks 1.0.0. */
export function encodeMessageV0(blocks: readonly Uint8Array[]): Uint8Array[] {
  return blocks.flatMap(bytes => {
    const head = new Writer(1 + varintLength(bytes.length))
    head.byte(BLOCK_V0)
    head.varint(bytes.length)
    return [head.bytes, bytes]
  })
}

function encodeWants(wants: readonly WantEntry[]): Uint8Array {
  const lengths = wants.map(entryLength)
  const length = lengths.reduce((sum, entry) => sum + 1 + varintLength(entry) + entry, 0)
  const writer = new Writer(1 + varintLength(length) + length)
  writer.byte(WANTLIST)
  writer.varint(length)
  wants.forEach((want, i) => {
    writer.byte(CID_OR_PREFIX)
    writer.varint(lengths[i]!)
    writeEntry(writer, want)
  })
  return writer.bytes
}

function entryLength({ cid, priority, cancel, have, sendDontHave }: WantEntry): number {
  const flags = Number(cancel) + Number(have) + Number(sendDontHave)
  return 1 + varintLength(cid.length) + cid.length + 1 + varintLength(priority) + 2 * flags
}

function writeEntry(writer: Writer, { cid, priority, cancel, have, sendDontHave }: WantEntry): void {
  writer.field(CID_OR_PREFIX, cid)
  writer.byte(0x10)
  writer.varint(priority)
  if (cancel) writer.flag(0x18)
  if (have) writer.flag(0x20)
  if (sendDontHave) writer.flag(0x28)
}

function encodeBlockHead({ prefix, bytes }: OutgoingBlock): Uint8Array {
  const headLength = 1 + varintLength(prefix.length) + prefix.length + 1 + varintLength(bytes.length)
  const length = headLength + bytes.length
  const writer = new Writer(1 + varintLength(length) + headLength)
  writer.byte(PAYLOAD)
  writer.varint(length)
  writer.field(CID_OR_PREFIX, prefix)
  writer.byte(DATA)
  writer.varint(bytes.length)
  return writer.bytes
}

function encodePresences(presences: readonly Presence[]): Uint8Array {
  const lengths = presences.map(({ cid, has }) => 1 + varintLength(cid.length) + cid.length + (has ? 0 : 2))
  const writer = new Writer(lengths.reduce((sum, length) => sum + 1 + varintLength(length) + length, 0))
  presences.forEach(({ cid, has }, i) => {
    writer.byte(PRESENCE)
    writer.varint(lengths[i]!)
    writer.field(CID_OR_PREFIX, cid)
    if (!has) writer.flag(0x10)
  })
  return writer.bytes
}

function encodePending(pendingBytes: number): Uint8Array {
  const value = Math.min(pendingBytes, 0x7fffffff)
  const writer = new Writer(1 + varintLength(value))
  writer.byte(PENDING_BYTES)
  writer.varint(value)
  return writer.bytes
}

/** Bytes that the varint of a safe non-negative integer takes. */
export function varintLength(value: number): number {
  let length = 1
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) length++
  return length
}

/** The varint of a safe non-negative integer: the length that goes before a message on a stream. */
export function encodeVarint(value: number): Uint8Array {
  const writer = new Writer(varintLength(value))
  writer.varint(value)
  return writer.bytes
}

/** Writes forward into a buffer of exactly the right size. */
class Writer {
  readonly bytes: Uint8Array
  #at = 0

  constructor(sizeBytes: number) {
    this.bytes = new Uint8Array(sizeBytes)
  }

  byte(value: number): void {
    this.bytes[this.#at++] = value
  }

  varint(value: number): void {
    let rest = value
    for (; rest >= 128; rest = Math.floor(rest / 128)) this.byte((rest % 128) | 0x80)
    this.byte(rest)
  }

  field(tag: number, value: Uint8Array): void {
    this.byte(tag)
    this.varint(value.length)
    this.bytes.set(value, this.#at)
    this.#at += value.length
  }

  flag(tag: number): void {
    this.byte(tag)
    this.byte(1)
  }
}
