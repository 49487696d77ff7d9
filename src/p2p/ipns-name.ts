/**
 * Names below `/ipns/`: keys in every spelling, and DNS names.
 *
 * Invariant: every spelling of one name has the same `text`, which is what caches, records and listings go by:
 * base36 of a CIDv1 for keys, lower case for DNS.
 *
 * Specification: https://specs.ipfs.tech/ipns/ipns-record/#ipns-name, https://dnslink.dev
 */
import { base36 } from 'multiformats/bases/base36'
import { base58btc } from 'multiformats/bases/base58'
import { CID, Digest, HASH_IDENTITY, HASH_SHA2_256, tryParseCid } from '../core/cid.js'

export type Name = KeyName | DnsName

export interface KeyName {
  readonly kind: 'key'
  readonly text: string
  /** Of the public key: itself (identity) or its SHA-256. */
  readonly multihash: Uint8Array
}

export interface DnsName {
  readonly kind: 'dns'
  readonly text: string
}

/** What the multicodec table calls `libp2p-key`. */
const CODEC_LIBP2P_KEY = 0x72
/** A key of up to this many bytes is in its name as it is; larger ones by their hash. */
const MAX_INLINE_KEY_BYTES = 42
const MAX_DNS_BYTES = 253
const DNS_LABEL = /^(?!-)[a-z0-9_-]{1,63}(?<!-)$/

/** The name that `text` spells; undefined: it is none. */
export function parseName(text: string): Name | undefined {
  const multihash = keyMultihash(text)
  if (multihash !== undefined) return keyName(multihash)
  const lower = text.toLowerCase()
  return isDnsName(lower) ? { kind: 'dns', text: lower } : undefined
}

/** The name of the key whose multihash that is. */
export function keyName(multihash: Uint8Array): KeyName {
  const cid = CID.createV1(CODEC_LIBP2P_KEY, Digest.decode(multihash))
  return { kind: 'key', text: cid.toString(base36), multihash }
}

/** The name of an Ed25519 key. */
export function ed25519Name(publicKey: Uint8Array): KeyName {
  return keyName(Digest.create(HASH_IDENTITY, Buffer.concat([ED25519_PUBLIC, publicKey])).bytes)
}

/** A public key of libp2p: type 1 (Ed25519), 32 bytes of data. */
const ED25519_PUBLIC = Uint8Array.of(0x08, 0x01, 0x12, 0x20)

function keyMultihash(text: string): Uint8Array | undefined {
  if (/^(?:Qm|1)/.test(text)) return peerIdMultihash(text)
  const cid = tryParseCid(text)
  return cid?.code === CODEC_LIBP2P_KEY && isKeyHash(cid.multihash) ? cid.multihash.bytes : undefined
}

/** A peer id as it was written before CIDs: the bare multihash in base58. */
function peerIdMultihash(text: string): Uint8Array | undefined {
  try {
    const digest = Digest.decode(base58btc.baseDecode(text))
    return isKeyHash(digest) ? digest.bytes : undefined
  } catch {
    return undefined
  }
}

function isKeyHash({ code, digest }: { code: number; digest: Uint8Array }): boolean {
  if (code === HASH_SHA2_256) return digest.length === 32
  // a protobuf that begins with the type of the key
  return code === HASH_IDENTITY && digest.length <= MAX_INLINE_KEY_BYTES && digest[0] === 0x08
}

function isDnsName(text: string): boolean {
  const labels = text.split('.')
  return text.length <= MAX_DNS_BYTES && labels.length > 1 && labels.every(label => DNS_LABEL.test(label))
}
