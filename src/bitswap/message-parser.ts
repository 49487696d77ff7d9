/**
 * Reads the frames of one bitswap stream as they come, cut anywhere.
 *
 * Invariant: no byte is looked at twice or kept but where it belongs: the bytes of a block go from the transport's
 * chunk into an ArrayBuffer of the block's own, everything else is at most a CID long. Every loop consumes input;
 * what breaks the format or a bound throws `ProtocolError`, after which the parser must not be used.
 * Why a machine of states and no decoder of whole messages: a message of 4 MiB would otherwise be kept, joined,
 * and copied once more, for each peer.
 *
 * Specification: https://specs.ipfs.tech/bitswap-protocol/ (the messages of 1.0.0, 1.1.0 and 1.2.0 are one)
 */
import { blockMemory } from '../core/block-memory.js'
import { MAX_BLOCK_BYTES } from '../core/limits.js'
import { MAX_CID_BYTES, MAX_ITEMS_PER_MESSAGE, MAX_MESSAGE_BYTES, MAX_PREFIX_BYTES } from './limits.js'

/** The peer does not speak the protocol. The message is a clause, such as `message of 5000000 bytes`. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError'
}

/** An entry of a want list. `cid` is as it came: its bytes are nobody's word that it is one. */
export interface WantEntry {
  cid: Uint8Array
  priority: number
  cancel: boolean
  /** A want-have, else a want-block. */
  have: boolean
  sendDontHave: boolean
}

/** Takes what a message holds, in its order. Byte arrays are the receiver's own. */
export interface MessageSink {
  /** Whether the bytes of a block are wanted at all; they are passed over otherwise. */
  acceptBlock(lengthBytes: number): boolean
  /** `prefix` is a CID without digest; undefined in the manner of 1.0.0. The bytes fill their ArrayBuffer. */
  block(prefix: Uint8Array | undefined, bytes: Uint8Array): void
  want(entry: WantEntry): void
  presence(cid: Uint8Array, has: boolean): void
  /** The message is over; `full`: its wants replace all earlier ones. */
  messageEnd(full: boolean): void
}

const WIRE_VARINT = 0
const WIRE_FIXED64 = 1
const WIRE_BYTES = 2
const WIRE_FIXED32 = 5

/** What the next byte belongs to. */
enum Step {
  FrameLength,
  Tag,
  Varint,
  Length,
  Bytes,
  Block,
  Skip,
}

/** The message type that encloses the next byte. */
enum In {
  Message,
  Wantlist,
  Entry,
  Payload,
  Presence,
}

/** What a field of the wrong sort would have been; fields not listed here are passed over. */
const WIRE_TYPES: readonly Readonly<Record<number, number>>[] = [
  { 1: WIRE_BYTES, 2: WIRE_BYTES, 3: WIRE_BYTES, 4: WIRE_BYTES, 5: WIRE_VARINT },
  { 1: WIRE_BYTES, 2: WIRE_VARINT },
  { 1: WIRE_BYTES, 2: WIRE_VARINT, 3: WIRE_VARINT, 4: WIRE_VARINT, 5: WIRE_VARINT },
  { 1: WIRE_BYTES, 2: WIRE_BYTES },
  { 1: WIRE_BYTES, 2: WIRE_VARINT },
]
/** Message types of the fields of a message. */
const ENTERED: Readonly<Record<number, In>> = { 1: In.Wantlist, 3: In.Payload, 4: In.Presence }

export class MessageParser {
  readonly #sink: MessageSink
  #step: Step = Step.FrameLength
  /** The varint that is being read. */
  #value = 0
  #scale = 1
  #digits = 0
  /** Bytes of the frame consumed, and where it and the messages in it end. */
  #pos = 0
  readonly #ends: number[] = []
  readonly #types: In[] = []
  #field = 0
  /** Of the field that is being read. */
  #left = 0
  #target: Uint8Array | undefined
  #filled = 0
  // What the enclosing messages have said so far.
  #items = 0
  #full = false
  #entry = newEntry()
  #prefix: Uint8Array | undefined
  #data: Uint8Array | undefined
  #has = true

  constructor(sink: MessageSink) {
    this.#sink = sink
  }

  /** In the middle of a message, so that more must come. */
  get midMessage(): boolean {
    return this.#step !== Step.FrameLength || this.#digits > 0
  }

  /** Length of a block that has not come wholly. */
  get partialBytes(): number {
    return this.#step === Step.Block && this.#target !== undefined ? this.#target.length : 0
  }

  /**
   * The next bytes of the stream; nothing of `chunk` is kept.
   * @throws ProtocolError, and whatever the sink throws.
   */
  push(chunk: Uint8Array): void {
    let at = 0
    while (at < chunk.length) at = this.#consume(chunk, at)
  }

  /** Returns the index of the first byte that is left. */
  #consume(chunk: Uint8Array, at: number): number {
    switch (this.#step) {
      case Step.Bytes:
      case Step.Block:
      case Step.Skip:
        return this.#take(chunk, at)
      default:
        return this.#digit(chunk, at)
    }
  }

  #digit(chunk: Uint8Array, start: number): number {
    for (let at = start; at < chunk.length; ) {
      const byte = chunk[at++]!
      this.#advance(1)
      if (++this.#digits > 10) throw new ProtocolError('varint of more than 10 bytes')
      this.#value += (byte & 0x7f) * this.#scale
      if (byte < 0x80) {
        const value = Math.min(this.#value, Number.MAX_SAFE_INTEGER)
        this.#clearVarint()
        this.#number(value)
        return at
      }
      this.#scale *= 128
      if (this.#atEnd) throw new ProtocolError('varint beyond its message')
    }
    return chunk.length
  }

  #clearVarint(): void {
    this.#value = 0
    this.#scale = 1
    this.#digits = 0
  }

  #advance(count: number): void {
    if (this.#step === Step.FrameLength) return
    this.#pos += count
    if (this.#pos > this.#ends[this.#ends.length - 1]!) throw new ProtocolError('field beyond its message')
  }

  get #atEnd(): boolean {
    return this.#step !== Step.FrameLength && this.#pos === this.#ends[this.#ends.length - 1]
  }

  #number(value: number): void {
    switch (this.#step) {
      case Step.FrameLength:
        this.#beginFrame(value)
        break
      case Step.Tag:
        this.#beginField(value)
        break
      case Step.Varint:
        this.#varintField(value)
        this.#endField()
        break
      default:
        this.#lengthField(value)
    }
  }

  #beginFrame(length: number): void {
    if (length > MAX_MESSAGE_BYTES) throw new ProtocolError(`message of ${length} bytes`)
    this.#pos = 0
    this.#items = 0
    this.#full = false
    this.#enter(In.Message, length)
  }

  #enter(type: In, length: number): void {
    this.#types.push(type)
    this.#ends.push(this.#pos + length)
    this.#entry = newEntry()
    this.#prefix = this.#data = undefined
    this.#has = true
    this.#endField()
  }

  #beginField(tag: number): void {
    const field = Math.floor(tag / 8)
    const wireType = tag % 8
    if (field === 0) throw new ProtocolError('field number 0')
    const expected = WIRE_TYPES[this.#type]![field]
    if (expected !== undefined && expected !== wireType) {
      throw new ProtocolError(`field ${field} of wire type ${wireType}`)
    }
    this.#field = expected === undefined ? 0 : field
    if (wireType === WIRE_VARINT) this.#step = Step.Varint
    else if (wireType === WIRE_BYTES) this.#step = Step.Length
    else if (wireType === WIRE_FIXED64) this.#skip(8)
    else if (wireType === WIRE_FIXED32) this.#skip(4)
    else throw new ProtocolError(`wire type ${wireType}`)
  }

  get #type(): In {
    return this.#types[this.#types.length - 1]!
  }

  #varintField(value: number): void {
    const field = this.#field
    if (this.#type === In.Wantlist && field === 2) this.#full = value !== 0
    else if (this.#type === In.Presence && field === 2) this.#has = value === 0
    else if (this.#type === In.Entry) this.#entryField(field, value)
  }

  #entryField(field: number, value: number): void {
    const entry = this.#entry
    if (field === 2)
      entry.priority = value > 0x7fffffff ? 0 : value // a negative one takes all ten bytes
    else if (field === 3) entry.cancel = value !== 0
    else if (field === 4) entry.have = value === 1
    else if (field === 5) entry.sendDontHave = value !== 0
  }

  #lengthField(length: number): void {
    if (this.#pos + length > this.#ends[this.#ends.length - 1]!) {
      throw new ProtocolError('field beyond its message')
    }
    const [type, field] = [this.#type, this.#field]
    const entered = type === In.Message ? ENTERED[field] : undefined
    if (type === In.Message && field === 2) this.#beginBlock(length, true)
    else if (type === In.Payload && field === 2) this.#beginBlock(length, false)
    else if (entered !== undefined) this.#beginItem(entered, length)
    else if (type === In.Wantlist && field === 1) this.#beginItem(In.Entry, length)
    else if (field === 1) this.#beginBytes(length, type === In.Payload ? MAX_PREFIX_BYTES : MAX_CID_BYTES)
    else this.#skip(length)
  }

  #beginItem(type: In, length: number): void {
    this.#countItem()
    this.#enter(type, length)
  }

  #countItem(): void {
    if (++this.#items > MAX_ITEMS_PER_MESSAGE) throw new ProtocolError('too many entries in a message')
  }

  #beginBlock(length: number, item: boolean): void {
    if (item) this.#countItem()
    if (length > MAX_BLOCK_BYTES) throw new ProtocolError(`block of ${length} bytes`)
    if (!this.#sink.acceptBlock(length)) this.#skip(length)
    // Not cleared: memory that nothing was written to is not resident yet, and every byte of it will be written.
    else this.#begin(Step.Block, length, blockMemory(length))
  }

  #beginBytes(length: number, limit: number): void {
    if (length > limit) this.#skip(length)
    else this.#begin(Step.Bytes, length, new Uint8Array(length))
  }

  #skip(length: number): void {
    this.#begin(Step.Skip, length, undefined)
  }

  #begin(step: Step, length: number, target: Uint8Array | undefined): void {
    this.#step = step
    this.#left = length
    this.#filled = 0
    this.#target = target
    if (this.#pos + length > this.#ends[this.#ends.length - 1]!) {
      throw new ProtocolError('field beyond its message')
    }
    if (length === 0) this.#taken()
  }

  #take(chunk: Uint8Array, at: number): number {
    const count = Math.min(this.#left, chunk.length - at)
    if (this.#target !== undefined) {
      const whole = at === 0 && count === chunk.length
      this.#target.set(whole ? chunk : chunk.subarray(at, at + count), this.#filled)
      this.#filled += count
    }
    this.#left -= count
    this.#pos += count
    if (this.#left === 0) this.#taken()
    return at + count
  }

  #taken(): void {
    const target = this.#target
    this.#target = undefined
    if (target !== undefined && this.#step === Step.Block) this.#blockTaken(target)
    else if (target !== undefined && this.#type === In.Payload) this.#prefix = target
    else if (target !== undefined) this.#entry.cid = target
    this.#endField()
  }

  #blockTaken(bytes: Uint8Array): void {
    if (this.#type === In.Payload) this.#data = bytes
    else this.#sink.block(undefined, bytes)
  }

  /** Goes on behind a field, out of all messages that end here. */
  #endField(): void {
    this.#step = Step.Tag
    while (this.#ends.length > 0 && this.#pos === this.#ends[this.#ends.length - 1]!) this.#leave()
  }

  #leave(): void {
    this.#ends.pop()
    switch (this.#types.pop()) {
      case In.Message:
        this.#step = Step.FrameLength
        this.#sink.messageEnd(this.#full)
        break
      case In.Entry:
        if (this.#entry.cid.length > 0) this.#sink.want(this.#entry)
        break
      case In.Payload:
        if (this.#data !== undefined) this.#sink.block(this.#prefix ?? EMPTY, this.#data)
        this.#data = undefined
        break
      case In.Presence:
        if (this.#entry.cid.length > 0) this.#sink.presence(this.#entry.cid, this.#has)
    }
  }
}

const EMPTY = new Uint8Array(0)

function newEntry(): WantEntry {
  return { cid: EMPTY, priority: 1, cancel: false, have: false, sendDontHave: false }
}
