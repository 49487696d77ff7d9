/**
 * What others say of a name, believed only when its key has signed it.
 *
 * Invariant: what `verifyRecord` returns was signed by the key of the name, is not past its end, and its value is a
 * path that can stand in a symbolic link. Nothing in an envelope that the signature does not cover is used.
 *
 * Specification: https://specs.ipfs.tech/ipns/ipns-record/#record-verification
 */
import { multihashToIPNSRoutingKey, unmarshalIPNSRecord } from 'ipns'
import { ipnsValidator } from 'ipns/validator'
import { Digest } from '../core/cid.js'
import { CidfsError, messageOf } from '../core/errors.js'
import { parsePath } from './ipns-path.js'
import type { RecordFields } from './ipns-record.js'

const MAX_SEQUENCE = 2n ** 64n - 1n
/** When a record does not say. */
const DEFAULT_TTL_MS = 5 * 60_000

export interface VerifiedRecord extends RecordFields {
  bytes: Uint8Array
}

/**
 * The content of a record for the key with that multihash.
 * @throws CidfsError `BAD_BLOCK` that says what is wrong with it.
 */
export async function verifyRecord(multihash: Uint8Array, bytes: Uint8Array): Promise<VerifiedRecord> {
  try {
    const key = multihashToIPNSRoutingKey(Digest.decode(multihash) as Digest.Digest<0 | 0x12, number>)
    await ipnsValidator(key, bytes)
    return { ...fieldsOf(bytes), bytes: Uint8Array.from(bytes) }
  } catch (cause) {
    throw new CidfsError('BAD_BLOCK', messageOf(cause), { cause })
  }
}

function fieldsOf(bytes: Uint8Array): RecordFields {
  const { value, sequence, validity, ttl } = unmarshalIPNSRecord(bytes)
  const eolMs = Date.parse(validity)
  if (Number.isNaN(eolMs)) throw new Error('its end is no date')
  if (typeof sequence !== 'bigint' || sequence < 0n || sequence > MAX_SEQUENCE) {
    throw new Error('its sequence is no 64-bit number')
  }
  const { root, segments } = parsePath(value)
  return { value: [root, ...segments].join('/'), sequence, eolMs, ttlMs: ttlOf(ttl) }
}

function ttlOf(ttlNs: unknown): number {
  return typeof ttlNs === 'bigint' && ttlNs >= 0n ? Number(ttlNs / 1_000_000n) : DEFAULT_TTL_MS
}
