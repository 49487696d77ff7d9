/**
 * The bytes of staged files that are not published: working objects, open or not.
 *
 * Invariant: a node has a working object exactly while its content is not published (`node.object`). Writing
 * to a published file first makes a working copy; the published object never changes. All opens of a file
 * share one descriptor.
 * Why: what is under a CID must stay what it is, and a daemon that comes back after a crash finds the content
 * of every file by its node alone: the size of a working object is the size of the file.
 *
 * Size and mtime run ahead of the record while a file is being written; they are stored with those of other
 * files a moment later, or by `save` (fsync, publishing): a transaction for each close would cost more than the
 * close. Until then the node is held in memory, and a crash finds the size in the working object.
 * Where the kernel reads and writes a working object by itself (passthrough), the object tells what has happened to
 * it: `learn`. All opens stay on that object until the last is closed, so only a file that has one when its first
 * open, a writer, comes is offered, and such an object is never sealed: published while somebody still reads it, the
 * file gets a copy of it for an object, and the next writer goes on with the original (`#revive`).
 *
 * One request to the disk is at most one write of the kernel (1 MiB), so it is made synchronously.
 */
import * as fs from 'node:fs'
import { promisify } from 'node:util'
import type { FileRange } from '../core/blocks.js'
import { CidfsError } from '../core/errors.js'
import { isPromise, type MaybePromise, then } from '../core/maybe-promise.js'
import { native } from '../core/native.js'
import type { Store } from '../store/store.js'
import type { CopyContent } from './copy-content.js'
import type { DirtyQueue } from './dirty-queue.js'
import type { Namespace } from './namespace.js'
import { lastCid, now, type StagingNode, type Timestamp, withoutSuid } from './node.js'
import { SharedFd } from './shared-fd.js'

interface OpenContent {
  readonly node: StagingNode
  readers: number
  writers: number
  /** Descriptor of the working object `container`. */
  file: SharedFd | undefined
  container: number
  /** A working copy being made; writes wait for it. */
  copying: Promise<void> | undefined
  /** How the working object was found last; undefined: every write comes through here. */
  passthrough: Stamp | undefined
}

/** Sizes and times are stored at most this long after they changed. */
const SAVE_MS = 200

/** Whether the kernel may serve the file that `fd` is open on. */
export type Attempt = (fd: number) => 'taken' | 'refused' | 'unsupported'

export interface WorkingRange {
  range: FileRange
  release(): void
}

export class Contents {
  readonly #store: Store
  readonly #names: Namespace
  readonly #dirty: DirtyQueue
  readonly #copy: CopyContent
  readonly #open = new Map<number, OpenContent>()
  readonly #unsaved = new Set<OpenContent>()
  /** Working objects of an earlier daemon. */
  readonly #inherited = new Set<number>()
  #saveTimer: NodeJS.Timeout | undefined
  #passthrough = true

  constructor(store: Store, names: Namespace, dirty: DirtyQueue, copy: CopyContent) {
    this.#store = store
    this.#names = names
    this.#dirty = dirty
    this.#copy = copy
  }

  /** Gives a file that was just created its working object; for use in the transaction that creates it. */
  begin(ino: number): void {
    this.#beginObject(this.#content(ino), 0)
  }

  /** Counts an open; with `truncate` the file is emptied. */
  open(ino: number, forWriting: boolean, truncate: boolean): void {
    const content = this.#content(ino)
    if (forWriting) content.writers++
    else content.readers++
    try {
      if (forWriting) this.#revive(content)
      if (truncate) this.#truncateNow(content, 0)
    } catch (err) {
      this.close(ino, forWriting)
      throw err
    }
  }

  /** Gives an open back; returns true when it was the last of a writer. */
  close(ino: number, forWriting: boolean): boolean {
    const content = this.#open.get(ino)
    if (content === undefined) return false
    this.learn(ino)
    if (forWriting) content.writers = Math.max(0, content.writers - 1)
    else content.readers = Math.max(0, content.readers - 1)
    const last = forWriting && content.writers === 0
    if (content.passthrough !== undefined) this.#closedPassthrough(content, last)
    this.#closeIfIdle(content)
    return last
  }

  /**
   * Offers the working object of a file that was just opened to the kernel, if all its opens can be on it.
   * @returns whether there is anything to offer; then `attempt` was made.
   */
  offer(ino: number, attempt: Attempt): boolean {
    const content = this.#open.get(ino)
    if (content === undefined || !this.#canPassThrough(content)) return false
    const { fd } = content.passthrough === undefined ? this.#file(content) : content.file!
    const answer = attempt(fd)
    if (answer === 'taken') content.passthrough ??= stampOf(fd)
    if (answer === 'unsupported') this.#passthrough = false
    return true
  }

  #canPassThrough({ node, readers, writers, copying, passthrough }: OpenContent): boolean {
    if (passthrough !== undefined) return true
    const first = writers === 1 && readers === 0 && node.mode === withoutSuid(node.mode)
    return this.#passthrough && first && node.object !== undefined && copying === undefined
  }

  /** Whether a file is passed through; if so, its node is brought up to date. */
  learn(ino: number): boolean {
    const content = this.#open.get(ino)
    if (content?.passthrough === undefined) return false
    if (content.node.object === undefined) return true
    const stamp = stampOf(this.#file(content).fd)
    if (!sameStamp(stamp, content.passthrough)) this.#written(content, stamp)
    content.passthrough = stamp
    return true
  }

  /** The kernel leaves it to us to take the set-user-ID bit off, and does not say who wrote: it goes in any case. */
  #written(content: OpenContent, stamp: Stamp): void {
    content.node.mode = withoutSuid(content.node.mode)
    this.#changed(content, stamp.sizeBytes, stamp.mtime)
  }

  /**
   * Whether the working object may be written past us, so that it must not be sealed: the kernel has opens on it,
   * or programs that outlived the daemon before still have.
   */
  mayBeWrittenUnseen({ ino, object }: StagingNode): boolean {
    return this.isPassedThrough(ino) || (object !== undefined && this.#inherited.has(object))
  }

  /** Whether there are opens that the kernel serves from the working object. */
  isPassedThrough(ino: number): boolean {
    return this.#open.get(ino)?.passthrough !== undefined
  }

  /**
   * Times may be too coarse to show each change: whoever hashed the content while it was written is told that it
   * has become another one in any case.
   */
  #closedPassthrough(content: OpenContent, lastWriter: boolean): void {
    if (lastWriter) {
      content.node.generation++
      this.#saveSoon(content)
    }
    if (content.readers + content.writers > 0) return
    content.passthrough = undefined
    if (content.node.object !== undefined) return
    content.file?.release()
    content.file = undefined
    this.#store.dropObject(content.container)
  }

  /** The kernel's opens are on an object that was published as a copy: it is the working object again. */
  #revive(content: OpenContent): void {
    if (content.passthrough === undefined || content.node.object !== undefined) return
    this.#adopt(content, content.container, content.node.sizeBytes)
  }

  isOpen(ino: number): boolean {
    const content = this.#open.get(ino)
    return content !== undefined && content.readers + content.writers > 0
  }

  isBeingWritten(ino: number): boolean {
    const content = this.#open.get(ino)
    return content !== undefined && (content.writers > 0 || content.copying !== undefined)
  }

  /** The part of `[offset, offset + length)` that the working object has; undefined when there is none. */
  read(ino: number, offset: number, length: number): WorkingRange | undefined {
    const node = this.#names.get(ino)
    if (node.object === undefined) return undefined
    const content = this.#content(ino)
    const file = this.#file(content).retain()
    this.#closeIfIdle(content)
    const available = Math.max(0, Math.min(length, node.sizeBytes - offset))
    return { range: { fd: file.fd, offset, length: available }, release: () => file.release() }
  }

  /** Writes at `offset`, or at the end with `append`; returns the bytes taken. `data` is copied if it must wait. */
  write(ino: number, offset: number, data: Uint8Array, append: boolean): MaybePromise<number> {
    const content = this.#content(ino)
    const ready = this.#makeWritable(content)
    if (!isPromise(ready)) return this.#writeNow(content, offset, data, append)
    const kept = Uint8Array.from(data)
    return ready.then(() => this.#writeNow(content, offset, kept, append))
  }

  #writeNow(content: OpenContent, offset: number, data: Uint8Array, append: boolean): number {
    const { node } = content
    const at = append ? node.sizeBytes : offset
    checkSize(at + data.length)
    const fd = this.#file(content).fd
    let written = 0
    while (written < data.length)
      written += fs.writeSync(fd, data, written, data.length - written, at + written)
    this.#changed(content, Math.max(node.sizeBytes, at + written))
    return written
  }

  truncate(ino: number, sizeBytes: number): MaybePromise<void> {
    const content = this.#content(ino)
    return this.#resize(content, () =>
      then(sizeBytes === 0 ? undefined : this.#makeWritable(content), () =>
        this.#truncateNow(content, sizeBytes),
      ),
    )
  }

  #truncateNow(content: OpenContent, sizeBytes: number): void {
    checkSize(sizeBytes)
    this.#revive(content)
    if (content.node.object === undefined) this.#beginObject(content, 0)
    fs.ftruncateSync(this.#file(content).fd, sizeBytes)
    this.#changed(content, sizeBytes)
  }

  fallocate(ino: number, offset: number, length: number, mode: number): MaybePromise<void> {
    const content = this.#content(ino)
    return this.#resize(content, () =>
      then(this.#makeWritable(content), () => {
        const fd = this.#file(content).fd
        native.fallocate(fd, mode, offset, length)
        this.#changed(content, fs.fstatSync(fd).size)
      }),
    )
  }

  /** SEEK_DATA, SEEK_HOLE; a published file is one run of data. @throws ENXIO as lseek(2). */
  seek(ino: number, offset: number, whence: number): number | undefined {
    if (this.#names.get(ino).object === undefined) return undefined
    const content = this.#content(ino)
    try {
      return native.lseek(this.#file(content).fd, offset, whence)
    } finally {
      this.#closeIfIdle(content)
    }
  }

  /** Bytes on disk before it resolves; names and attributes are the store's to flush. */
  async sync(ino: number): Promise<void> {
    this.learn(ino)
    this.save(ino)
    if (this.#names.get(ino).object === undefined) return
    const content = this.#content(ino)
    const file = this.#file(content).retain() // whoever wrote it may have closed it long ago
    this.#closeIfIdle(content)
    try {
      await datasync(file.fd)
    } finally {
      file.release()
    }
  }

  /** Stores the size and times of a file that ran ahead of its record. */
  save(ino: number): void {
    const content = this.#open.get(ino)
    if (content === undefined || !this.#unsaved.delete(content)) return
    this.#names.put(content.node)
    this.#closeIfIdle(content)
  }

  /** As `save`, for all files. */
  saveAll(): void {
    clearTimeout(this.#saveTimer)
    this.#saveTimer = undefined
    const contents = [...this.#unsaved]
    if (contents.length === 0) return
    this.#names.transaction(() => {
      for (const { node } of contents) this.#names.put(node)
    })
    this.#unsaved.clear()
    for (const content of contents) this.#closeIfIdle(content)
  }

  /** The content is elsewhere now: a reader that has the file open does not need the working object any more. */
  published(ino: number): void {
    const content = this.#open.get(ino)
    if (content === undefined || content.node.object !== undefined || content.passthrough !== undefined)
      return
    content.file?.release()
    content.file = undefined
  }

  /** Drops the working object of a node that is gone. */
  discard(node: StagingNode): void {
    this.#forget(node.ino)
    if (node.object === undefined) return
    this.#store.dropObject(node.object)
    delete node.object
  }

  #forget(ino: number): void {
    const content = this.#open.get(ino)
    if (content === undefined) return
    this.#unsaved.delete(content)
    this.#closeIfIdle(content)
  }

  /** Working objects whose size the record does not know (the daemon died while they were written). */
  recover(node: StagingNode): void {
    if (node.object === undefined) return
    this.#inherited.add(node.object)
    const stats = fs.statSync(this.#store.objectPath(node.object), { throwIfNoEntry: false, bigint: true })
    const { sizeBytes, mtime } = stats === undefined ? { sizeBytes: 0, mtime: now() } : stampFrom(stats)
    if (sizeBytes === node.sizeBytes) return
    node.sizeBytes = sizeBytes
    node.mtime = node.ctime = mtime
    this.#names.put(node)
  }

  #content(ino: number): OpenContent {
    const found = this.#open.get(ino)
    if (found !== undefined) {
      this.learn(ino)
      return found
    }
    const node = this.#names.hold(ino)
    const content: OpenContent = {
      node,
      readers: 0,
      writers: 0,
      file: undefined,
      container: -1,
      copying: undefined,
      passthrough: undefined,
    }
    if (node.type !== 'file') {
      this.#names.letGo(ino)
      throw new CidfsError(
        node.type === 'directory' ? 'IS_DIRECTORY' : 'INVALID',
        `node ${ino} is a ${node.type}`,
      )
    }
    this.#open.set(ino, content)
    return content
  }

  /** Afterwards the node has a working object with all of its content. */
  #makeWritable(content: OpenContent): MaybePromise<void> {
    if (content.copying !== undefined) return content.copying
    this.#revive(content)
    if (content.node.object !== undefined) return
    const source = lastCid(content.node)
    if (source === undefined || content.node.sizeBytes === 0) return this.#beginObject(content, 0)
    content.copying = this.#copyFrom(content, source).finally(() => {
      content.copying = undefined
    })
    return content.copying
  }

  async #copyFrom(content: OpenContent, source: ReturnType<typeof lastCid> & object): Promise<void> {
    const { container, path } = this.#store.createObject()
    try {
      await this.#copy(source, path)
    } catch (err) {
      this.#store.dropObject(container)
      throw err
    }
    // emptied in the meantime: that is the content, and not the copy
    if (content.node.object !== undefined) return this.#store.dropObject(container)
    this.#adopt(content, container, content.node.sizeBytes)
  }

  #beginObject(content: OpenContent, sizeBytes: number): void {
    const { container, path } = this.#store.createObject()
    fs.closeSync(fs.openSync(path, 'w', 0o600))
    this.#adopt(content, container, sizeBytes)
  }

  /** From here on the object is the content. One transaction: a crash finds either the old state or this. */
  #adopt(content: OpenContent, container: number, sizeBytes: number): void {
    const { node } = content
    this.#names.transaction(() => {
      node.object = container
      node.sizeBytes = sizeBytes
      node.generation++
      this.#dirty.mark(node)
    })
  }

  #changed(content: OpenContent, sizeBytes: number, at = now()): void {
    const { node } = content
    node.sizeBytes = sizeBytes
    node.mtime = node.ctime = at
    node.generation++
    if (content.passthrough !== undefined) content.passthrough = stampOf(this.#file(content).fd)
    this.#saveSoon(content)
  }

  #saveSoon(content: OpenContent): void {
    this.#unsaved.add(content)
    this.#saveTimer ??= setTimeout(() => this.saveAll(), SAVE_MS)
  }

  /** Size changes without an open (truncate(2)) are stored and queued at once, also after a failure half-way. */
  #resize(content: OpenContent, work: () => MaybePromise<void>): MaybePromise<void> {
    const done = (): void => {
      if (content.writers > 0) return
      this.save(content.node.ino)
      this.#dirty.settle(content.node.ino)
      this.#closeIfIdle(content)
    }
    try {
      const result = work()
      if (isPromise(result)) return result.finally(done)
    } catch (err) {
      done()
      throw err
    }
    done()
  }

  #file(content: OpenContent): SharedFd {
    const container = content.node.object
    if (container === undefined)
      throw new CidfsError('BAD_HANDLE', `node ${content.node.ino} has no working object`)
    if (content.container === container && content.file !== undefined) return content.file
    content.file?.release()
    content.file = new SharedFd(this.#store.objectPath(container), 'r+')
    content.container = container
    return content.file
  }

  #closeIfIdle(content: OpenContent): void {
    if (content.readers + content.writers > 0 || content.copying !== undefined) return
    content.file?.release()
    content.file = undefined
    if (this.#unsaved.has(content)) return
    if (this.#open.delete(content.node.ino)) this.#names.letGo(content.node.ino)
  }
}

/** What tells whether a working object was written to. */
interface Stamp {
  sizeBytes: number
  mtime: Timestamp
}

function stampOf(fd: number): Stamp {
  return stampFrom(fs.fstatSync(fd, { bigint: true }))
}

function stampFrom({ size, mtimeNs }: fs.BigIntStats): Stamp {
  const mtime = { seconds: Number(mtimeNs / 1_000_000_000n), nanoseconds: Number(mtimeNs % 1_000_000_000n) }
  return { sizeBytes: Number(size), mtime }
}

function sameStamp(a: Stamp, b: Stamp): boolean {
  const sameTime = a.mtime.seconds === b.mtime.seconds && a.mtime.nanoseconds === b.mtime.nanoseconds
  return sameTime && a.sizeBytes === b.sizeBytes
}

/** Node takes a position that is no exact integer for none, and writes wherever it wrote last. */
function checkSize(sizeBytes: number): void {
  if (Number.isSafeInteger(sizeBytes)) return
  throw new CidfsError('FILE_TOO_LARGE', `a file of ${sizeBytes} bytes is too large`)
}

/** fdatasync(2), on a thread of Node's pool. */
const datasync = promisify(fs.fdatasync)
