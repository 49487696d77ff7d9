/**
 * The writable tree as the file system sees it: names, content, publication and pins kept in step.
 *
 * Invariant: each change of a name is one transaction that also queues what it makes dirty and moves the pins:
 * the entries of the root are what is pinned. Old content is unpinned in the transaction that pins the new.
 * Why one class: a rename touches the namespace, the queue, the pins and the back-end, and a crash must not
 * find them at different points.
 */
import type { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { type MaybePromise, then } from '../core/maybe-promise.js'
import type { Store } from '../store/store.js'
import { buildDirectory } from '../unixfs/import-directory.js'
import type { Backend } from './backend.js'
import { BackendQueue } from './backend-queue.js'
import { Contents } from './contents.js'
import type { CopyContent } from './copy-content.js'
import { DirtyQueue } from './dirty-queue.js'
import { HashPool } from './hash-pool.js'
import { LocalNames } from './local-names.js'
import { Namespace, type Owner } from './namespace.js'
import { currentCid, lastCid, now, STAGING_ROOT_INO, type StagingNode, type Timestamp } from './node.js'
import { type Publication, publicationOf } from './publication.js'
import { Publisher } from './publisher.js'
import { TopPins } from './top-pins.js'

export interface StagingOptions {
  /** Owner of the root. */
  owner: Owner
  /** Milliseconds between the last close of a file and its publication. */
  settleMs: number
  /** An earlier run's mount goes on: somebody may still have open what has no name any more. */
  resume?: boolean
  /** With `resume`: objects that the kernel still serves by itself, whoever refers to them. */
  inUse?: Iterable<number>
  backend?: Backend | undefined
  copyContent: CopyContent
  /** Names, as globs, that are not published; a list of our own when absent. */
  localNames?: readonly string[]
}

/** Attributes that `setAttributes` changes; only what is present. */
export interface NodeChanges {
  mode?: number
  uid?: number
  gid?: number
  atime?: Timestamp
  mtime?: Timestamp
  sizeBytes?: number
}

/** Nodes looked at together. */
const PAGE = 256

export class Staging {
  readonly names: Namespace
  readonly contents: Contents
  readonly queue: DirtyQueue
  readonly local: LocalNames
  readonly backend: BackendQueue | undefined
  /** CIDs made since the start; those of symlinks count as of files. */
  readonly published = { files: 0, directories: 0 }
  /** Called inside the transaction in which a directory has got a CID. */
  onDirectoryPublished: (ino: number) => void = () => {}
  readonly #store: Store
  readonly #hashes = new HashPool()
  readonly #publisher: Publisher
  readonly #pins: TopPins
  #rootCid: { generation: number; cid: CID } | undefined
  #stopped = true

  constructor(store: Store, options: StagingOptions) {
    this.#store = store
    this.names = new Namespace(store, options.owner)
    this.local = new LocalNames(store, options.localNames)
    const isLocal = (node: StagingNode): boolean => this.local.covers(node)
    this.queue = new DirtyQueue(store, this.names, options.settleMs, isLocal)
    this.contents = new Contents(store, this.names, this.queue, options.copyContent)
    this.backend = options.backend && new BackendQueue(store, options.backend)
    this.#pins = new TopPins({ store, names: this.names, local: this.local, backend: this.backend })
    this.#publisher = new Publisher({
      store,
      names: this.names,
      contents: this.contents,
      queue: this.queue,
      hashes: this.#hashes,
      local: this.local,
      onPublished: (node, previous) => this.#onPublished(node, previous),
    })
    // its generation, which tells whether the CID of the root still holds, is only in memory
    this.names.hold(STAGING_ROOT_INO)
    this.#recover(options.resume ?? false, options.inUse ?? [])
  }

  /** Puts right what a crash left: unnamed nodes, sizes that were not stored, objects nobody refers to. */
  #recover(resume: boolean, inUse: Iterable<number>): void {
    if (!resume) for (const ino of this.names.orphans()) this.purge(ino)
    this.queue.load()
    this.#applyLocalNames()
    const used = new Set(inUse)
    const queued = [...this.queue.jobs()].map(job => job.ino)
    for (const ino of [...this.names.orphans(), ...this.local.inos(), ...queued]) {
      const node = this.names.get(ino)
      this.contents.recover(node, resume)
      if (node.object !== undefined) used.add(node.object)
    }
    this.contents.nursery.claimed()
    for (const object of this.#store.unsealedObjects()) if (!used.has(object)) this.#store.dropObject(object)
  }

  /** The list of local names is another one than at the last start: files change sides. */
  #applyLocalNames(): void {
    if (!this.local.isNewList) return
    const concerned = [...this.names.all()].filter(
      node => this.local.covers(node) !== this.local.has(node.ino),
    )
    this.names.transaction(() => {
      for (const node of concerned) {
        this.#follow(node, node.parent, !this.local.covers(node))
        this.queue.markDirectory(node.parent)
      }
      this.local.saveList()
    })
  }

  start(): void {
    this.#stopped = false
    this.#publisher.start()
    this.backend?.start()
  }

  /** Nothing is being published while `work` runs, and what it took away is not remembered afterwards. */
  async withoutPublishing<T>(work: () => Promise<T>): Promise<T> {
    await this.#publisher.stop()
    try {
      return await work()
    } finally {
      this.#rootCid = undefined
      if (!this.#stopped) this.#publisher.start()
    }
  }

  /** Of every node, those included that are open without a name, and contents that are to be replaced. Lazy. */
  *publishedCids(): Generator<CID> {
    let page = this.names.page(0, PAGE)
    for (; page.length > 0; page = this.names.page(page.at(-1)!.ino, PAGE)) {
      for (const node of page) {
        const cid = lastCid(node)
        if (cid !== undefined) yield cid
      }
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await Promise.all([this.#publisher.stop(), this.backend?.stop()])
    this.contents.stop()
    await this.#hashes.close()
  }

  /** `forWriting`: the file is opened for writing in the same step. */
  createFile(parent: number, name: Uint8Array, mode: number, owner: Owner, forWriting = false): StagingNode {
    return this.#create(() => {
      const node = this.names.create(parent, name, 'file', mode, owner)
      if (forWriting) this.contents.begin(node.ino)
      return node
    })
  }

  createDirectory(parent: number, name: Uint8Array, mode: number, owner: Owner): StagingNode {
    return this.#create(() => this.names.create(parent, name, 'directory', mode, owner))
  }

  createSymlink(parent: number, name: Uint8Array, target: Uint8Array, owner: Owner): StagingNode {
    return this.#create(() => this.names.create(parent, name, 'symlink', 0o777, owner, target))
  }

  #create(make: () => StagingNode): StagingNode {
    return this.names.transaction(() => {
      const node = make()
      if (this.local.covers(node)) this.local.record(node.ino, true)
      this.queue.mark(node)
      this.queue.settle(node.ino)
      return node
    })
  }

  /** @throws CidfsError `NOT_FOUND`, `IS_DIRECTORY`. */
  unlink(parent: number, name: Uint8Array): void {
    const node = this.names.existing(parent, name)
    if (node.type === 'directory') throw new CidfsError('IS_DIRECTORY', 'is a directory')
    this.#remove(node)
  }

  /** @throws CidfsError `NOT_FOUND`, `NOT_DIRECTORY`, `NOT_EMPTY`. */
  rmdir(parent: number, name: Uint8Array): void {
    const node = this.names.existing(parent, name)
    if (node.type !== 'directory') throw new CidfsError('NOT_DIRECTORY', `is a ${node.type}`)
    if (!this.names.isEmpty(node.ino)) throw new CidfsError('NOT_EMPTY', 'directory is not empty')
    this.#remove(node)
  }

  #remove(node: StagingNode): void {
    const { parent } = node
    const wasLocal = this.local.covers(node)
    this.names.transaction(() => {
      if (this.#pins.isTop(node)) this.#pins.unpin(node)
      if (wasLocal) this.local.record(node.ino, false)
      this.names.unlink(node)
      this.queue.clean(node.ino)
      if (!wasLocal) this.queue.markDirectory(parent)
    })
  }

  /** Ends a node that has no name and that nobody has open or knows any more. */
  purge(ino: number): void {
    const node = this.names.find(ino)
    if (node === undefined || node.parent !== 0 || ino === STAGING_ROOT_INO) return
    this.names.transaction(() => {
      this.contents.discard(node)
      this.queue.clean(ino)
      this.names.remove(ino)
    })
  }

  /**
   * rename(2), `replace` false as with RENAME_NOREPLACE.
   * @throws CidfsError `NOT_FOUND`, `EXISTS`, `IS_DIRECTORY`, `NOT_DIRECTORY`, `NOT_EMPTY`, `INVALID`.
   */
  rename(parent: number, name: Uint8Array, newParent: number, newName: Uint8Array, replace: boolean): void {
    const node = this.names.existing(parent, name)
    const target = this.names.lookup(newParent, newName)
    if (target !== undefined && !replace) throw new CidfsError('EXISTS', 'name is taken')
    if (target?.ino === node.ino) return
    if (target !== undefined) this.#checkReplaceable(node, target)
    this.#checkNotInside(node, newParent)
    this.names.transaction(() => {
      if (target !== undefined) {
        if (this.#pins.isTop(target)) this.#pins.inherit(node, target)
        this.#remove(target)
      }
      if (!this.local.covers(node)) this.queue.markDirectory(parent)
      this.#move(node, () => this.names.rename(node, newParent, newName, undefined))
      if (!this.local.covers(node)) this.queue.markDirectory(newParent)
    })
  }

  /** RENAME_EXCHANGE */
  exchange(parent: number, name: Uint8Array, otherParent: number, otherName: Uint8Array): void {
    const a = this.names.existing(parent, name)
    const b = this.names.existing(otherParent, otherName)
    if (a.ino === b.ino) return
    this.#checkNotInside(a, otherParent)
    this.#checkNotInside(b, parent)
    this.names.transaction(() => {
      this.#move(a, () => this.#move(b, () => this.names.exchange(a, b)))
      this.queue.markDirectory(parent)
      this.queue.markDirectory(otherParent)
    })
  }

  #checkReplaceable(node: StagingNode, target: StagingNode): void {
    if (node.type === 'directory' && target.type !== 'directory') {
      throw new CidfsError('NOT_DIRECTORY', 'a directory cannot replace a file')
    }
    if (node.type !== 'directory' && target.type === 'directory') {
      throw new CidfsError('IS_DIRECTORY', 'a file cannot replace a directory')
    }
    if (target.type === 'directory' && !this.names.isEmpty(target.ino)) {
      throw new CidfsError('NOT_EMPTY', 'directory is not empty')
    }
  }

  #checkNotInside(node: StagingNode, directory: number): void {
    if (node.type === 'directory' && this.names.isWithin(directory, node.ino)) {
      throw new CidfsError('INVALID', 'a directory cannot be moved into itself')
    }
  }

  #move(node: StagingNode, rename: () => void): void {
    const { parent } = node
    const wasLocal = this.local.covers(node)
    rename()
    this.#follow(node, parent, wasLocal)
  }

  /** Queue and pins follow a node that comes to the root or leaves it, and one whose name becomes local or was. */
  #follow(node: StagingNode, oldParent: number, wasLocal: boolean): void {
    const isLocal = this.local.covers(node)
    if (wasLocal !== isLocal) this.local.record(node.ino, isLocal)
    if (isLocal) this.queue.clean(node.ino)
    else if (wasLocal) this.#enqueue(node)
    else this.queue.moved(node)
    const isTop = this.#pins.isTop(node)
    if (oldParent === STAGING_ROOT_INO && !wasLocal && !isTop) this.#pins.unpin(node)
    const cid = currentCid(node)
    if (isTop && cid !== undefined) this.#pins.pin(node, cid)
  }

  /** What was dirty without being queued. */
  #enqueue(node: StagingNode): void {
    if (!node.dirty) return
    this.queue.mark(node)
    if (!this.contents.isBeingWritten(node.ino)) this.queue.settle(node.ino)
  }

  #onPublished(node: StagingNode, previous: CID | undefined): void {
    this.published[node.type === 'directory' ? 'directories' : 'files']++
    if (node.type === 'directory') this.onDirectoryPublished(node.ino)
    this.#pins.published(node, previous)
  }

  /** chmod, chown, utimens and truncate in one. */
  setAttributes(ino: number, changes: NodeChanges): MaybePromise<StagingNode> {
    const { sizeBytes, ...others } = changes
    this.contents.learn(ino) // times that are set hold until the next write, not until the last one is noticed
    const resized = sizeBytes === undefined ? undefined : this.contents.truncate(ino, sizeBytes)
    return then(resized, () => {
      const node = this.names.get(ino)
      this.names.transaction(() => {
        Object.assign(node, others)
        node.ctime = now()
        this.names.put(node)
      })
      return node
    })
  }

  /** Counts an open of a file; a writer holds its publication back. */
  open(ino: number, forWriting: boolean, truncate: boolean): void {
    this.contents.open(ino, forWriting, truncate)
    if (forWriting) this.queue.suspend(ino)
    else if (truncate) this.queue.settle(ino) // O_RDONLY | O_TRUNC: no close of a writer will follow
  }

  /** Counts an open that an earlier daemon granted; `object`: the one that the kernel serves it from by itself. */
  reopen(ino: number, forWriting: boolean, object: number | undefined): void {
    this.contents.reopen(ino, forWriting, object)
    if (forWriting) this.queue.suspend(ino)
  }

  close(ino: number, forWriting: boolean): void {
    if (!this.contents.close(ino, forWriting)) return
    this.queue.settle(ino)
    this.#publisher.closed(ino)
  }

  /** Content and name are on the disk when it resolves. */
  async sync(ino: number): Promise<void> {
    await this.contents.sync(ino)
    await this.#store.flush()
  }

  publicationOf(node: StagingNode): Publication {
    return publicationOf(node, this)
  }

  /** The CID of what a node other than the root holds now; undefined until it is published. */
  publishedCid(node: StagingNode): CID | undefined {
    return this.local.covers(node) ? undefined : currentCid(node)
  }

  /** As `publishedCid`, of any. That of the root is made on demand. */
  async cidOf(ino: number): Promise<CID | undefined> {
    if (ino !== STAGING_ROOT_INO) return this.publishedCid(this.names.get(ino))
    const { generation } = this.names.get(ino)
    if (this.#rootCid?.generation === generation) return this.#rootCid.cid
    const entries = []
    for (const item of this.names.entries(ino)) {
      const child = this.names.get(item.ino)
      if (this.local.covers(child)) continue
      const cid = currentCid(child)
      if (cid === undefined) return undefined
      entries.push({ name: item.name, cid, tsize: child.tsize ?? 0 })
    }
    const { cid } = await buildDirectory(entries, (cid, bytes) => void this.#store.put(cid, bytes))
    this.#rootCid = { generation, cid }
    return cid
  }
}
