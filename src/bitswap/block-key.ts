/**
 * Which block a message speaks of: map keys from CIDs as they came, and from blocks by hashing them.
 *
 * Invariant: the key is that of `keyOf`: of the multihash alone, so that a block answers a want whatever codec and
 * version either side wrote. Nothing here throws, whatever the bytes.
 */
import { binaryString, digestOf, HASH_IDENTITY, HASH_SHA2_256 } from '../core/cid.js'
import { MAX_DIGEST_BYTES } from '../core/limits.js'

const SHA2_256_LENGTH = 32

/** The key of the block that a CID names; undefined when the bytes are no CID. */
export function keyOfCidBytes(cid: Uint8Array): string | undefined {
  if (cid.length === 34 && cid[0] === HASH_SHA2_256 && cid[1] === SHA2_256_LENGTH) return binaryString(cid)
  const cursor = { at: 0 }
  if (varint(cid, cursor) !== 1 || varint(cid, cursor) === undefined) return undefined
  const multihash = cursor.at
  const code = varint(cid, cursor)
  const length = varint(cid, cursor)
  if (code === undefined || length === undefined || length > MAX_DIGEST_BYTES) return undefined
  return cid.length - cursor.at === length ? binaryString(cid.subarray(multihash)) : undefined
}

/**
 * The key of a block that came with a prefix (a CID without its digest), by hashing it.
 * Undefined when the prefix is none, or names a hash function that is not supported.
 */
export function keyOfBlock(prefix: Uint8Array | undefined, bytes: Uint8Array): string | undefined {
  if (prefix === undefined) return hashedKey(V0_HEAD, HASH_SHA2_256, SHA2_256_LENGTH, bytes)
  const cursor = { at: 0 }
  const version = varint(prefix, cursor)
  if (version === undefined || version > 1 || varint(prefix, cursor) === undefined) return undefined
  const multihash = cursor.at
  const code = varint(prefix, cursor)
  const length = varint(prefix, cursor)
  if (code === undefined || code === HASH_IDENTITY || length === undefined) return undefined
  if (cursor.at !== prefix.length) return undefined
  return hashedKey(prefix.subarray(multihash), code, length, bytes)
}

const V0_HEAD = Uint8Array.of(HASH_SHA2_256, SHA2_256_LENGTH)

function hashedKey(head: Uint8Array, code: number, length: number, bytes: Uint8Array): string | undefined {
  const digest = digestOf(code, bytes)
  if (digest === undefined || digest.length !== length) return undefined
  return binaryString(head) + binaryString(digest)
}

/** The prefix that goes with a block: its CID without the digest. */
export function prefixOf(cid: { bytes: Uint8Array; multihash: { digest: Uint8Array }; version: number }) {
  if (cid.version === 0) return V0_PREFIX
  return cid.bytes.subarray(0, cid.bytes.length - cid.multihash.digest.length)
}

/** Version 0, dag-pb, sha2-256, 32 bytes: what go-cid writes for a CID of version 0. */
const V0_PREFIX = Uint8Array.of(0, 0x70, HASH_SHA2_256, SHA2_256_LENGTH)

/** An unsigned varint of up to 2^53, in its shortest form; moves the cursor. */
function varint(bytes: Uint8Array, cursor: { at: number }): number | undefined {
  let value = 0
  for (let scale = 1; scale < 2 ** 49; scale *= 128) {
    const byte = bytes[cursor.at++]
    if (byte === undefined) return undefined
    value += (byte & 0x7f) * scale
    if (byte < 0x80) return byte === 0 && scale > 1 ? undefined : value
  }
  return undefined
}
