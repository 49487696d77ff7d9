/**
 * The keys that names are published under, in `keys/` of the state directory; `self` is that of the node.
 *
 * Invariant: readable by their owner only, written whole or not at all, never overwritten. A key that is removed is
 * gone: nobody can publish under its name any more.
 */
import * as fs from 'node:fs'
import { join } from 'node:path'
import { CidfsError, messageOf } from '../core/errors.js'
import { decodeKey, generateKey, type NameKey } from '../p2p/ipns-key.js'
import { syncDirectorySync } from '../store/state-directory.js'

/** The name of the node's own key. */
export const SELF = 'self'
/** Where the network worker keeps it, in the state directory. */
const SELF_FILE = 'node.key'
const SUFFIX = '.key'
/** Neither a path nor an option, nor what could be mistaken for a temporary file. */
const KEY_NAME = /^[A-Za-z0-9_][A-Za-z0-9._@+-]{0,99}$/
const MAX_FILE_BYTES = 64 * 1024

export interface NamedKey {
  keyName: string
  key: NameKey
}

export class NameKeys {
  readonly #stateDir: string
  readonly #dir: string
  readonly #loaded = new Map<string, NameKey>()

  constructor(stateDir: string) {
    this.#stateDir = stateDir
    this.#dir = join(stateDir, 'keys')
  }

  /** Every key, `self` first. @throws CidfsError `STORE_DAMAGED`: one of the files is no key. */
  list(): NamedKey[] {
    return this.names().flatMap(keyName => {
      const key = this.find(keyName)
      return key === undefined ? [] : [{ keyName, key }]
    })
  }

  names(): string[] {
    const files = fs.existsSync(this.#dir) ? fs.readdirSync(this.#dir) : []
    const names = files.filter(file => file.endsWith(SUFFIX)).map(file => file.slice(0, -SUFFIX.length))
    return [...(fs.existsSync(this.#pathOf(SELF)) ? [SELF] : []), ...names.sort()]
  }

  /** @throws CidfsError `NOT_FOUND`, `STORE_DAMAGED`. */
  get(keyName: string): NameKey {
    const key = keyName === SELF ? this.#self() : this.find(keyName)
    if (key !== undefined) return key
    const hint = KEY_NAME.test(keyName) ? `; cidfs ipns key gen ${keyName} makes one` : ''
    throw new CidfsError('NOT_FOUND', `there is no key ${JSON.stringify(keyName)}${hint}`)
  }

  /** @throws CidfsError `STORE_DAMAGED`: the file is no key. */
  find(keyName: string): NameKey | undefined {
    const known = this.#loaded.get(keyName)
    if (known !== undefined || !KEY_NAME.test(keyName)) return known
    const bytes = readIfExists(this.#pathOf(keyName))
    if (bytes === undefined) return undefined
    const key = decoded(bytes, this.#pathOf(keyName))
    this.#loaded.set(keyName, key)
    return key
  }

  /** @throws CidfsError `EXISTS`, `INVALID`. */
  generate(keyName: string): NameKey {
    return this.#store(keyName, generateKey())
  }

  /** @throws CidfsError `EXISTS`, `INVALID`: the name, or the file is no key of ours. */
  import(keyName: string, file: Uint8Array): NameKey {
    if (file.length > MAX_FILE_BYTES) throw new CidfsError('INVALID', 'the file is too large to be a key')
    return this.#store(keyName, decodeKey(file))
  }

  /** @throws CidfsError `NOT_FOUND`, `INVALID`. */
  remove(keyName: string): NameKey {
    if (keyName === SELF) throw new CidfsError('INVALID', 'the key of the node itself cannot be removed')
    const key = this.get(keyName)
    fs.unlinkSync(this.#pathOf(keyName))
    syncDirectorySync(this.#dir)
    this.#loaded.delete(keyName)
    return key
  }

  /** The worker makes it when the node starts; whoever is first. */
  #self(): NameKey {
    const path = this.#pathOf(SELF)
    if (!fs.existsSync(path)) writeNew(this.#stateDir, path, generateKey().protobuf)
    return this.find(SELF)!
  }

  #store(keyName: string, key: NameKey): NameKey {
    if (!KEY_NAME.test(keyName)) {
      throw new CidfsError(
        'INVALID',
        `${JSON.stringify(keyName)} cannot name a key: use letters, digits and ._@+-`,
      )
    }
    if (keyName === SELF || fs.existsSync(this.#pathOf(keyName))) throw taken(keyName)
    const same = this.list().find(known => known.key.name.text === key.name.text)
    if (same !== undefined) throw new CidfsError('EXISTS', `that key is here already, as ${same.keyName}`)
    fs.mkdirSync(this.#dir, { recursive: true, mode: 0o700 })
    if (!writeNew(this.#dir, this.#pathOf(keyName), key.protobuf)) throw taken(keyName)
    this.#loaded.set(keyName, key)
    return key
  }

  #pathOf(keyName: string): string {
    return keyName === SELF ? join(this.#stateDir, SELF_FILE) : join(this.#dir, keyName + SUFFIX)
  }
}

function taken(keyName: string): CidfsError {
  return new CidfsError('EXISTS', `there is a key ${JSON.stringify(keyName)} already`)
}

function decoded(bytes: Uint8Array, path: string): NameKey {
  try {
    return decodeKey(bytes)
  } catch (cause) {
    throw new CidfsError('STORE_DAMAGED', `${path}: ${messageOf(cause)}`, { path, cause })
  }
}

function readIfExists(path: string): Buffer | undefined {
  try {
    return fs.readFileSync(path)
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw err
  }
}

/** Whole, on disk and private before it has its name; false when that is taken. */
function writeNew(dir: string, path: string, bytes: Uint8Array): boolean {
  const temporary = join(dir, `.${process.pid}.new`)
  try {
    fs.writeFileSync(temporary, bytes, { mode: 0o600, flush: true })
    fs.linkSync(temporary, path)
    syncDirectorySync(dir)
    return true
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw err
  } finally {
    fs.rmSync(temporary, { force: true })
  }
}
