/**
 * The writable tree: names, attributes and links between nodes, in LMDB.
 *
 * Invariant: each operation is one transaction; whatever it changes is visible to the next call, and after a
 * crash of the process either all of it is there or none. A node has one name (no hard links).
 * Why: names outlive the daemon and are shared by the kernel, the publisher and the garbage collector; none of
 * them may see half of a rename.
 *
 * Directory cookies are the ids of the nodes: they grow, never change, and survive a rename within the
 * directory, so that `readdir` neither repeats nor misses an entry that was there all the time.
 */
import type { Database } from 'lmdb'
import { LRUCache } from 'lru-cache'
import { CidfsError } from '../core/errors.js'
import { MAX_NAME_BYTES } from '../core/limits.js'
import type { Store } from '../store/store.js'
import { childKey, entryKey, inoKey, keyIno, parentEnd, parentStart } from './keys.js'
import { type NodeType, now, STAGING_ROOT_INO, type StagingNode } from './node.js'

/** Who creates something. */
export interface Owner {
  uid: number
  gid: number
}

export interface DirectoryItem {
  name: Uint8Array
  ino: number
}

const CACHED_NODES = 20_000
/** Ids put on record at once; those that are left when the daemon ends are never used. */
const RESERVED_INOS = 256

export class Namespace {
  readonly #store: Store
  /** ino -> node */
  readonly #nodes: Database<StagingNode, Buffer>
  /** parent, name -> ino */
  readonly #entries: Database<Buffer, Buffer>
  /** parent, ino -> name; the order of listings */
  readonly #children: Database<Buffer, Buffer>
  /** Nodes without a name that somebody may still have open. */
  readonly #orphans: Database<number, Buffer>
  readonly #meta: Database<number, string>
  readonly #cache = new LRUCache<number, StagingNode>({ max: CACHED_NODES })
  /** Nodes with changes in memory only (size and times of files being written), and how often they are held. */
  readonly #held = new Map<number, { node: StagingNode; count: number }>()
  /** Changed by the transaction under way: stored once, at its end. */
  readonly #touched = new Map<number, StagingNode>()
  #nextIno: number
  /** Ids from here on are not on record as used. */
  #reservedIno: number
  #inTransaction = false
  /** Called when a transaction has failed and everything here is as it was before. */
  onRollback: () => void = () => {}

  constructor(store: Store, owner: Owner) {
    this.#store = store
    this.#nodes = store.env.openDB({ name: 'staging:nodes', keyEncoding: 'binary' })
    this.#entries = store.env.openDB({ name: 'staging:entries', keyEncoding: 'binary', encoding: 'binary' })
    this.#children = store.env.openDB({ name: 'staging:children', keyEncoding: 'binary', encoding: 'binary' })
    this.#orphans = store.env.openDB({ name: 'staging:orphans', keyEncoding: 'binary' })
    this.#meta = store.env.openDB({ name: 'staging:meta' })
    this.#nextIno = this.#meta.get('next-ino') ?? STAGING_ROOT_INO + 1
    this.#reservedIno = this.#nextIno
    if (this.find(STAGING_ROOT_INO) === undefined) this.#createRoot(owner)
  }

  #createRoot(owner: Owner): void {
    this.put(blankNode(STAGING_ROOT_INO, 'directory', 0, new Uint8Array(0), 0o755, owner))
  }

  /** Runs `fn` as one transaction: all of its changes or none. Nests. */
  transaction<T>(fn: () => T): T {
    if (this.#inTransaction) return fn()
    this.#inTransaction = true
    try {
      return this.#store.transaction(() => {
        this.#store.onRollback(() => this.#rolledBack())
        const result = fn()
        for (const node of this.#touched.values()) this.#nodes.putSync(inoKey(node.ino), node)
        return result
      })
    } finally {
      this.#touched.clear()
      this.#inTransaction = false
    }
  }

  #rolledBack(): void {
    this.#cache.clear()
    this.#touched.clear()
    for (const { node } of this.#held.values()) {
      const record = this.#nodes.get(inoKey(node.ino))
      if (record !== undefined) restore(node, record)
    }
    this.onRollback()
  }

  /** @throws CidfsError `STALE` for an id that is not (any more) a node. */
  get(ino: number): StagingNode {
    const node = this.find(ino)
    if (node === undefined) throw new CidfsError('STALE', `no staged node ${ino}`)
    return node
  }

  find(ino: number): StagingNode | undefined {
    const cached = this.#held.get(ino)?.node ?? this.#cache.get(ino) ?? this.#touched.get(ino)
    if (cached !== undefined) return cached
    const node = this.#nodes.get(inoKey(ino))
    if (node !== undefined) this.#cache.set(ino, node)
    return node
  }

  /** Stores a node as it is now. The object passed is the one that `get` returns from here on. */
  put(node: StagingNode): void {
    this.#cache.set(node.ino, node)
    if (this.#inTransaction) this.#touched.set(node.ino, node)
    else this.#store.transaction(() => void this.#nodes.putSync(inoKey(node.ino), node))
  }

  /** Until `letGo`, `get` returns the same object: its fields may run ahead of the record. */
  hold(ino: number): StagingNode {
    const held = this.#held.get(ino) ?? { node: this.get(ino), count: 0 }
    held.count++
    this.#held.set(ino, held)
    return held.node
  }

  /** The holder has stored the node, or removed it. */
  letGo(ino: number): void {
    const held = this.#held.get(ino)
    if (held !== undefined && --held.count === 0) this.#held.delete(ino)
  }

  /** Removes the record of an orphan. */
  remove(ino: number): void {
    this.transaction(() => {
      this.#cache.delete(ino)
      this.#touched.delete(ino)
      this.#nodes.removeSync(inoKey(ino))
      this.#orphans.removeSync(inoKey(ino))
    })
  }

  orphans(): number[] {
    return [...this.#orphans.getKeys({ start: inoKey(0) })].map(key => keyIno(key))
  }

  /** The node called `name` in a directory. */
  lookup(parent: number, name: Uint8Array): StagingNode | undefined {
    checkName(name)
    this.directory(parent)
    const found = this.#entries.get(entryKey(parent, name))
    return found === undefined ? undefined : this.get(keyIno(found))
  }

  /** @throws CidfsError `NOT_FOUND`. */
  existing(parent: number, name: Uint8Array): StagingNode {
    const node = this.lookup(parent, name)
    if (node === undefined) throw new CidfsError('NOT_FOUND', 'no such name', { path: text(name) })
    return node
  }

  /** @throws CidfsError `NOT_DIRECTORY`, `STALE`. */
  directory(ino: number): StagingNode {
    const node = this.get(ino)
    if (node.type !== 'directory') throw new CidfsError('NOT_DIRECTORY', `node ${ino} is a ${node.type}`)
    return node
  }

  /** Entries behind `cookie` (0: all), in the order of cookies. Lazy: stop when enough. */
  *entries(parent: number, cookie = 0): Generator<DirectoryItem> {
    const range = { start: childKey(parent, cookie + 1), end: parentEnd(parent) }
    for (const { key, value } of this.#children.getRange(range)) {
      yield { ino: keyIno(key, 7), name: Uint8Array.from(value) }
    }
  }

  isEmpty(parent: number): boolean {
    const range = { start: parentStart(parent), end: parentEnd(parent), limit: 1 }
    for (const _ of this.#children.getKeys(range)) return false
    return true
  }

  /** Every node, for start-up checks and garbage collection. Lazy. */
  *all(): Generator<StagingNode> {
    for (const { value } of this.#nodes.getRange({ start: inoKey(0) })) yield this.find(value.ino) ?? value
  }

  /** Up to `limit` nodes with ids above `after`, in their order: for long walks, beside which others write. */
  page(after: number, limit: number): StagingNode[] {
    const range = { start: inoKey(after + 1), limit }
    return [...this.#nodes.getRange(range)].map(({ value }) => this.find(value.ino) ?? value)
  }

  /** @throws CidfsError `EXISTS`, `NOT_DIRECTORY`, `NAME_TOO_LONG`, `NOT_FOUND` when the directory is unlinked. */
  create(
    parent: number,
    name: Uint8Array,
    type: NodeType,
    mode: number,
    owner: Owner,
    target?: Uint8Array,
  ): StagingNode {
    return this.transaction(() => {
      this.#checkAlive(parent)
      if (this.lookup(parent, name) !== undefined)
        throw new CidfsError('EXISTS', 'name is taken', { path: text(name) })
      const node = blankNode(this.#allocate(), type, parent, Uint8Array.from(name), mode, owner)
      if (target !== undefined)
        Object.assign(node, { target: Uint8Array.from(target), sizeBytes: target.length })
      this.put(node)
      this.#link(node, parent, node.name)
      return node
    })
  }

  /** Takes a node out of its directory. The record stays, as an orphan with parent 0: an open file lives on. */
  unlink(node: StagingNode): void {
    this.transaction(() => {
      this.#detach(node)
      node.parent = 0
      node.ctime = now()
      this.put(node)
      this.#orphans.putSync(inoKey(node.ino), 1)
    })
  }

  /** Gives a node another name, and takes out `replaced`, which had it, in the same transaction. */
  rename(node: StagingNode, newParent: number, newName: Uint8Array, replaced: StagingNode | undefined): void {
    this.transaction(() => {
      this.#checkAlive(newParent)
      if (replaced !== undefined) this.unlink(replaced)
      this.#detach(node)
      this.#link(node, newParent, Uint8Array.from(newName))
      node.ctime = now()
      this.put(node)
    })
  }

  /** RENAME_EXCHANGE */
  exchange(a: StagingNode, b: StagingNode): void {
    this.transaction(() => {
      const [parentA, nameA, parentB, nameB] = [a.parent, a.name, b.parent, b.name]
      this.#detach(a)
      this.#detach(b)
      this.#link(a, parentB, nameB)
      this.#link(b, parentA, nameA)
      a.ctime = b.ctime = now()
      this.put(a)
      this.put(b)
    })
  }

  /** Whether `ancestor` is `ino` or one of the directories above it. */
  isWithin(ino: number, ancestor: number): boolean {
    for (let at = ino; at !== 0; at = this.get(at).parent) if (at === ancestor) return true
    return false
  }

  /** The entry of the root under which a node lies (itself, if it is one); undefined for the root and orphans. */
  topLevel(node: StagingNode): StagingNode | undefined {
    let at: StagingNode | undefined = node
    while (at !== undefined && at.parent !== STAGING_ROOT_INO)
      at = at.parent === 0 ? undefined : this.find(at.parent)
    return at
  }

  /** Path below `staging/`, for messages. */
  pathOf(node: StagingNode): string {
    const names: string[] = []
    for (
      let at: StagingNode | undefined = node;
      at !== undefined && at.parent !== 0;
      at = this.find(at.parent)
    ) {
      names.unshift(text(at.name))
    }
    return names.join('/')
  }

  #allocate(): number {
    if (this.#nextIno >= this.#reservedIno) this.#reserve()
    return this.#nextIno++
  }

  #reserve(): void {
    const before = this.#reservedIno
    this.#store.onRollback(() => {
      this.#reservedIno = before
    })
    this.#reservedIno = this.#nextIno + RESERVED_INOS
    this.#meta.putSync('next-ino', this.#reservedIno)
  }

  #checkAlive(parent: number): void {
    const directory = this.directory(parent)
    if (parent !== STAGING_ROOT_INO && directory.parent === 0) {
      throw new CidfsError('NOT_FOUND', 'the directory has been removed')
    }
  }

  #link(node: StagingNode, parent: number, name: Uint8Array): void {
    node.parent = parent
    node.name = name
    this.put(node)
    this.#entries.putSync(entryKey(parent, name), inoKey(node.ino))
    this.#children.putSync(childKey(parent, node.ino), Buffer.from(name))
    this.#touch(parent, node.type === 'directory' ? 1 : 0)
  }

  #detach(node: StagingNode): void {
    this.#entries.removeSync(entryKey(node.parent, node.name))
    this.#children.removeSync(childKey(node.parent, node.ino))
    this.#touch(node.parent, node.type === 'directory' ? -1 : 0)
  }

  #touch(parent: number, subdirectories: number): void {
    const directory = this.get(parent)
    directory.mtime = directory.ctime = now()
    directory.subdirectories += subdirectories
    this.put(directory)
  }
}

function blankNode(
  ino: number,
  type: NodeType,
  parent: number,
  name: Uint8Array,
  mode: number,
  owner: Owner,
): StagingNode {
  const time = now()
  return {
    ino,
    type,
    parent,
    name,
    mode: mode & 0o7777,
    uid: owner.uid,
    gid: owner.gid,
    atime: time,
    mtime: time,
    ctime: time,
    sizeBytes: 0,
    subdirectories: 0,
    dirty: true,
    generation: 0,
  }
}

/** Back to the record, but for what was written into the same working object since it was stored. */
function restore(node: StagingNode, record: StagingNode): void {
  const { generation, sizeBytes, mtime, ctime } = node
  const isSamePlace = record.object === node.object && record.slot === node.slot
  const ahead = isSamePlace ? { generation, sizeBytes, mtime, ctime } : { generation }
  for (const key of ['object', 'slot', 'cid', 'tsize', 'replaced'] as const) delete node[key]
  Object.assign(node, record, ahead)
}

function checkName(name: Uint8Array): void {
  if (name.length > MAX_NAME_BYTES) throw new CidfsError('NAME_TOO_LONG', `name of ${name.length} bytes`)
}

function text(name: Uint8Array): string {
  return Buffer.from(name).toString()
}
