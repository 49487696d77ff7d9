/**
 * `staging/…`: the writable tree, in terms of nodes and handles.
 *
 * Invariant: the kernel is the only one that changes names, attributes and content here, so it may keep all of
 * them; the daemon only ever adds a CID. A handle carries nothing: what is open is counted by node, so a handle
 * from before a restart is as good as a new one.
 */
import { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { MAX_NAME_BYTES } from '../core/limits.js'
import { isPromise, type MaybePromise, then } from '../core/maybe-promise.js'
import type { BlockService } from '../sources/block-service.js'
import type { DirectoryNames } from '../staging/directory-names.js'
import type { Owner } from '../staging/namespace.js'
import { now, type StagingNode, withoutSuid } from '../staging/node.js'
import type { NodeChanges, Staging } from '../staging/staging.js'
import { NAME_BYTES, type Space } from '../store/space.js'
import type { Store } from '../store/store.js'
import type { ContentCache } from './content-cache.js'
import { ContentReader } from './content-reader.js'
import {
  type AttributeChanges,
  type Attributes,
  type Context,
  type DirectorySink,
  type Entry,
  type Fh,
  type Ino,
  type NegativeEntry,
  type Opened,
  type Passthrough,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  type ReadResult,
  type Time,
} from './file-system.js'
import type { HeldRoots } from './held-roots.js'
import { ROOT_INO, STAGING_ROOT_INO } from './ino.js'
import { addDots, addEntry } from './listing.js'
import {
  removeStagedAttribute,
  setStagedAttribute,
  stagedAttribute,
  stagedAttributeNames,
} from './staged-xattrs.js'
import {
  direntType,
  FOREVER_MS,
  ReadOnlyTree,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  seekData,
  wantsWriting,
} from './tree.js'

export interface StagingTreeParts {
  store: Store
  blocks: BlockService
  staging: Staging
  contents: ContentCache
  roots: HeldRoots
  directoryNames: DirectoryNames
}

const O_TRUNC = 0o1000
const O_APPEND = 0o2000
const DIRECTORY_BYTES = 4096
const S_ISGID = 0o2000

export class StagingTree extends ReadOnlyTree {
  readonly #parts: StagingTreeParts
  readonly #staging: Staging
  readonly #reader: ContentReader
  /** How often the kernel holds each node: one without a name ends with the last of them. */
  readonly #nlookup = new Map<Ino, number>()

  constructor(parts: StagingTreeParts) {
    super()
    this.#parts = parts
    this.#staging = parts.staging
    this.#reader = new ContentReader(parts.store, parts.blocks)
  }

  /** Those that the kernel knows. */
  inos(): IterableIterator<Ino> {
    return this.#nlookup.keys()
  }

  override lookup(parent: Ino, name: Uint8Array): Entry | NegativeEntry {
    const node = this.#staging.names.lookup(parent, name)
    return node === undefined ? { attributes: undefined, entryTtlMs: FOREVER_MS } : this.#entry(node)
  }

  #entry(node: StagingNode): Entry {
    this.#nlookup.set(node.ino, (this.#nlookup.get(node.ino) ?? 0) + 1)
    const { attributes, ttlMs } = this.#shown(node)
    return { attributes, entryTtlMs: FOREVER_MS, attributesTtlMs: ttlMs }
  }

  /** While the kernel writes to a file by itself, it has to ask what has become of it. */
  #shown(node: StagingNode): { attributes: Attributes; ttlMs: number } {
    const ttlMs = this.#staging.contents.learn(node.ino) ? 0 : FOREVER_MS
    return { attributes: attributesOf(node), ttlMs }
  }

  override forget(ino: Ino, count: number): void {
    const left = (this.#nlookup.get(ino) ?? 0) - count
    if (left > 0) {
      this.#nlookup.set(ino, left)
      return
    }
    this.#nlookup.delete(ino)
    if (!this.#staging.contents.isOpen(ino)) this.#staging.purge(ino)
  }

  override getattr(ino: Ino): { attributes: Attributes; ttlMs: number } {
    return this.#shown(this.#staging.names.get(ino))
  }

  override setattr(
    ino: Ino,
    changes: AttributeChanges,
  ): MaybePromise<{ attributes: Attributes; ttlMs: number }> {
    const node = this.#staging.names.get(ino)
    if (changes.sizeBytes !== undefined && node.type === 'directory') {
      throw new CidfsError('IS_DIRECTORY', 'is a directory')
    }
    const changed = this.#staging.setAttributes(ino, nodeChanges(node, changes))
    return then(changed, after => this.#shown(after))
  }

  override readlink(ino: Ino): Uint8Array {
    const { type, target } = this.#staging.names.get(ino)
    if (type !== 'symlink' || target === undefined) throw new CidfsError('INVALID', 'not a symbolic link')
    return target
  }

  override mknod(parent: Ino, name: Uint8Array, mode: number, _rdev: number, ctx: Context): Entry {
    const type = mode & S_IFMT
    if (type !== S_IFREG && type !== 0) {
      throw new CidfsError('PERMISSION', 'IPFS has no devices, pipes or sockets')
    }
    this.#space.takeName()
    return this.#entry(this.#staging.createFile(parent, name, mode, this.#ownerIn(parent, ctx)))
  }

  get #space(): Space {
    return this.#parts.store.space
  }

  override mkdir(parent: Ino, name: Uint8Array, mode: number, ctx: Context): Entry {
    this.#space.takeName()
    const inherited = this.#staging.names.get(parent).mode & S_ISGID
    return this.#entry(
      this.#staging.createDirectory(parent, name, mode | inherited, this.#ownerIn(parent, ctx)),
    )
  }

  override symlink(parent: Ino, name: Uint8Array, target: Uint8Array, ctx: Context): Entry {
    this.#space.takeName()
    return this.#entry(this.#staging.createSymlink(parent, name, target, this.#ownerIn(parent, ctx)))
  }

  /** A directory with the set-group-id bit gives its group to what is made in it. */
  #ownerIn(parent: Ino, ctx: Context): Owner {
    const { mode, gid } = this.#staging.names.get(parent)
    return { uid: ctx.uid, gid: (mode & S_ISGID) !== 0 ? gid : ctx.gid }
  }

  override link(): never {
    throw new CidfsError('PERMISSION', 'staged files have one name: IPFS has no hard links')
  }

  override unlink(parent: Ino, name: Uint8Array): void {
    this.#staging.unlink(parent, name)
  }

  override rmdir(parent: Ino, name: Uint8Array): void {
    this.#staging.rmdir(parent, name)
  }

  override rename(parent: Ino, name: Uint8Array, newParent: Ino, newName: Uint8Array, flags: number): void {
    if (![0, RENAME_NOREPLACE, RENAME_EXCHANGE].includes(flags)) {
      throw new CidfsError('INVALID', `rename flags ${flags}`)
    }
    if (newName.length > MAX_NAME_BYTES) throw new CidfsError('NAME_TOO_LONG', 'name too long')
    if (flags === RENAME_EXCHANGE) this.#staging.exchange(parent, name, newParent, newName)
    else this.#staging.rename(parent, name, newParent, newName, flags !== RENAME_NOREPLACE)
  }

  override open(ino: Ino, flags: number): Opened {
    this.#staging.open(ino, wantsWriting(flags), (flags & O_TRUNC) !== 0)
    return { fh: ino, keepCache: (flags & O_TRUNC) === 0, noFlush: true, passthrough: this.#passthrough(ino) }
  }

  override create(
    parent: Ino,
    name: Uint8Array,
    mode: number,
    flags: number,
    ctx: Context,
  ): MaybePromise<{ entry: Entry; opened: Opened }> {
    const room = this.#space.take(NAME_BYTES)
    if (!isPromise(room)) return this.#createNow(parent, name, mode, flags, ctx)
    const kept = Uint8Array.from(name)
    return room.then(() => this.#createNow(parent, kept, mode, flags, ctx))
  }

  #createNow(
    parent: Ino,
    name: Uint8Array,
    mode: number,
    flags: number,
    ctx: Context,
  ): { entry: Entry; opened: Opened } {
    const forWriting = wantsWriting(flags)
    const node = this.#staging.createFile(parent, name, mode, this.#ownerIn(parent, ctx), forWriting)
    this.#staging.open(node.ino, forWriting, false)
    this.#parts.store.onRollback(() => this.#staging.contents.close(node.ino, forWriting))
    const opened = { fh: node.ino, keepCache: true, noFlush: true, passthrough: this.#passthrough(node.ino) }
    return { entry: this.#entry(node), opened }
  }

  #passthrough(ino: Ino): Passthrough {
    const { contents } = this.#staging
    return {
      offer: attempt => void contents.offer(ino, attempt),
      get token() {
        return contents.passedThrough(ino) ?? 0
      },
    }
  }

  override reopen(ino: Ino, flags: number, passthrough: number | undefined): Fh {
    this.#staging.reopen(ino, wantsWriting(flags), passthrough)
    return ino
  }

  override read(
    ino: Ino,
    _fh: Fh,
    offset: number,
    sizeBytes: number,
    ctx: Context,
  ): MaybePromise<ReadResult> {
    const working = this.#staging.contents.read(ino, offset, sizeBytes)
    if (working !== undefined) return { ranges: [working.range], release: working.release }
    const node = this.#staging.names.get(ino)
    if (node.cid === undefined || node.sizeBytes === 0) return new Uint8Array(0)
    const options = { signal: ctx.signal }
    return then(this.#parts.contents.file(CID.decode(node.cid), options), table =>
      this.#reader.readFile(table, offset, sizeBytes, options),
    )
  }

  /** What is repeated may be in the file already: then the kernel's idea of its end is where it belongs. */
  override write(
    ino: Ino,
    _fh: Fh,
    offset: number,
    data: Uint8Array,
    flags: number,
    { repeated = false }: Context,
  ): MaybePromise<number> {
    return this.#staging.contents.write(ino, offset, data, (flags & O_APPEND) !== 0 && !repeated)
  }

  override release(ino: Ino, _fh: Fh, flags: number): void {
    this.#staging.close(ino, wantsWriting(flags))
    if (!this.#nlookup.has(ino) && !this.#staging.contents.isOpen(ino)) this.#staging.purge(ino)
  }

  override fsync(ino: Ino): Promise<void> {
    return this.#staging.sync(ino)
  }

  override fsyncdir(ino: Ino): Promise<void> {
    return this.#staging.sync(ino)
  }

  override fallocate(ino: Ino, _fh: Fh, offset: number, length: number, mode: number): MaybePromise<void> {
    return this.#staging.contents.fallocate(ino, offset, length, mode)
  }

  /**
   * A writer may have a mapping, and pages changed there that the kernel has not given to us: what looks like a
   * hole here need not be one. It looks itself where it has the file (passthrough).
   */
  override lseek(ino: Ino, _fh: Fh, offset: number, whence: number): number {
    const { contents } = this.#staging
    const known = contents.isPassedThrough(ino) || !contents.isBeingWritten(ino)
    const found = known ? contents.seek(ino, offset, whence) : undefined
    return found ?? seekData(offset, whence, this.#staging.names.get(ino).sizeBytes)
  }

  override opendir(): Opened {
    return { fh: 0, cacheDirectory: true }
  }

  override readdir(ino: Ino, _fh: Fh, offset: number, plus: boolean, sink: DirectorySink): void {
    const { parent } = this.#staging.names.directory(ino)
    const above = ino === STAGING_ROOT_INO ? ROOT_INO : parent
    if (!addDots(sink, plus, ino, above, offset)) return
    for (const item of this.#staging.names.entries(ino, Math.max(offset, STAGING_ROOT_INO))) {
      const node = this.#staging.names.get(item.ino)
      const entry = plus ? this.#entry(node) : undefined
      const listed = { name: item.name, ino: item.ino, type: direntType(modeOf(node)) }
      if (addEntry(sink, plus, listed, item.ino, entry)) continue
      if (plus) this.forget(item.ino, 1)
      return
    }
  }

  override getxattr(ino: Ino, name: string, ctx: Context): MaybePromise<Uint8Array> {
    return stagedAttribute(this.#parts, this.#staging.names.get(ino), name, ctx.signal)
  }

  override listxattr(ino: Ino): string[] {
    return stagedAttributeNames(this.#parts, this.#staging.names.get(ino))
  }

  override setxattr(ino: Ino, name: string, value: Uint8Array, flags: number): void {
    setStagedAttribute(this.#parts, this.#staging.names.get(ino), name, value, flags)
  }

  override removexattr(ino: Ino, name: string): void {
    removeStagedAttribute(this.#parts, this.#staging.names.get(ino), name)
  }
}

function modeOf(node: StagingNode): number {
  const type = node.type === 'file' ? S_IFREG : node.type === 'directory' ? S_IFDIR : S_IFLNK
  return type | node.mode
}

function attributesOf(node: StagingNode): Attributes {
  const sizeBytes = node.type === 'directory' ? DIRECTORY_BYTES : node.sizeBytes
  return {
    ino: node.ino,
    sizeBytes,
    blocks: Math.ceil(sizeBytes / 512),
    atime: node.atime,
    mtime: node.mtime,
    ctime: node.ctime,
    mode: modeOf(node),
    nlink: linksOf(node),
    uid: node.uid,
    gid: node.gid,
    rdev: 0,
    blksize: 1024 * 1024,
  }
}

function linksOf({ ino, type, parent, subdirectories }: StagingNode): number {
  if (parent === 0 && ino !== STAGING_ROOT_INO) return 0
  return type === 'directory' ? 2 + subdirectories : 1
}

function nodeChanges(node: StagingNode, changes: AttributeChanges): NodeChanges {
  const result: NodeChanges = {}
  if (changes.mode !== undefined) result.mode = changes.mode & 0o7777
  else if (changes.killSuidGid === true) result.mode = withoutSuid(node.mode)
  if (changes.uid !== undefined) result.uid = changes.uid
  if (changes.gid !== undefined) result.gid = changes.gid
  if (changes.atime !== undefined) result.atime = timeOf(changes.atime)
  if (changes.mtime !== undefined) result.mtime = timeOf(changes.mtime)
  if (changes.sizeBytes !== undefined) result.sizeBytes = changes.sizeBytes
  return result
}

function timeOf(time: Time | 'now'): Time {
  return time === 'now' ? now() : time
}
