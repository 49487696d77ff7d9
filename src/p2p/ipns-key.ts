/**
 * Private keys of names: Ed25519, in the encodings that Kubo and libp2p exchange them in.
 *
 * Invariant: what is exported can be imported by Kubo (`ipfs key import`), and the other way round. Nothing here
 * puts a key into a message: errors name the file's form, never its bytes.
 *
 * Specification: https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#keys, RFC 8410
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { CidfsError } from '../core/errors.js'
import { ed25519Name, type KeyName } from './ipns-name.js'

/** Type 1 (Ed25519), 64 bytes of data: the seed and the public key. */
const PROTOBUF_HEAD = Uint8Array.of(0x08, 0x01, 0x12, 0x40)
const SEED_BYTES = 32
/** PKCS #8 of an Ed25519 key, up to its seed. */
const PKCS8_HEAD = Buffer.from('302e020100300506032b657004220420', 'hex')

export interface NameKey {
  readonly name: KeyName
  sign(bytes: Uint8Array): Uint8Array
  /** A PrivateKey of libp2p. */
  readonly protobuf: Uint8Array
}

export function generateKey(): NameKey {
  return fromKeyObject(generateKeyPairSync('ed25519').privateKey)
}

/**
 * The key in a file: libp2p's protobuf, or PEM (PKCS #8).
 * @throws CidfsError `INVALID`.
 */
export function decodeKey(file: Uint8Array): NameKey {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength)
  if (bytes.subarray(0, 11).toString('latin1') === '-----BEGIN ') return fromPem(bytes)
  if (Buffer.compare(bytes.subarray(0, PROTOBUF_HEAD.length), PROTOBUF_HEAD) !== 0) throw notAKey(undefined)
  const seed = bytes.subarray(PROTOBUF_HEAD.length, PROTOBUF_HEAD.length + SEED_BYTES)
  const key = seed.length === SEED_BYTES ? fromSeed(seed) : undefined
  // the public half stands in it, too: they have to belong together
  if (key === undefined || Buffer.compare(key.protobuf, bytes) !== 0) throw notAKey(undefined)
  return key
}

function fromSeed(seed: Uint8Array): NameKey {
  const key = Buffer.concat([PKCS8_HEAD, seed])
  return fromKeyObject(createPrivateKey({ key, format: 'der', type: 'pkcs8' }))
}

function fromPem(key: Buffer): NameKey {
  try {
    return fromKeyObject(createPrivateKey(key))
  } catch (cause) {
    throw cause instanceof CidfsError ? cause : notAKey(cause)
  }
}

function fromKeyObject(key: KeyObject): NameKey {
  if (key.asymmetricKeyType !== 'ed25519') throw notAKey(undefined)
  const seed = key.export({ format: 'der', type: 'pkcs8' }).subarray(-SEED_BYTES)
  const publicKey = createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-SEED_BYTES)
  return {
    name: ed25519Name(publicKey),
    sign: bytes => sign(null, bytes, key),
    protobuf: Buffer.concat([PROTOBUF_HEAD, seed, publicKey]),
  }
}

function notAKey(cause: unknown): CidfsError {
  const forms = 'as `ipfs key export` writes it, or PEM (PKCS #8, not encrypted)'
  return new CidfsError('INVALID', `that is no Ed25519 private key: it has to be one ${forms}`, { cause })
}
