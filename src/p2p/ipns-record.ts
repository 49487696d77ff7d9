/**
 * Making IPNS records: what is signed, and the envelope around it.
 *
 * Invariant: records are of version 1 and 2 in one, as Kubo makes them, and byte for byte what the package `ipns`
 * makes of the same key, value and times (the tests compare them).
 * Why not that package here: it brings all of libp2p's cryptography along, and this runs on the main thread,
 * which has the keys. What comes from others is parsed and verified by it, in the network worker.
 *
 * Specification: https://specs.ipfs.tech/ipns/ipns-record/
 */
import type { NameKey } from './ipns-key.js'

export interface RecordFields {
  /** `/ipfs/<cid>…` or `/ipns/<name>…` */
  value: string
  sequence: bigint
  /** Milliseconds since the epoch: void from then on. */
  eolMs: number
  /** For how long others need not ask again. */
  ttlMs: number
}

const CBOR = { UINT: 0 << 5, BYTES: 2 << 5, TEXT: 3 << 5, MAP: 5 << 5 }
const FIELD = { VALUE: 1, SIGNATURE_1: 2, VALIDITY_TYPE: 3, VALIDITY: 4, SEQUENCE: 5, TTL: 6 }
const FIELD_2 = { SIGNATURE: 8, DATA: 9 }

/** A signed record, ready to be published. */
export function signRecord(key: NameKey, { value, sequence, eolMs, ttlMs }: RecordFields): Uint8Array {
  const valueBytes = Buffer.from(value)
  const validity = Buffer.from(rfc3339(eolMs))
  const ttlNs = BigInt(ttlMs) * 1_000_000n
  const data = cborOf(valueBytes, validity, sequence, ttlNs)
  const signature1 = key.sign(Buffer.concat([valueBytes, validity, Buffer.from('EOL')]))
  const signature2 = key.sign(Buffer.concat([Buffer.from('ipns-signature:'), data]))
  return Buffer.concat([
    bytesField(FIELD.VALUE, valueBytes),
    bytesField(FIELD.SIGNATURE_1, signature1),
    varintField(FIELD.VALIDITY_TYPE, 0n),
    bytesField(FIELD.VALIDITY, validity),
    varintField(FIELD.SEQUENCE, sequence),
    varintField(FIELD.TTL, ttlNs),
    bytesField(FIELD_2.SIGNATURE, signature2),
    bytesField(FIELD_2.DATA, data),
  ])
}

/** With nanoseconds, as everybody writes it. */
function rfc3339(ms: number): string {
  return new Date(ms).toISOString().replace('Z', '000000Z')
}

/** DAG-CBOR: keys in the order of their lengths, then of their bytes. */
function cborOf(value: Uint8Array, validity: Uint8Array, sequence: bigint, ttlNs: bigint): Buffer {
  const text = (key: string) => [cborHead(CBOR.TEXT, BigInt(key.length)), Buffer.from(key)]
  const bytes = (content: Uint8Array) => [cborHead(CBOR.BYTES, BigInt(content.length)), content]
  return Buffer.concat([
    cborHead(CBOR.MAP, 5n),
    ...[...text('TTL'), cborHead(CBOR.UINT, ttlNs)],
    ...[...text('Value'), ...bytes(value)],
    ...[...text('Sequence'), cborHead(CBOR.UINT, sequence)],
    ...[...text('Validity'), ...bytes(validity)],
    ...[...text('ValidityType'), cborHead(CBOR.UINT, 0n)],
  ])
}

function cborHead(major: number, value: bigint): Buffer {
  if (value < 24n) return Buffer.of(major | Number(value))
  const size = value < 0x100n ? 0 : value < 0x1_0000n ? 1 : value < 0x1_0000_0000n ? 2 : 3
  const head = Buffer.alloc(9)
  head.writeBigUInt64BE(value, 1)
  const bytes = head.subarray(9 - (1 << size))
  return Buffer.concat([Buffer.of(major | (24 + size)), bytes])
}

function bytesField(field: number, content: Uint8Array): Buffer {
  return Buffer.concat([varint(BigInt((field << 3) | 2)), varint(BigInt(content.length)), content])
}

function varintField(field: number, value: bigint): Buffer {
  return Buffer.concat([varint(BigInt(field << 3)), varint(value)])
}

function varint(value: bigint): Buffer {
  const bytes: number[] = []
  for (; value >= 0x80n; value >>= 7n) bytes.push(Number(value & 0x7fn) | 0x80)
  return Buffer.from([...bytes, Number(value)])
}

/** Whether `a` is to be believed rather than `b`: the later sequence, then the longer life. */
export function supersedes(
  a: Pick<RecordFields, 'sequence' | 'eolMs'>,
  b: Pick<RecordFields, 'sequence' | 'eolMs'>,
): boolean {
  return a.sequence === b.sequence ? a.eolMs > b.eolMs : a.sequence > b.sequence
}

/** One place that was to take a record; `error` null: it has. */
export interface PutOutcome {
  routing: string
  error: string | null
}

/** The error of a place that has neither taken a record nor refused it. */
export const UNDER_WAY = 'still under way'
