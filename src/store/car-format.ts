/**
 * The CAR format as bytes: headers and section heads. Used by packs, import and export alike.
 *
 * Invariant: lengths found in the bytes are checked against the limits before anybody allocates by them.
 * Why not `@ipld/car` for sections: it buffers whatever length a section claims, awaits four times a block and
 * does not tell positions. It does the header, which is DAG-CBOR.
 *
 * Specification: https://ipld.io/specs/transport/car/carv1/ and .../carv2/
 */
import { createWriter, headerLength } from '@ipld/car/buffer-writer'
import { bytesReader, readHeader } from '@ipld/car/decoder'
import { CID } from '../core/cid.js'
import { CidfsError, messageOf } from '../core/errors.js'
import { MAX_BLOCK_BYTES, MAX_DIGEST_BYTES } from '../core/limits.js'

/** Version, codec, hash code and digest length are varints of at most 9 bytes each. */
export const MAX_CID_BYTES = 4 * 9 + MAX_DIGEST_BYTES
const MAX_VARINT_BYTES = 9
/** Bytes from the start of a section that surely hold its length and CID. */
export const MAX_SECTION_HEAD_BYTES = MAX_VARINT_BYTES + MAX_CID_BYTES

/** What precedes the bytes of a block in a CAR. All lengths are bytes. */
export interface SectionHead {
  /** Shares memory with the decoded bytes. */
  cid: CID
  /** Of the head itself: the block begins this far into the section. */
  headLength: number
  blockLength: number
}

export interface Varint {
  value: number
  /** Bytes it takes. */
  length: number
}

/**
 * An unsigned LEB128 number at `offset`; undefined when the bytes end before it does.
 * @throws CidfsError `BAD_CAR` above 2^53.
 */
export function decodeVarint(bytes: Uint8Array, offset: number): Varint | undefined {
  let value = 0
  let factor = 1
  for (let length = 1; length <= MAX_VARINT_BYTES; length++, factor *= 128) {
    const byte = bytes[offset + length - 1]
    if (byte === undefined) return undefined
    value += (byte & 0x7f) * factor
    if (value > Number.MAX_SAFE_INTEGER) break
    if (byte < 0x80) return { value, length }
  }
  throw new CidfsError('BAD_CAR', 'a length is not a number below 2^53')
}

function varintLength(value: number): number {
  let length = 1
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 128)) length++
  return length
}

/** Length and CID that precede a block of `blockLength` bytes. */
export function encodeSectionHead(cid: CID, blockLength: number): Uint8Array {
  const cidBytes = cid.bytes
  let rest = cidBytes.length + blockLength
  const lengthBytes = varintLength(rest)
  const head = new Uint8Array(lengthBytes + cidBytes.length)
  let at = 0
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) head[at++] = (rest % 128) | 0x80
  head[at] = rest
  head.set(cidBytes, lengthBytes)
  return head
}

/**
 * The head of the section at `offset`; undefined when the bytes end before it does.
 * @throws CidfsError `BAD_CAR` for what is no section, or one with a block above the limit.
 */
export function decodeSectionHead(bytes: Uint8Array, offset: number): SectionHead | undefined {
  const section = decodeVarint(bytes, offset)
  if (section === undefined) return undefined
  if (section.value === 0) throw new CidfsError('BAD_CAR', 'a section has no length')
  const start = offset + section.length
  const wanted = Math.min(section.value, MAX_CID_BYTES)
  if (section.value > MAX_BLOCK_BYTES + MAX_CID_BYTES) throw blockTooLarge(section.value)
  if (bytes.length - start < wanted) return undefined
  const cid = decodeCid(bytes.subarray(start, start + wanted))
  const headLength = section.length + cid.byteLength
  const blockLength = section.value - cid.byteLength
  if (blockLength > MAX_BLOCK_BYTES) throw blockTooLarge(blockLength, cid)
  return { cid, headLength, blockLength }
}

function blockTooLarge(length: number, cid?: CID): CidfsError {
  const what = cid === undefined ? 'a section' : `block ${cid}`
  return new CidfsError('BAD_CAR', `${what} of ${length} bytes is larger than ${MAX_BLOCK_BYTES} bytes`)
}

function decodeCid(bytes: Uint8Array): CID {
  try {
    const [cid] = CID.decodeFirst(bytes)
    if (cid.multihash.digest.length <= MAX_DIGEST_BYTES) return cid
  } catch (cause) {
    throw new CidfsError('BAD_CAR', `a section does not begin with a CID: ${messageOf(cause)}`, { cause })
  }
  throw new CidfsError('BAD_CAR', `a CID has a digest above ${MAX_DIGEST_BYTES} bytes`)
}

/** The header of a CARv1 with these roots, its length in front. */
export function encodeHeader(roots: CID[]): Uint8Array {
  return createWriter(new ArrayBuffer(headerLength({ roots })), { roots }).close()
}

/**
 * The roots of a CARv1 header, which `bytes` are, its length in front.
 * @throws CidfsError `BAD_CAR`.
 */
export async function decodeHeader(bytes: Uint8Array): Promise<CID[]> {
  try {
    const header = await readHeader(bytesReader(bytes), 1)
    if (header.version !== 1) throw new Error(`version ${header.version}`)
    return header.roots.map(root => CID.decode(root.bytes))
  } catch (cause) {
    throw new CidfsError('BAD_CAR', `not a CAR file: ${messageOf(cause)}`, { cause })
  }
}

/** The first bytes of every CARv2: a CARv1 header that says version 2. */
export const CARV2_PRAGMA = Uint8Array.of(0x0a, 0xa1, 0x67, 0x76, 0x65, 0x72, 0x73, 0x69, 0x6f, 0x6e, 0x02)
/** Characteristics (16 bytes), then offset and size of the CARv1 inside, then offset of the index. */
export const CARV2_HEADER_BYTES = 40

/**
 * Where the CARv1 inside a CARv2 lies, counted from the start of the file.
 * @throws CidfsError `BAD_CAR`.
 */
export function decodeCarV2Header(bytes: Uint8Array): { dataOffset: number; dataSize: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, CARV2_HEADER_BYTES)
  const dataOffset = Number(view.getBigUint64(16, true))
  const dataSize = Number(view.getBigUint64(24, true))
  const first = CARV2_PRAGMA.length + CARV2_HEADER_BYTES
  if (dataOffset < first || !Number.isSafeInteger(dataOffset + dataSize)) {
    throw new CidfsError(
      'BAD_CAR',
      `CARv2 header points at impossible data (byte ${dataOffset}, ${dataSize} bytes)`,
    )
  }
  if (dataSize === 0) throw new CidfsError('BAD_CAR', 'CARv2 holds no data: its writer did not finish')
  return { dataOffset, dataSize }
}
