/**
 * The file system: all trees under one root.
 *
 * Invariant: a request goes to the tree that owns its node id; no tree knows another. Requests that name two
 * nodes of different trees are EXDEV. It runs under any transport, and under none (the tests drive it directly).
 */
import { statfs } from 'node:fs/promises'
import { CidfsError, codeOf } from '../core/errors.js'
import { type MaybePromise, then } from '../core/maybe-promise.js'
import type { BlockService } from '../sources/block-service.js'
import type { NameResolver } from '../sources/names.js'
import type { DirectoryNames } from '../staging/directory-names.js'
import type { NamedPins } from '../staging/named-pins.js'
import type { Staging } from '../staging/staging.js'
import type { Store } from '../store/store.js'
import { ContentCache } from './content-cache.js'
import { type ControlFiles, ControlTree } from './control-tree.js'
import { ExistsTree, type WhoHas } from './exists-tree.js'
import type {
  AttributeChanges,
  Attributes,
  Context,
  DirectorySink,
  Entry,
  Fh,
  FileSystem,
  Ino,
  NegativeEntry,
  Notifier,
  Opened,
  ReadResult,
  StatFs,
} from './file-system.js'
import { HeldRoots } from './held-roots.js'
import { IPFS_INO, isExists, isImmutable, isName, isPin, isStaged, ROOT_INO } from './ino.js'
import { IpfsTree } from './ipfs-tree.js'
import { IpnsTree } from './ipns-tree.js'
import { NodeTable } from './node-table.js'
import { Performed } from './performed.js'
import { PinsTree } from './pins-tree.js'
import { RootTree } from './root-tree.js'
import { StagingTree } from './staging-tree.js'
import type { TreeOperations } from './tree.js'

export interface FileSystemParts {
  store: Store
  blocks: BlockService
  staging: Staging
  pins: NamedPins
  names: NameResolver
  directoryNames: DirectoryNames
  whoHas: WhoHas
  controlFiles: ControlFiles
  /** The mount was served by an earlier daemon; its node ids are still in use. */
  resume: boolean
}

export class CidFileSystem implements FileSystem {
  readonly #store: Store
  readonly #root: RootTree
  readonly #ipfs: IpfsTree
  readonly #staging: StagingTree
  readonly #pins: PinsTree
  readonly #ipns: IpnsTree
  readonly #control: ControlTree
  readonly #exists: ExistsTree
  readonly #roots: HeldRoots
  readonly #nodes: NodeTable
  readonly #performed: Performed
  #notifier: Notifier | undefined

  constructor(parts: FileSystemParts) {
    this.#store = parts.store
    this.#roots = new HeldRoots(parts.store)
    this.#nodes = new NodeTable(parts.store, parts.resume)
    this.#performed = new Performed(parts.store, parts.resume)
    const shared = { ...parts, contents: new ContentCache(parts.blocks), roots: this.#roots }
    this.#ipfs = new IpfsTree({ ...shared, nodes: this.#nodes })
    this.#staging = new StagingTree(shared)
    this.#pins = new PinsTree(shared)
    this.#ipns = new IpnsTree(parts)
    this.#control = new ControlTree(parts.controlFiles)
    this.#exists = new ExistsTree(parts.whoHas)
    this.#root = new RootTree((ino, ctx) => this.getattr(ino, undefined, ctx))
  }

  start(notifier: Notifier | undefined): void {
    this.#notifier = notifier
    this.#ipfs.start(notifier)
    this.#roots.start()
  }

  /** Ends what runs in the background. `unmounted`: no node id is in use any more. */
  stop(unmounted: boolean): void {
    this.#ipfs.stop()
    this.#roots.stop()
    if (unmounted) this.#nodes.clear()
    this.#nodes.close()
  }

  /** Bytes that the kernel has cached may not be what they should: it has to ask again. */
  dropCaches(): void {
    for (const ino of [...this.#nodes.inos(), ...this.#staging.inos()])
      this.#notifier?.invalidateInode(ino, 0, 0)
  }

  #tree(ino: Ino): TreeOperations {
    if (isImmutable(ino) || ino === IPFS_INO) return this.#ipfs
    if (isStaged(ino)) return this.#staging
    if (isPin(ino)) return this.#pins
    if (isName(ino)) return this.#ipns
    if (isExists(ino)) return this.#exists
    return ino === ROOT_INO ? this.#root : this.#control
  }

  #sameTree(a: Ino, b: Ino): TreeOperations {
    const tree = this.#tree(a)
    if (tree !== this.#tree(b)) throw new CidfsError('CROSS_DEVICE', 'the trees of the mount are separate')
    return tree
  }

  /** The disk that the store is on, as far as it may be filled. */
  async statfs(): Promise<StatFs> {
    const disk = await statfs(this.#store.path)
    const { totalBytes, freeBytes, availableBytes } = this.#store.space.disk()
    const blocksOf = (bytes: number): number => Math.floor(bytes / disk.bsize)
    return {
      blocks: blocksOf(totalBytes),
      blocksFree: blocksOf(freeBytes),
      blocksAvailable: blocksOf(availableBytes),
      files: disk.files,
      filesFree: disk.ffree,
      blockSizeBytes: disk.bsize,
      nameMaxBytes: 255,
    }
  }

  lookup(parent: Ino, name: Uint8Array, ctx: Context): MaybePromise<Entry | NegativeEntry> {
    return this.#tree(parent).lookup(parent, name, ctx)
  }

  forget(ino: Ino, count: number): void {
    this.#tree(ino).forget(ino, count)
  }

  getattr(
    ino: Ino,
    fh: Fh | undefined,
    ctx: Context,
  ): MaybePromise<{ attributes: Attributes; ttlMs: number }> {
    return this.#tree(ino).getattr(ino, fh, ctx)
  }

  setattr(
    ino: Ino,
    changes: AttributeChanges,
    ctx: Context,
  ): MaybePromise<{ attributes: Attributes; ttlMs: number }> {
    return this.#tree(ino).setattr(ino, changes, ctx)
  }

  readlink(ino: Ino, ctx: Context): MaybePromise<Uint8Array> {
    return this.#tree(ino).readlink(ino, ctx)
  }

  /** A request that makes a name; its answer is the same when it is repeated. */
  #making(
    parent: Ino,
    name: Uint8Array,
    ctx: Context,
    make: (tree: TreeOperations) => MaybePromise<Entry>,
  ): MaybePromise<Entry> {
    return this.#performed.once(
      ctx,
      () => make(this.#tree(parent)),
      () => this.#made(parent, name, ctx),
    )
  }

  /** Names are removed and changed on a full disk, too: after a flush the index has room for it. */
  #changing<N extends Uint8Array[]>(
    ctx: Context,
    names: N,
    change: (...names: N) => MaybePromise<void>,
  ): MaybePromise<void> {
    const attempt = (given: N) =>
      this.#performed.once(
        ctx,
        () => change(...given),
        () => {},
      )
    try {
      return attempt(names)
    } catch (err) {
      if (codeOf(err) !== 'NO_SPACE') throw err
      const kept = names.map(name => Uint8Array.from(name)) as N
      return this.#store.space.giveBack().then(() => attempt(kept))
    }
  }

  /** What a request has made that is repeated. */
  #made(parent: Ino, name: Uint8Array, ctx: Context): MaybePromise<Entry> {
    return then(this.lookup(parent, name, ctx), entry => {
      if (entry.attributes === undefined) throw new CidfsError('STALE', 'made by an earlier daemon, and gone')
      return entry
    })
  }

  mknod(parent: Ino, name: Uint8Array, mode: number, rdev: number, ctx: Context): MaybePromise<Entry> {
    return this.#making(parent, name, ctx, tree => tree.mknod(parent, name, mode, rdev, ctx))
  }

  mkdir(parent: Ino, name: Uint8Array, mode: number, ctx: Context): MaybePromise<Entry> {
    return this.#making(parent, name, ctx, tree => tree.mkdir(parent, name, mode, ctx))
  }

  symlink(parent: Ino, name: Uint8Array, target: Uint8Array, ctx: Context): MaybePromise<Entry> {
    return this.#making(parent, name, ctx, tree => tree.symlink(parent, name, target, ctx))
  }

  link(ino: Ino, parent: Ino, name: Uint8Array, ctx: Context): MaybePromise<Entry> {
    return this.#sameTree(ino, parent).link(ino, parent, name, ctx)
  }

  unlink(parent: Ino, name: Uint8Array, ctx: Context): MaybePromise<void> {
    return this.#changing(ctx, [name], kept => this.#tree(parent).unlink(parent, kept, ctx))
  }

  rmdir(parent: Ino, name: Uint8Array, ctx: Context): MaybePromise<void> {
    return this.#changing(ctx, [name], kept => this.#tree(parent).rmdir(parent, kept, ctx))
  }

  rename(
    parent: Ino,
    name: Uint8Array,
    newParent: Ino,
    newName: Uint8Array,
    flags: number,
    ctx: Context,
  ): MaybePromise<void> {
    return this.#changing(ctx, [name, newName], (from, to) =>
      this.#sameTree(parent, newParent).rename(parent, from, newParent, to, flags, ctx),
    )
  }

  open(ino: Ino, flags: number, ctx: Context): MaybePromise<Opened> {
    return this.#tree(ino).open(ino, flags, ctx)
  }

  create(
    parent: Ino,
    name: Uint8Array,
    mode: number,
    flags: number,
    ctx: Context,
  ): MaybePromise<{ entry: Entry; opened: Opened }> {
    return this.#performed.once(
      ctx,
      () => this.#tree(parent).create(parent, name, mode, flags, ctx),
      () =>
        then(this.#made(parent, name, ctx), entry =>
          then(this.open(entry.attributes.ino, flags, ctx), opened => ({ entry, opened })),
        ),
    )
  }

  reopen(ino: Ino, flags: number, passthrough: number | undefined): Fh {
    return this.#tree(ino).reopen(ino, flags, passthrough)
  }

  read(ino: Ino, fh: Fh, offset: number, sizeBytes: number, ctx: Context): MaybePromise<ReadResult> {
    return this.#tree(ino).read(ino, fh, offset, sizeBytes, ctx)
  }

  write(
    ino: Ino,
    fh: Fh,
    offset: number,
    data: Uint8Array,
    flags: number,
    ctx: Context,
  ): MaybePromise<number> {
    return this.#tree(ino).write(ino, fh, offset, data, flags, ctx)
  }

  flush(ino: Ino, fh: Fh, ctx: Context): MaybePromise<void> {
    return this.#tree(ino).flush(ino, fh, ctx)
  }

  release(ino: Ino, fh: Fh, flags: number): MaybePromise<void> {
    return this.#tree(ino).release(ino, fh, flags)
  }

  fsync(ino: Ino, fh: Fh, dataOnly: boolean, ctx: Context): MaybePromise<void> {
    return this.#tree(ino).fsync(ino, fh, dataOnly, ctx)
  }

  fallocate(
    ino: Ino,
    fh: Fh,
    offset: number,
    length: number,
    mode: number,
    ctx: Context,
  ): MaybePromise<void> {
    return this.#tree(ino).fallocate(ino, fh, offset, length, mode, ctx)
  }

  lseek(ino: Ino, fh: Fh, offset: number, whence: number, ctx: Context): MaybePromise<number> {
    return this.#tree(ino).lseek(ino, fh, offset, whence, ctx)
  }

  copyFileRange(
    inIno: Ino,
    inFh: Fh,
    inOffset: number,
    outIno: Ino,
    outFh: Fh,
    outOffset: number,
    length: number,
    ctx: Context,
  ): MaybePromise<number> {
    const tree = this.#sameTree(inIno, outIno)
    return tree.copyFileRange(inIno, inFh, inOffset, outIno, outFh, outOffset, length, ctx)
  }

  opendir(ino: Ino, flags: number, ctx: Context): MaybePromise<Opened> {
    return this.#tree(ino).opendir(ino, flags, ctx)
  }

  readdir(
    ino: Ino,
    fh: Fh,
    offset: number,
    plus: boolean,
    sink: DirectorySink,
    ctx: Context,
  ): MaybePromise<void> {
    return this.#tree(ino).readdir(ino, fh, offset, plus, sink, ctx)
  }

  releasedir(ino: Ino, fh: Fh): MaybePromise<void> {
    return this.#tree(ino).releasedir(ino, fh)
  }

  fsyncdir(ino: Ino, fh: Fh, dataOnly: boolean, ctx: Context): MaybePromise<void> {
    return this.#tree(ino).fsyncdir(ino, fh, dataOnly, ctx)
  }

  getxattr(ino: Ino, name: string, ctx: Context): MaybePromise<Uint8Array> {
    return this.#tree(ino).getxattr(ino, name, ctx)
  }

  listxattr(ino: Ino, ctx: Context): MaybePromise<string[]> {
    return this.#tree(ino).listxattr(ino, ctx)
  }

  setxattr(ino: Ino, name: string, value: Uint8Array, flags: number, ctx: Context): MaybePromise<void> {
    return this.#tree(ino).setxattr(ino, name, value, flags, ctx)
  }

  removexattr(ino: Ino, name: string, ctx: Context): MaybePromise<void> {
    return this.#tree(ino).removexattr(ino, name, ctx)
  }
}
