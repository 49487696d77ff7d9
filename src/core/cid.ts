/**
 * CIDs as the rest of the program uses them: parsing in every spelling, keys, and verification.
 *
 * Invariant: a block is identified by its multihash alone; codec and version only say how to read it. So
 * `keyOf` of two CIDs is equal exactly when they name the same bytes under the same hash function.
 * Why: Kubo, and every CAR that stores dag-pb under raw CIDs, finds blocks that way.
 *
 * Specification: https://github.com/multiformats/cid
 */
import { createHash } from 'node:crypto'
import { blake2b } from '@noble/hashes/blake2.js'
import { bases } from 'multiformats/basics'
import { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'
import { CidfsError } from './errors.js'
import { MAX_BLOCK_BYTES, MAX_DIGEST_BYTES, MAX_IDENTITY_BYTES, MIN_DIGEST_BYTES } from './limits.js'

export { CID, Digest }

export const CODEC_RAW = 0x55
export const CODEC_DAG_PB = 0x70
export const HASH_IDENTITY = 0x00
export const HASH_SHA2_256 = 0x12
export const HASH_SHA2_512 = 0x13
export const HASH_BLAKE2B_256 = 0xb220

/** Multibase prefix to decoder, for every base `multiformats` knows. */
const decoders = new Map(Object.values(bases).map(base => [base.prefix as string, base.decoder]))

/**
 * The CID that `text` spells, version 0 or 1, any multibase.
 * @throws CidfsError `MALFORMED_CID`, `UNSUPPORTED_HASH` never: whether a hash can be verified is asked later.
 */
export function parseCid(text: string): CID {
  try {
    if (text.startsWith('Qm') && text.length === 46) return CID.parse(text)
    const decoder = decoders.get(firstCharacter(text))
    if (decoder === undefined) throw new Error('unknown multibase')
    const cid = CID.decode((decoder.decode as (text: string) => Uint8Array)(text))
    checkDigestLength(cid)
    return cid
  } catch (cause) {
    throw new CidfsError('MALFORMED_CID', `not a CID: ${JSON.stringify(text)}`, { cause })
  }
}

/** As `parseCid`, but undefined instead of an error. */
export function tryParseCid(text: string): CID | undefined {
  try {
    return parseCid(text)
  } catch {
    return undefined
  }
}

/** The multibase prefix; base256emoji has one that is two UTF-16 units wide. */
function firstCharacter(text: string): string {
  return String.fromCodePoint(text.codePointAt(0) ?? 0)
}

function checkDigestLength(cid: CID): void {
  const { code, digest } = cid.multihash
  const [min, max] = code === HASH_IDENTITY ? [0, MAX_IDENTITY_BYTES] : [MIN_DIGEST_BYTES, MAX_DIGEST_BYTES]
  if (digest.length < min || digest.length > max) throw new Error(`digest of ${digest.length} bytes`)
}

/** Map key of the block a CID names: its multihash as a binary string. */
export function keyOf(cid: CID): string {
  return binaryString(cid.multihash.bytes)
}

/** Bytes as a string of code points 0 to 255, for use as a Map key. */
export function binaryString(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
}

/** Whether the bytes are in the CID itself. */
export function isIdentity(cid: CID): boolean {
  return cid.multihash.code === HASH_IDENTITY
}

/** Whether `verify` knows the hash function of a CID. */
export function canVerify(cid: CID): boolean {
  return hashers.has(cid.multihash.code)
}

/**
 * Whether `bytes` are the block that `cid` names.
 * @throws CidfsError `UNSUPPORTED_HASH`.
 */
export function verify(cid: CID, bytes: Uint8Array): boolean {
  const { code, digest } = cid.multihash
  const hash = hashers.get(code)
  if (hash === undefined) {
    throw new CidfsError('UNSUPPORTED_HASH', `hash function 0x${code.toString(16)} is not supported`, {
      cid: cid.toString(),
    })
  }
  if (bytes.length > MAX_BLOCK_BYTES) return false
  return Buffer.compare(hash(bytes), digest) === 0
}

/** The digest of `bytes` under a hash function by its multicodec number; undefined when it is not supported. */
export function digestOf(code: number, bytes: Uint8Array): Uint8Array | undefined {
  return hashers.get(code)?.(bytes)
}

const hashers = new Map<number, (bytes: Uint8Array) => Uint8Array>([
  [HASH_IDENTITY, bytes => bytes],
  [HASH_SHA2_256, bytes => createHash('sha256').update(bytes).digest()],
  [HASH_SHA2_512, bytes => createHash('sha512').update(bytes).digest()],
  [HASH_BLAKE2B_256, bytes => blake2b(bytes, { dkLen: 32 })],
])

/** CIDv1 of bytes under SHA-256. */
export function cidOf(codec: number, bytes: Uint8Array): CID {
  return cidFromSha256(codec, createHash('sha256').update(bytes).digest())
}

/** CIDv1 from a SHA-256 digest of 32 bytes. */
export function cidFromSha256(codec: number, digest: Uint8Array): CID {
  return CID.createV1(codec, Digest.create(HASH_SHA2_256, digest))
}
