/** Peer ids and addresses as text, without loading libp2p. */
import { base58btc } from 'multiformats/bases/base58'
import * as Digest from 'multiformats/hashes/digest'
import { tryParseCid } from '../core/cid.js'

const LIBP2P_KEY = 0x72
const MIN_DIGEST_BYTES = 32
const MAX_LENGTH = 128

/**
 * A peer id as libp2p writes it: base58 of a multihash (`12D3Koo…`, `Qm…`), also when it is spelled as a CID
 * (`k51…`, `bafz…`). Undefined when the text is no peer id.
 */
export function peerIdText(text: string): string | undefined {
  if (text.length > MAX_LENGTH) return undefined
  if (!/^(1|Qm)/.test(text)) {
    const cid = tryParseCid(text)
    return cid?.code === LIBP2P_KEY ? base58btc.baseEncode(cid.multihash.bytes) : undefined
  }
  try {
    return Digest.decode(base58btc.baseDecode(text)).digest.length >= MIN_DIGEST_BYTES ? text : undefined
  } catch {
    return undefined
  }
}

/**
 * Whether an address is one for plain TCP, the only transport here. Records name many others, often first.
 */
export function isTcpAddress(text: string): boolean {
  return /^\/[^/]+\/[^/]+\/tcp\/\d+(\/p2p\/[^/]+)?$/.test(text)
}
