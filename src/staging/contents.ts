/**
 * The bytes of staged files that are not published: working objects, open or not.
 *
 * Invariant: a node has a working object (`node.object`), or a slot of the nursery (`node.slot`), exactly while its
 * content is not published. Writing to a published file first makes a working copy; the published object never
 * changes. All opens of a file share one descriptor.
 * Why: what is under a CID must stay what it is, and a daemon that comes back after a crash finds the content
 * of every file by its node alone: the size of a working object is the size of the file.
 *
 * Size and mtime run ahead of the record while a file is being written (`Unsaved`). Where the kernel reads and writes
 * a working object by itself, `Passthrough` learns what has happened to it.
 *
 * One request to the disk is at most one write of the kernel (1 MiB), so it is made synchronously.
 */
import * as fs from 'node:fs'
import { promisify } from 'node:util'
import { CidfsError } from '../core/errors.js'
import { isPromise, type MaybePromise, then } from '../core/maybe-promise.js'
import { native } from '../core/native.js'
import type { Store } from '../store/store.js'
import type { CopyContent } from './copy-content.js'
import type { DirtyQueue } from './dirty-queue.js'
import type { Namespace } from './namespace.js'
import { hasPlace, lastCid, now, type StagingNode, type Timestamp } from './node.js'
import { Nursery, type WorkingRange } from './nursery.js'
import { checkSize, writeMost } from './object-file.js'
import { type OpenContent, openContent, stampFrom, stampOf } from './open-content.js'
import { type Attempt, Passthrough } from './passthrough.js'
import { Places } from './places.js'
import { SharedFd } from './shared-fd.js'
import { Unsaved } from './unsaved.js'

/** FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE */
const FREES = 0x0a

export class Contents {
  readonly nursery: Nursery
  readonly #store: Store
  readonly #names: Namespace
  readonly #dirty: DirtyQueue
  readonly #open = new Map<number, OpenContent>()
  readonly #unsaved: Unsaved
  readonly #passthrough: Passthrough
  readonly #places: Places

  constructor(store: Store, names: Namespace, dirty: DirtyQueue, copy: CopyContent) {
    this.#store = store
    this.#names = names
    this.#dirty = dirty
    this.nursery = new Nursery(store)
    const expectsSmall = () => this.nursery.expectsSmall || !this.#passthrough.isSupported
    this.#places = new Places({ store, names, dirty, copy, nursery: this.nursery, expectsSmall })
    this.#unsaved = new Unsaved(names, () => this.saveAll())
    this.#passthrough = new Passthrough({
      file: content => this.#places.file(content),
      adopt: (content, container, sizeBytes) => this.#places.adopt(content, container, sizeBytes),
      changed: (content, sizeBytes, at) => this.#changed(content, sizeBytes, at),
      saveSoon: content => this.#unsaved.add(content),
      drop: container => store.dropObject(container),
      path: container => store.objectPath(container),
      written: container => this.#writtenUnseen(container),
      mayBeWrittenUnseen: () => store.space.allowsUnseenWrites,
    })
  }

  /** Gives a file that was just created a place for its content; for use in the transaction that creates it. */
  begin(ino: number): void {
    const content = this.#content(ino)
    this.#store.onRollback(() => this.#closeIfIdle(content))
    this.#places.begin(content)
  }

  /** Counts an open; with `truncate` the file is emptied. */
  open(ino: number, forWriting: boolean, truncate: boolean): void {
    const content = this.#content(ino)
    if (forWriting) content.writers++
    else content.readers++
    try {
      if (forWriting) this.#passthrough.revive(content)
      if (truncate) this.#truncateNow(content, 0)
    } catch (err) {
      this.close(ino, forWriting)
      throw err
    }
  }

  /** As `open`, of a file that an earlier daemon has opened; `object`: where the kernel serves it by itself. */
  reopen(ino: number, forWriting: boolean, object: number | undefined): void {
    const content = this.#content(ino)
    if (forWriting) content.writers++
    else content.readers++
    if (object === undefined || content.passthrough !== undefined) return
    content.file = new SharedFd(this.#store.objectPath(object), 'r+')
    content.container = object
    content.passthrough = stampOf(content.file.fd)
  }

  /** The object that the kernel serves an open file from by itself. */
  passedThrough(ino: number): number | undefined {
    const content = this.#open.get(ino)
    return content?.passthrough === undefined ? undefined : content.container
  }

  /** Gives an open back; returns true when it was the last of a writer. */
  close(ino: number, forWriting: boolean): boolean {
    const content = this.#open.get(ino)
    if (content === undefined) return false
    this.learn(ino)
    if (forWriting) content.writers = Math.max(0, content.writers - 1)
    else content.readers = Math.max(0, content.readers - 1)
    const last = forWriting && content.writers === 0
    if (last) this.nursery.noteSize(content.node.sizeBytes)
    this.#passthrough.closed(content, last)
    this.#closeIfIdle(content)
    return last
  }

  /**
   * Offers the working object of a file that was just opened to the kernel, if all its opens can be on it.
   * @returns whether there is anything to offer; then `attempt` was made.
   */
  offer(ino: number, attempt: Attempt): boolean {
    const content = this.#open.get(ino)
    return content !== undefined && this.#passthrough.offer(content, attempt)
  }

  /** Whether a file is passed through; if so, its node is brought up to date. */
  learn(ino: number): boolean {
    const content = this.#open.get(ino)
    return content !== undefined && this.#passthrough.learn(content)
  }

  /**
   * Whether the working object may be written past us, so that it must not be sealed: the kernel has opens on it,
   * or programs that outlived the daemon before still have.
   */
  mayBeWrittenUnseen(node: StagingNode): boolean {
    return this.isPassedThrough(node.ino) || this.#passthrough.mayBeInherited(node)
  }

  /** Whether there are opens that the kernel serves from the working object. */
  isPassedThrough(ino: number): boolean {
    return this.#open.get(ino)?.passthrough !== undefined
  }

  isOpen(ino: number): boolean {
    const content = this.#open.get(ino)
    return content !== undefined && content.readers + content.writers > 0
  }

  isBeingWritten(ino: number): boolean {
    const content = this.#open.get(ino)
    return content !== undefined && (content.writers > 0 || content.copying !== undefined)
  }

  /** The part of `[offset, offset + length)` that is not published; undefined when there is none. */
  read(ino: number, offset: number, length: number): WorkingRange | undefined {
    const node = this.#names.get(ino)
    if (node.slot !== undefined) return this.nursery.range(node, offset, length)
    if (node.object === undefined) return undefined
    const content = this.#content(ino)
    const file = this.#places.file(content).retain()
    this.#closeIfIdle(content)
    const available = Math.max(0, Math.min(length, node.sizeBytes - offset))
    return { range: { fd: file.fd, offset, length: available }, release: () => file.release() }
  }

  /** Writes at `offset`, or at the end with `append`; returns the bytes taken. `data` is copied if it must wait. */
  write(ino: number, offset: number, data: Uint8Array, append: boolean): MaybePromise<number> {
    const content = this.#content(ino)
    const ready = then(this.#makeWritable(content), () =>
      this.#places.claim(content, append ? content.node.sizeBytes : offset, data.length),
    )
    if (!isPromise(ready)) return this.#writeNow(content, offset, data, append)
    const kept = Uint8Array.from(data)
    return ready.then(() => this.#writeNow(content, offset, kept, append))
  }

  #writeNow(content: OpenContent, offset: number, data: Uint8Array, append: boolean): number {
    const { node } = content
    const at = append ? node.sizeBytes : offset
    checkSize(at + data.length)
    const isDone = this.nursery.write(node, at, data)
    const written = isDone ? data.length : writeMost(this.#places.file(content).fd, data, at)
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
    this.#passthrough.revive(content)
    if (!hasPlace(content.node)) this.#places.begin(content)
    if (!this.nursery.resize(content.node, sizeBytes))
      fs.ftruncateSync(this.#places.file(content).fd, sizeBytes)
    this.#changed(content, sizeBytes)
  }

  fallocate(ino: number, offset: number, length: number, mode: number): MaybePromise<void> {
    const content = this.#content(ino)
    return this.#resize(content, () =>
      then(this.#makeWritable(content), () =>
        then((mode & FREES) === 0 ? this.#places.claim(content, offset, length) : undefined, () => {
          const fd = this.#places.file(content).fd
          native.fallocate(fd, mode, offset, length)
          this.#changed(content, fs.fstatSync(fd).size)
        }),
      ),
    )
  }

  /** SEEK_DATA, SEEK_HOLE; a published file is one run of data. @throws ENXIO as lseek(2). */
  seek(ino: number, offset: number, whence: number): number | undefined {
    if (this.#names.get(ino).object === undefined) return undefined
    const content = this.#content(ino)
    try {
      return native.lseek(this.#places.file(content).fd, offset, whence)
    } finally {
      this.#closeIfIdle(content)
    }
  }

  /** Bytes, and where they lie, on disk before it resolves; names and attributes are the store's to flush. */
  async sync(ino: number): Promise<void> {
    this.learn(ino)
    this.save(ino)
    const { object, slot } = this.#names.get(ino)
    if (slot !== undefined) return this.nursery.sync()
    if (object === undefined) return
    const content = this.#content(ino)
    const file = this.#places.file(content).retain() // whoever wrote it may have closed it long ago
    this.#closeIfIdle(content)
    try {
      await datasync(file.fd)
      if (this.#names.find(ino)?.object === object) await this.#store.syncObjectName(object)
    } finally {
      file.release()
    }
  }

  /** Stores the size and times of a file that ran ahead of its record. */
  save(ino: number): void {
    const content = this.#open.get(ino)
    if (content !== undefined && this.#unsaved.save(content)) this.#closeIfIdle(content)
  }

  /** As `save`, for all files. */
  saveAll(): void {
    for (const content of this.#unsaved.saveAll()) this.#closeIfIdle(content)
  }

  /** Nobody was asked for the space: it may be the last that there was. */
  #writtenUnseen(object: number): void {
    this.#store.space.wrote(object)
    this.#store.space.changed()
    this.#store.space.keepReserve()
  }

  /** The content is elsewhere now: a reader that has the file open does not need the working object any more. */
  published(ino: number): void {
    const content = this.#open.get(ino)
    if (content === undefined || content.node.object !== undefined || content.passthrough !== undefined)
      return
    content.file?.release()
    content.file = undefined
  }

  /** All of a small file that is not published. */
  bytes(node: StagingNode): Uint8Array {
    return this.#places.bytes(node)
  }

  /** Drops the working object of a node that is gone. */
  discard(node: StagingNode): void {
    this.#forget(node.ino)
    this.#store.space.noteGarbage()
    this.nursery.leave(node)
    if (node.object === undefined) return
    this.#store.dropObject(node.object)
    delete node.object
  }

  #forget(ino: number): void {
    const content = this.#open.get(ino)
    if (content === undefined) return
    this.#unsaved.forget(content)
    this.#closeIfIdle(content)
  }

  /**
   * Working objects whose size the record does not know (the daemon died while they were written). `isMounted`: its
   * mount goes on.
   */
  recover(node: StagingNode, isMounted: boolean): void {
    if (node.slot !== undefined) this.#recovered(node, this.nursery.claim(node), node.mtime)
    if (node.object === undefined) return
    this.#passthrough.inherit(node.object, isMounted)
    const stats = fs.statSync(this.#store.objectPath(node.object), { throwIfNoEntry: false, bigint: true })
    const { sizeBytes, mtime } = stats === undefined ? { sizeBytes: 0, mtime: now() } : stampFrom(stats)
    this.#recovered(node, sizeBytes, mtime)
  }

  #recovered(node: StagingNode, sizeBytes: number, mtime: Timestamp): void {
    if (sizeBytes === node.sizeBytes) return
    node.sizeBytes = sizeBytes
    node.mtime = node.ctime = mtime
    this.#names.put(node)
  }

  /** Nothing is read or written any more. */
  stop(): void {
    this.saveAll()
    this.nursery.close()
  }

  #content(ino: number): OpenContent {
    const found = this.#open.get(ino)
    if (found !== undefined) {
      this.learn(ino)
      return found
    }
    const node = this.#names.hold(ino)
    if (node.type !== 'file') {
      this.#names.letGo(ino)
      throw new CidfsError(
        node.type === 'directory' ? 'IS_DIRECTORY' : 'INVALID',
        `node ${ino} is a ${node.type}`,
      )
    }
    const content = openContent(node)
    this.#open.set(ino, content)
    return content
  }

  /** Afterwards the node has a working object with all of its content. */
  #makeWritable(content: OpenContent): MaybePromise<void> {
    if (content.copying !== undefined) return content.copying
    this.#passthrough.revive(content)
    if (hasPlace(content.node)) return
    const source = lastCid(content.node)
    if (source === undefined || content.node.sizeBytes === 0) return this.#places.begin(content)
    content.copying = this.#places.copyFrom(content, source).finally(() => {
      content.copying = undefined
    })
    return content.copying
  }

  #changed(content: OpenContent, sizeBytes: number, at = now()): void {
    const { node } = content
    node.sizeBytes = sizeBytes
    node.mtime = node.ctime = at
    node.generation++
    if (node.object !== undefined) this.#store.space.wrote(node.object)
    if (content.passthrough !== undefined) content.passthrough = stampOf(this.#places.file(content).fd)
    this.#unsaved.add(content)
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

  #closeIfIdle(content: OpenContent): void {
    if (content.readers + content.writers > 0 || content.copying !== undefined) return
    content.file?.release()
    content.file = undefined
    if (this.#unsaved.has(content)) return
    if (this.#open.delete(content.node.ino)) this.#names.letGo(content.node.ino)
  }
}

/** fdatasync(2), on a thread of Node's pool. */
const datasync = promisify(fs.fdatasync)
