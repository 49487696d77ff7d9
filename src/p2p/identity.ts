/**
 * The key of the node, which its peer id comes from.
 *
 * Invariant: made once per state directory, readable by its owner only, never overwritten: a file that is not a key
 * is an error, since another identity would silently make pins and names unreachable.
 *
 * Format: a `PrivateKey` of libp2p in protobuf (Ed25519 when made here), as `ipfs key export` writes it.
 * Specification: https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md
 */
import { randomUUID } from 'node:crypto'
import { link, open, readFile, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { generateKeyPair, privateKeyFromProtobuf, privateKeyToProtobuf } from '@libp2p/crypto/keys'
import type { PrivateKey } from '@libp2p/interface'
import { CidfsError } from '../core/errors.js'

/** Name of the file in the state directory. */
export const KEY_FILE = 'node.key'

/** @throws CidfsError `STORE_DAMAGED` when the file is there and is no key. */
export async function loadOrCreateKey(stateDir: string): Promise<PrivateKey> {
  const path = join(stateDir, KEY_FILE)
  return (await load(path)) ?? (await create(path)) ?? (await load(path)) ?? damaged(path)
}

async function load(path: string): Promise<PrivateKey | undefined> {
  let bytes: Uint8Array
  try {
    bytes = await readFile(path)
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw err
  }
  try {
    return privateKeyFromProtobuf(bytes)
  } catch {
    return damaged(path)
  }
}

/** Undefined when another thread was faster. A crash leaves the whole key, or none. */
async function create(path: string): Promise<PrivateKey | undefined> {
  const key = await generateKeyPair('Ed25519')
  const temporary = `${path}.${randomUUID()}`
  const file = await open(temporary, 'w', 0o600)
  try {
    await file.writeFile(privateKeyToProtobuf(key))
    await file.sync()
    await link(temporary, path)
    return key
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'EEXIST') return undefined
    throw err
  } finally {
    await file.close()
    await unlink(temporary)
  }
}

function damaged(path: string): never {
  throw new CidfsError(
    'STORE_DAMAGED',
    `${path} is not a private key of libp2p; put it right, or move it away`,
    {
      path,
    },
  )
}
