/**
 * DNS messages, as far as asking for TXT records needs them.
 *
 * Invariant: no read goes past the message, compressed names end (every jump leads backwards), and what does not
 * parse throws. Only answers to the question asked count.
 *
 * Specification: RFC 1035, RFC 8484
 */
import { CidfsError } from '../core/errors.js'

export interface TxtRecord {
  text: string
  ttlMs: number
}

/** What a server said: records, or that there are none. */
export interface TxtAnswer {
  records: TxtRecord[]
}

const TYPE_TXT = 16
const CLASS_IN = 1
const RECURSION_DESIRED = 0x0100
const HEADER_BYTES = 12
export const RCODE = { OK: 0, NXDOMAIN: 3 } as const
/** More of them are not looked at. */
const MAX_RECORDS = 64

/** A query for the TXT records of `name`. Its id is 0, so that answers can be cached (RFC 8484). */
export function encodeQuery(name: string): Buffer {
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt16BE(RECURSION_DESIRED, 2)
  header.writeUInt16BE(1, 4)
  const labels = name.split('.').map(label => Buffer.concat([Buffer.of(label.length), Buffer.from(label)]))
  const question = Buffer.from([0, 0, TYPE_TXT, 0, CLASS_IN]) // the root label, type, class
  return Buffer.concat([header, ...labels, question])
}

/** @throws CidfsError `UNREACHABLE` for an answer that is none. */
export function decodeAnswer(message: Uint8Array): TxtAnswer {
  try {
    return new Parser(message).answer()
  } catch (cause) {
    if (cause instanceof CidfsError) throw cause
    throw new CidfsError('UNREACHABLE', 'the answer is no DNS message', { cause })
  }
}

/** @throws CidfsError `UNREACHABLE` for codes that say neither "here" nor "there is none". */
export function checkRcode(rcode: number): void {
  if (rcode === RCODE.OK || rcode === RCODE.NXDOMAIN) return
  throw new CidfsError('UNREACHABLE', `the DNS server failed (code ${rcode})`)
}

class Parser {
  readonly #bytes: Buffer
  #at = HEADER_BYTES

  constructor(message: Uint8Array) {
    this.#bytes = Buffer.from(message.buffer, message.byteOffset, message.byteLength)
  }

  answer(): TxtAnswer {
    const flags = this.#bytes.readUInt16BE(2)
    if ((flags & 0x8000) === 0) throw new RangeError('a question')
    checkRcode(flags & 0xf)
    const [questions, answers] = [this.#bytes.readUInt16BE(4), this.#bytes.readUInt16BE(6)]
    for (let i = 0; i < questions; i++) {
      this.#skipName()
      this.#at += 4
    }
    const records: TxtRecord[] = []
    for (let i = 0; i < answers && records.length < MAX_RECORDS; i++) {
      const record = this.#record()
      if (record !== undefined) records.push(record)
    }
    return { records }
  }

  /** Undefined: of another type, such as a CNAME on the way. */
  #record(): TxtRecord | undefined {
    this.#skipName()
    const type = this.#bytes.readUInt16BE(this.#at)
    const ttlMs = this.#bytes.readUInt32BE(this.#at + 4) * 1000
    const length = this.#bytes.readUInt16BE(this.#at + 8)
    const start = this.#at + 10
    if (start + length > this.#bytes.length) throw new RangeError('truncated')
    this.#at = start + length
    if (type !== TYPE_TXT) return undefined
    return { text: strings(this.#bytes.subarray(start, start + length)), ttlMs }
  }

  /** The name itself says nothing new: a server that answers for another one can lie about this one as well. */
  #skipName(): void {
    for (;;) {
      const length = this.#bytes.readUInt8(this.#at)
      if (length >= 0xc0) {
        this.#at += 2 // a pointer ends the name
        return
      }
      if (length >= 0x40) throw new RangeError('label type')
      this.#at += 1 + length
      if (length === 0) return
    }
  }
}

/** A TXT record is cut into strings of up to 255 bytes. */
function strings(data: Buffer): string {
  const parts: Buffer[] = []
  for (let at = 0; at < data.length; at += 1 + data[at]!) {
    if (at + 1 + data[at]! > data.length) throw new RangeError('truncated')
    parts.push(data.subarray(at + 1, at + 1 + data[at]!))
  }
  return Buffer.concat(parts).toString()
}
