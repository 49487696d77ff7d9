/**
 * `ipns/`: names as symbolic links to `../ipfs/<cid>…`.
 *
 * Invariant: a name is there exactly when it leads somewhere: what cannot be a name, or is proven to lead nowhere,
 * does not exist; what cannot be resolved in time is an error. The kernel keeps a name for a second at most, so
 * the next `open` sees where it leads by then.
 * Why `lookup` waits and not `readlink`: only then can `test -e` say no.
 */
import { CidfsError, codeOf } from '../core/errors.js'
import { type MaybePromise, then } from '../core/maybe-promise.js'
import { parseName } from '../p2p/ipns-name.js'
import type { NameResolver, Resolved } from '../sources/names.js'
import type { Store } from '../store/store.js'
import { attributeKey } from './content-xattrs.js'
import type {
  Attributes,
  Context,
  DirectorySink,
  Entry,
  Fh,
  Ino,
  NegativeEntry,
  Opened,
} from './file-system.js'
import { IPNS_INO, ROOT_INO } from './ino.js'
import { type LinkNode, LinkNodes } from './link-nodes.js'
import { type ListedEntry, listFixed } from './listing.js'
import { NodeErrors } from './node-errors.js'
import { DT_LNK, FOREVER_MS, plainAttributes, ReadOnlyTree, S_IFDIR, S_IFLNK } from './tree.js'

export interface IpnsTreeParts {
  store: Store
  names: NameResolver
  resume: boolean
}

const ENTRY_TTL_MS = 1_000
const ABSENT: NegativeEntry = { attributes: undefined, entryTtlMs: 0 }
const NO_NAME: NegativeEntry = { attributes: undefined, entryTtlMs: FOREVER_MS }

export class IpnsTree extends ReadOnlyTree {
  readonly #names: NameResolver
  readonly #nodes: LinkNodes
  readonly #errors = new NodeErrors()
  /** What each open of the directory lists. */
  readonly #listings = new Map<Fh, ListedEntry[]>()
  /** Above those of an earlier daemon, whose listings may still be open. */
  #nextFh = Date.now()

  constructor({ store, names, resume }: IpnsTreeParts) {
    super()
    this.#names = names
    this.#nodes = new LinkNodes(store, resume)
  }

  override lookup(parent: Ino, bytes: Uint8Array, ctx: Context): MaybePromise<Entry | NegativeEntry> {
    if (parent !== IPNS_INO) throw new CidfsError('NOT_DIRECTORY', 'a name is a symbolic link')
    const text = Buffer.from(bytes).toString()
    const name = parseName(text)
    if (name === undefined) return NO_NAME
    const options = {
      get signal() {
        return ctx.signal
      },
    }
    return this.#errors.watch(parent, () => {
      const resolved = orAbsent(() => this.#names.resolve(name, options))
      return then(resolved, found => (found === undefined ? ABSENT : this.#entry(text, found)))
    })
  }

  #entry(name: string, { path, ttlMs }: Resolved): Entry {
    const attributes = attributesOf(this.#nodes.lookup(name, `..${path}`))
    return { attributes, entryTtlMs: Math.min(ENTRY_TTL_MS, ttlMs), attributesTtlMs: FOREVER_MS }
  }

  override forget(ino: Ino, count: number): void {
    this.#nodes.forget(ino, count)
  }

  override getattr(ino: Ino): { attributes: Attributes; ttlMs: number } {
    if (ino !== IPNS_INO) return { attributes: attributesOf(this.#nodes.get(ino)), ttlMs: FOREVER_MS }
    return { attributes: plainAttributes(ino, S_IFDIR | 0o555, 0), ttlMs: FOREVER_MS }
  }

  override readlink(ino: Ino): Uint8Array {
    if (ino === IPNS_INO) throw new CidfsError('INVALID', 'not a symbolic link')
    return Buffer.from(this.#nodes.get(ino).target)
  }

  override opendir(): Opened {
    const fh = this.#nextFh++
    this.#listings.set(fh, this.#list())
    return { fh }
  }

  /** What is known without asking anybody. */
  #list(): ListedEntry[] {
    const entries: ListedEntry[] = []
    for (const text of this.#names.cache.names()) {
      const resolved = this.#lastKnown(text)
      if (resolved === undefined) continue
      entries.push({
        name: Buffer.from(text),
        ino: this.#nodes.inoOf(text, `..${resolved.path}`),
        type: DT_LNK,
      })
    }
    return entries
  }

  #lastKnown(text: string): Resolved | undefined {
    const name = parseName(text)
    try {
      return name && this.#names.peek(name)
    } catch {
      return undefined // names that lead to one another
    }
  }

  override readdir(_ino: Ino, fh: Fh, offset: number, plus: boolean, sink: DirectorySink): void {
    listFixed(IPNS_INO, ROOT_INO, this.#listings.get(fh) ?? this.#list(), offset, plus, sink)
  }

  override releasedir(_ino: Ino, fh: Fh): void {
    this.#listings.delete(fh)
  }

  override getxattr(ino: Ino, attribute: string): Uint8Array {
    const value =
      ino === IPNS_INO ? this.#errorOf(attribute) : this.#attribute(this.#nodes.get(ino), attribute)
    if (value === undefined) throw new CidfsError('NO_ATTRIBUTE', 'no such attribute')
    return Buffer.from(value)
  }

  #errorOf(attribute: string): string | undefined {
    return attributeKey(attribute) === 'error' ? this.#errors.get(IPNS_INO) : undefined
  }

  #attribute({ name }: LinkNode, attribute: string): string | undefined {
    switch (attributeKey(attribute)) {
      case 'state':
        return this.#lastKnown(name)?.state
      case 'error':
        return this.#names.lastError(parseName(name)!.text)
    }
    return undefined
  }

  override listxattr(ino: Ino): string[] {
    return ino === IPNS_INO && this.#errors.get(IPNS_INO) !== undefined ? ['user.ipfs.error'] : []
  }
}

function attributesOf({ ino, target }: LinkNode): Attributes {
  return plainAttributes(ino, S_IFLNK | 0o777, Buffer.byteLength(target))
}

/** Undefined for what is proven to lead nowhere. */
function orAbsent<T>(work: () => MaybePromise<T>): MaybePromise<T | undefined> {
  const absent = (err: unknown) => {
    if (codeOf(err) === 'NOT_FOUND') return undefined
    throw err
  }
  try {
    const result = work()
    return result instanceof Promise ? result.catch(absent) : result
  } catch (err) {
    return absent(err)
  }
}
