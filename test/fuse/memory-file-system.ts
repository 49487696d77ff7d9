/**
 * A small file system in memory for the tests of the transport.
 *
 * It counts lookups as the kernel does, so that a test can see whether they balance, and has nodes that behave
 * badly on purpose: reads that hang until they are interrupted, reads that throw nonsense.
 */
import { constants } from 'node:fs'
import { CidfsError } from '../../src/core/errors.js'
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
  Time,
} from '../../src/fs/file-system.js'
import { RENAME_EXCHANGE, RENAME_NOREPLACE, ROOT_INO } from '../../src/fs/file-system.js'

type Reader = (offset: number, sizeBytes: number, ctx: Context) => ReadResult | Promise<ReadResult>

interface Node {
  attributes: Attributes
  children?: Map<string, Ino>
  data?: Buffer
  target?: Uint8Array
  /** Instead of `data`. */
  reader?: Reader
  directIo?: boolean
  xattrs: Map<string, Uint8Array>
}

const { S_IFDIR, S_IFREG, S_IFLNK, S_IFMT } = constants

function now(): Time {
  const ms = Date.now()
  return { seconds: Math.floor(ms / 1000), nanoseconds: (ms % 1000) * 1e6 }
}

/** Bytes as a Map key. */
function key(name: Uint8Array): string {
  return Buffer.from(name).toString('latin1')
}

export interface MemoryOptions {
  ttlMs?: number
  keepCache?: boolean
}

export class MemoryFileSystem implements FileSystem {
  readonly nodes = new Map<Ino, Node>()
  readonly nlookup = new Map<Ino, number>()
  readonly openHandles = new Set<Fh>()
  /** Sizes of the reads and writes that were asked for. */
  readonly readSizes: number[] = []
  readonly writeSizes: number[] = []
  interrupted = 0
  /** Requests that wait for their interruption. */
  hanging = 0
  /** Lookups of this name hang. */
  hangingName: string | undefined
  /** Lookups of this name throw what no file system should. */
  brokenName: string | undefined
  notifier: Notifier | undefined
  #nextIno = ROOT_INO + 1
  #nextFh = 1
  readonly #ttlMs: number
  readonly #keepCache: boolean

  constructor({ ttlMs = 0, keepCache = false }: MemoryOptions = {}) {
    this.#ttlMs = ttlMs
    this.#keepCache = keepCache
    this.nodes.set(ROOT_INO, this.#node(ROOT_INO, S_IFDIR | 0o755, 0, 0))
  }

  /** Adds a file to the root, from bytes or from a function that answers reads. */
  addFile(name: string, content: Buffer | { sizeBytes: number; reader: Reader }, mode = 0o644): Ino {
    const ino = this.#add(ROOT_INO, Buffer.from(name), S_IFREG | mode, 0, 0)
    const node = this.nodes.get(ino)!
    if (Buffer.isBuffer(content)) node.data = content
    else node.reader = content.reader
    node.attributes.sizeBytes = Buffer.isBuffer(content) ? content.length : content.sizeBytes
    return ino
  }

  /** A file whose reads wait until they are interrupted; with `directIo` the page cache is not between. */
  addHangingFile(name: string, { directIo = false } = {}): Ino {
    const reader: Reader = (_offset, _size, ctx) => this.#hang(ctx)
    const ino = this.addFile(name, { sizeBytes: 1 << 20, reader })
    this.nodes.get(ino)!.directIo = directIo
    return ino
  }

  #hang(ctx: Context): Promise<never> {
    this.hanging++
    return new Promise((_resolve, reject) => {
      ctx.signal.addEventListener('abort', () => {
        this.hanging--
        this.interrupted++
        reject(ctx.signal.reason)
      })
    })
  }

  /** Lookups that the kernel has not given back. */
  get lookups(): number {
    let sum = 0
    for (const count of this.nlookup.values()) sum += count
    return sum
  }

  start(notifier: Notifier | undefined): void {
    this.notifier = notifier
  }

  #node(ino: Ino, mode: number, uid: number, gid: number): Node {
    const time = now()
    const times = { atime: time, mtime: time, ctime: time }
    const isDirectory = (mode & S_IFMT) === S_IFDIR
    const sizes = { sizeBytes: 0, blocks: 0, nlink: isDirectory ? 2 : 1, rdev: 0, blksize: 4096 }
    const node: Node = { attributes: { ino, ...sizes, ...times, mode, uid, gid }, xattrs: new Map() }
    if (isDirectory) node.children = new Map()
    else if ((mode & S_IFMT) === S_IFREG) node.data = Buffer.alloc(0)
    return node
  }

  #add(parent: Ino, name: Uint8Array, mode: number, uid: number, gid: number): Ino {
    const children = this.#directory(parent)
    if (children.has(key(name))) throw new CidfsError('EXISTS', 'exists')
    const ino = this.#nextIno++
    this.nodes.set(ino, this.#node(ino, mode, uid, gid))
    children.set(key(name), ino)
    return ino
  }

  #get(ino: Ino): Node {
    const node = this.nodes.get(ino)
    if (node === undefined) throw new CidfsError('STALE', `no node ${ino}`)
    return node
  }

  #directory(ino: Ino): Map<string, Ino> {
    const { children } = this.#get(ino)
    if (children === undefined) throw new CidfsError('NOT_DIRECTORY', 'not a directory')
    return children
  }

  #child(parent: Ino, name: Uint8Array): Ino {
    const ino = this.#directory(parent).get(key(name))
    if (ino === undefined) throw new CidfsError('NOT_FOUND', 'not found')
    return ino
  }

  #entry(ino: Ino): Entry {
    this.nlookup.set(ino, (this.nlookup.get(ino) ?? 0) + 1)
    return this.#uncounted(ino)
  }

  #uncounted(ino: Ino): Entry {
    const { attributes } = this.#get(ino)
    return { attributes, entryTtlMs: this.#ttlMs, attributesTtlMs: this.#ttlMs }
  }

  #open(node?: Node): Opened {
    const fh = this.#nextFh++
    this.openHandles.add(fh)
    return { fh, keepCache: this.#keepCache, directIo: node?.directIo ?? false }
  }

  lookup(parent: Ino, name: Uint8Array, ctx: Context): Entry | NegativeEntry | Promise<Entry> {
    if (key(name) === this.hangingName) return this.#hang(ctx)
    if (key(name) === this.brokenName) throw new TypeError('broken on purpose')
    const ino = this.#directory(parent).get(key(name))
    return ino === undefined ? { attributes: undefined, entryTtlMs: this.#ttlMs } : this.#entry(ino)
  }

  forget(ino: Ino, count: number): void {
    this.nlookup.set(ino, (this.nlookup.get(ino) ?? 0) - count)
  }

  async getattr(ino: Ino): Promise<{ attributes: Attributes; ttlMs: number }> {
    return { attributes: this.#get(ino).attributes, ttlMs: this.#ttlMs }
  }

  setattr(ino: Ino, changes: AttributeChanges): { attributes: Attributes; ttlMs: number } {
    const node = this.#get(ino)
    const a = node.attributes
    if (changes.killSuidGid) a.mode &= ~0o6000
    if (changes.mode !== undefined) a.mode = (a.mode & S_IFMT) | (changes.mode & 0o7777)
    if (changes.uid !== undefined) a.uid = changes.uid
    if (changes.gid !== undefined) a.gid = changes.gid
    if (changes.sizeBytes !== undefined) this.#resize(node, changes.sizeBytes)
    if (changes.atime !== undefined) a.atime = changes.atime === 'now' ? now() : changes.atime
    if (changes.mtime !== undefined) a.mtime = changes.mtime === 'now' ? now() : changes.mtime
    return { attributes: a, ttlMs: this.#ttlMs }
  }

  #resize(node: Node, sizeBytes: number): void {
    const data = Buffer.alloc(sizeBytes)
    node.data?.copy(data)
    node.data = data
    node.attributes.sizeBytes = sizeBytes
  }

  readlink(ino: Ino): Uint8Array {
    return this.#get(ino).target!
  }

  mknod(parent: Ino, name: Uint8Array, mode: number, rdev: number, ctx: Context): Entry {
    const ino = this.#add(parent, name, mode, ctx.uid, ctx.gid)
    this.#get(ino).attributes.rdev = rdev
    return this.#entry(ino)
  }

  mkdir(parent: Ino, name: Uint8Array, mode: number, ctx: Context): Entry {
    return this.#entry(this.#add(parent, name, S_IFDIR | mode, ctx.uid, ctx.gid))
  }

  symlink(parent: Ino, name: Uint8Array, target: Uint8Array, ctx: Context): Entry {
    const ino = this.#add(parent, name, S_IFLNK | 0o777, ctx.uid, ctx.gid)
    this.#get(ino).target = target.slice()
    this.#get(ino).attributes.sizeBytes = target.length
    return this.#entry(ino)
  }

  link(ino: Ino, parent: Ino, name: Uint8Array): Entry {
    if (this.#directory(parent).has(key(name))) throw new CidfsError('EXISTS', 'exists')
    this.#directory(parent).set(key(name), ino)
    this.#get(ino).attributes.nlink++
    return this.#entry(ino)
  }

  unlink(parent: Ino, name: Uint8Array): void {
    const ino = this.#child(parent, name)
    this.#directory(parent).delete(key(name))
    this.#get(ino).attributes.nlink--
  }

  rmdir(parent: Ino, name: Uint8Array): void {
    if (this.#directory(this.#child(parent, name)).size > 0) throw new CidfsError('NOT_EMPTY', 'not empty')
    this.#directory(parent).delete(key(name))
  }

  async rename(from: Ino, name: Uint8Array, to: Ino, newName: Uint8Array, flags: number): Promise<void> {
    const [oldKey, newKey] = [key(name), key(newName)]
    const ino = this.#child(from, name)
    const replaced = this.#directory(to).get(newKey)
    if (flags & RENAME_NOREPLACE && replaced !== undefined) throw new CidfsError('EXISTS', 'exists')
    this.#directory(from).delete(oldKey)
    this.#directory(to).set(newKey, ino)
    if (flags & RENAME_EXCHANGE && replaced !== undefined) this.#directory(from).set(oldKey, replaced)
  }

  open(ino: Ino, flags: number): Opened {
    if (flags & constants.O_TRUNC) this.#resize(this.#get(ino), 0)
    return this.#open(this.#get(ino))
  }

  create(parent: Ino, name: Uint8Array, mode: number, _flags: number, ctx: Context) {
    const ino = this.#add(parent, name, S_IFREG | mode, ctx.uid, ctx.gid)
    return { entry: this.#entry(ino), opened: this.#open() }
  }

  read(ino: Ino, _fh: Fh, offset: number, sizeBytes: number, ctx: Context): ReadResult | Promise<ReadResult> {
    this.readSizes.push(sizeBytes)
    const node = this.#get(ino)
    if (node.reader) return node.reader(offset, sizeBytes, ctx)
    return node.data!.subarray(offset, offset + sizeBytes)
  }

  write(ino: Ino, _fh: Fh, offset: number, data: Uint8Array, flags: number): number {
    this.writeSizes.push(data.length)
    const node = this.#get(ino)
    const at = flags & constants.O_APPEND ? node.attributes.sizeBytes : offset
    if (at + data.length > node.attributes.sizeBytes) this.#resize(node, at + data.length)
    node.data!.set(data, at)
    return data.length
  }

  flush(): void {}

  release(_ino: Ino, fh: Fh): void {
    this.openHandles.delete(fh)
  }

  fsync(): void {}

  fallocate(ino: Ino, _fh: Fh, offset: number, length: number, mode: number): void {
    if (mode !== 0) throw new CidfsError('NOT_SUPPORTED', 'mode')
    const node = this.#get(ino)
    if (offset + length > node.attributes.sizeBytes) this.#resize(node, offset + length)
  }

  lseek(ino: Ino, _fh: Fh, offset: number, whence: number): number {
    return whence === 3 ? offset : this.#get(ino).attributes.sizeBytes
  }

  copyFileRange(
    inIno: Ino,
    _inFh: Fh,
    inOffset: number,
    outIno: Ino,
    outFh: Fh,
    outOffset: number,
    length: number,
  ): number {
    const data = this.#get(inIno).data!.subarray(inOffset, inOffset + length)
    return this.write(outIno, outFh, outOffset, data, 0)
  }

  opendir(): Opened {
    return this.#open()
  }

  readdir(ino: Ino, _fh: Fh, offset: number, plus: boolean, sink: DirectorySink): void {
    const children = [...this.#directory(ino)]
    for (let i = offset; i < children.length; i++) {
      const [name, child] = children[i]!
      const type = (this.#get(child).attributes.mode & S_IFMT) >> 12
      const entry = { name: Buffer.from(name, 'latin1'), ino: child, type, nextOffset: i + 1 }
      if (!(plus ? sink.addPlus(entry, this.#uncounted(child)) : sink.add(entry))) return
      if (plus) this.nlookup.set(child, (this.nlookup.get(child) ?? 0) + 1)
    }
  }

  releasedir(_ino: Ino, fh: Fh): void {
    this.openHandles.delete(fh)
  }

  fsyncdir(): void {}

  statfs(): StatFs {
    const counts = { blocks: 1000, blocksFree: 600, blocksAvailable: 500, files: 40, filesFree: 30 }
    return { ...counts, blockSizeBytes: 4096, nameMaxBytes: 255 }
  }

  getxattr(ino: Ino, name: string): Uint8Array {
    const value = this.#get(ino).xattrs.get(name)
    if (value === undefined) throw new CidfsError('NO_ATTRIBUTE', 'no attribute')
    return value
  }

  async listxattr(ino: Ino): Promise<string[]> {
    return [...this.#get(ino).xattrs.keys()]
  }

  setxattr(ino: Ino, name: string, value: Uint8Array): void {
    this.#get(ino).xattrs.set(name, value.slice())
  }

  removexattr(ino: Ino, name: string): void {
    if (!this.#get(ino).xattrs.delete(name)) throw new CidfsError('NO_ATTRIBUTE', 'no attribute')
  }
}
