/**
 * The immutable nodes that the kernel knows.
 *
 * Invariant: an id is in the database before the kernel learns of it, and stays there until the kernel forgets
 * it or the mount ends; what else there is to know follows from the CID. The memory holds those in use.
 * Why: a daemon that takes over a mount answers requests about every id that was ever handed out.
 */
import type { Database } from 'lmdb'
import { CID } from '../core/cid.js'
import { CidfsError, codeOf, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { Store } from '../store/store.js'
import type { Inspected } from '../unixfs/inspect.js'
import type { Ino } from './file-system.js'
import { nextIno } from './ino.js'

const log = logger('fs:nodes')

export interface ImmutableNode {
  readonly ino: Ino
  readonly cid: CID
  /** What the link said the size is, for raw blocks that are not held. */
  readonly hintBytes: number
  /** Of a directory: the one above, for `..`. */
  readonly parent: Ino
  /** What the root block says; undefined until it was read. */
  inspected: Inspected | undefined
  /** The kernel was told another size than the true one, and may still go by it. */
  resized?: boolean
  /** How often the kernel was given the id and did not give it back. */
  nlookup: number
}

interface StoredNode {
  cid: Uint8Array
  hint: number
  parent: Ino
}

export class NodeTable {
  readonly #db: Database<StoredNode, number>
  readonly #store: Store
  readonly #nodes = new Map<Ino, ImmutableNode>()
  readonly #forgotten: Ino[] = []
  readonly #resumed: boolean
  #closed = false

  /** `resume`: the mount is one that an earlier daemon served; else what is left of that one is void. */
  constructor(store: Store, resume: boolean) {
    this.#store = store
    this.#resumed = resume
    this.#db = store.env.openDB({ name: 'fs:nodes' })
    if (!resume) this.clear()
  }

  get size(): number {
    return this.#nodes.size
  }

  /** Those in use. */
  inos(): IterableIterator<Ino> {
    return this.#nodes.keys()
  }

  /** @throws CidfsError `STALE` for an id that was never handed out. */
  get(ino: Ino): ImmutableNode {
    const node = this.#nodes.get(ino) ?? this.#load(ino)
    if (node === undefined) throw new CidfsError('STALE', `no immutable node ${ino}`)
    return node
  }

  /** The node of `cid` at `ino` or, where that id belongs to another, at the next free one. */
  intern(cid: CID, ino: Ino, parent: Ino, hintBytes: number): ImmutableNode {
    for (let at = ino; ; at = nextIno(at)) {
      const node = this.#nodes.get(at) ?? this.#load(at)
      if (node === undefined)
        return this.#add({ ino: at, cid, hintBytes, parent, inspected: undefined, nlookup: 0 })
      if (sameContent(node.cid, cid)) return node
    }
  }

  /** Changes made in `fn` are one transaction: cheaper for many. */
  batch<T>(fn: () => T): T {
    return this.#store.transaction(fn)
  }

  /** The kernel gives `count` lookups back. */
  forget(ino: Ino, count: number): void {
    const node = this.#nodes.get(ino)
    if (node === undefined) return
    node.nlookup -= count
    if (node.nlookup > 0) return
    this.#nodes.delete(ino)
    if (this.#forgotten.push(ino) === 1) setImmediate(() => this.#removeForgotten())
  }

  /** The kernel forgets thousands at a time. */
  #removeForgotten(): void {
    const gone = this.#forgotten.splice(0).filter(ino => !this.#nodes.has(ino))
    if (this.#closed) return
    try {
      this.batch(() => gone.forEach(ino => void this.#db.removeSync(ino)))
    } catch (err) {
      // a full disk: a later daemon knows more nodes than it needs
      log('%d nodes stay on record: %s', gone.length, messageOf(err))
    }
  }

  /** No id is in use any more. */
  clear(): void {
    this.#nodes.clear()
    this.#db.clearSync()
  }

  /** The store is about to be closed. */
  close(): void {
    this.#closed = true
  }

  #add(node: ImmutableNode): ImmutableNode {
    this.#nodes.set(node.ino, node)
    this.#store.onRollback(() => this.#nodes.delete(node.ino))
    try {
      const stored = { cid: node.cid.bytes, hint: node.hintBytes, parent: node.parent }
      this.#store.transaction(() => void this.#db.putSync(node.ino, stored))
    } catch (err) {
      // a full disk keeps nobody from reading; a later daemon would not know this node
      if (codeOf(err) !== 'NO_SPACE') throw err
      log('%s is not on record: %s', node.cid, messageOf(err))
    }
    return node
  }

  /**
   * From an earlier daemon: how often the kernel holds it is not known, so it stays until the mount ends. Or
   * forgotten a moment ago and not removed yet.
   */
  #load(ino: Ino): ImmutableNode | undefined {
    // what this daemon has handed out is in memory, until a moment after it was forgotten
    const mayBeStored = this.#resumed || this.#forgotten.length > 0
    const stored = mayBeStored ? this.#db.get(ino) : undefined
    if (stored === undefined) return undefined
    const node = {
      ino,
      cid: CID.decode(stored.cid),
      hintBytes: stored.hint,
      parent: stored.parent,
      inspected: undefined,
      nlookup: this.#resumed ? Number.POSITIVE_INFINITY : 0,
    }
    this.#nodes.set(ino, node)
    return node
  }
}

/** Version 0 and 1 of a CID name the same content. */
function sameContent(a: CID, b: CID): boolean {
  return a.code === b.code && Buffer.compare(a.multihash.bytes, b.multihash.bytes) === 0
}
