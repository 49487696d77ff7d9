/**
 * `cidfs ipns`: keys, publishing under them, where names lead.
 *
 * Invariant: a key leaves the daemon only when it is exported, and then over the control socket, which is its
 * owner's alone.
 */
import { tryParseCid } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { parseName } from '../p2p/ipns-name.js'
import { parsePath } from '../p2p/ipns-path.js'
import type {
  KeyReport,
  NameReport,
  NameRequests,
  NameResolution,
  PublishReport,
  PublishRequest,
  ResolveRequest,
} from './name-protocol.js'
import type { Naming } from './naming.js'

/** What a path of the mount has for a CID; null: none yet. */
type CidOf = (path: string) => Promise<{ cid: string | null; state: string }>

export class NameActions implements NameRequests {
  readonly #naming: Naming
  readonly #cidOf: CidOf

  constructor(naming: Naming, cidOf: CidOf) {
    this.#naming = naming
    this.#cidOf = cidOf
  }

  /** What is published under our keys. */
  published(): NameReport[] {
    const { publisher, directoryNames } = this.#naming
    return publisher
      .list()
      .map(published => ({ ...published, follows: directoryNames.pathOf(published.keyName) ?? null }))
  }

  /** @throws CidfsError `NOT_FOUND` (no such key), `INVALID`, `BUSY` (a path without CID), `INTERRUPTED`. */
  async publish({ key, target, isPath }: PublishRequest, signal: AbortSignal): Promise<PublishReport> {
    this.#naming.keys.get(key) // first: a path may take time
    const value = isPath ? await this.#valueOfPath(target) : valueOfTarget(target)
    return this.#naming.publisher.publish(key, value, signal)
  }

  async #valueOfPath(path: string): Promise<string> {
    const { cid, state } = await this.#cidOf(path)
    if (cid !== null) return `/ipfs/${cid}`
    throw new CidfsError('BUSY', `${path} has no CID yet: it is ${state}; cidfs wait waits for it`, { path })
  }

  /** @throws CidfsError `INVALID`; as `NameResolver.resolve`. */
  async resolve(request: ResolveRequest, signal: AbortSignal): Promise<NameResolution> {
    const text = request.name.replace(/^(?:ipns:\/\/|\/?ipns\/)/, '')
    const name = parseName(text) ?? this.#naming.keys.find(text)?.name
    if (name === undefined) {
      throw new CidfsError('INVALID', `${JSON.stringify(text)} is neither the name of a key nor a DNS name`)
    }
    if (request.refresh) await this.#naming.names.refresh(name, signal)
    const { path, state } = await this.#naming.names.resolve(name, { signal })
    return { name: name.text, path, state }
  }

  keys(): KeyReport[] {
    return this.#naming.keys.list().map(({ keyName, key }) => this.#report(keyName, key.name.text))
  }

  generateKey(keyName: string): KeyReport {
    return this.#report(keyName, this.#naming.keys.generate(keyName).name.text)
  }

  /** `file`: base64. */
  importKey(keyName: string, file: string): KeyReport {
    return this.#report(keyName, this.#naming.keys.import(keyName, Buffer.from(file, 'base64')).name.text)
  }

  /** The key in libp2p's protobuf, as base64. */
  exportKey(keyName: string): { file: string } {
    return { file: Buffer.from(this.#naming.keys.get(keyName).protobuf).toString('base64') }
  }

  /** @throws CidfsError `NOT_FOUND`, `INVALID`, `BUSY`: a directory follows it. */
  removeKey(keyName: string): KeyReport {
    const { keys, publisher, directoryNames } = this.#naming
    const path = directoryNames.pathOf(keyName)
    if (path !== undefined) {
      throw new CidfsError('BUSY', `${path} is published under ${keyName}: setfattr -x user.ipfs.key ${path}`)
    }
    const name = keys.remove(keyName).name.text
    publisher.forget(name)
    return this.#report(keyName, name)
  }

  #report(keyName: string, name: string): KeyReport {
    const { publisher, directoryNames } = this.#naming
    const value = publisher.publicationOf(name)?.value ?? null
    return { keyName, name, value, follows: directoryNames.pathOf(keyName) ?? null }
  }
}

/** @throws CidfsError `INVALID`. */
function valueOfTarget(target: string): string {
  const cid = tryParseCid(target)
  if (cid !== undefined) return `/ipfs/${cid}`
  try {
    const { root, segments } = parsePath(target.replace(/^(ipfs|ipns):\/\//, '/$1/'))
    return [root, ...segments].join('/')
  } catch (cause) {
    const allowed = 'a CID, /ipfs/<cid>/…, /ipns/<name>/…, or a path in the mount'
    throw new CidfsError('INVALID', `${JSON.stringify(target)} cannot be published: name ${allowed}`, {
      cause,
    })
  }
}
