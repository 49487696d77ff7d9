/**
 * Turns what is dirty into blocks under a CID.
 *
 * Invariant: a node loses `dirty` only in a transaction in which its CID is stored, after everything under
 * that CID is on the disk; and only if its content is still the one that was hashed. The working object is
 * sealed (large files: its ranges become the leaves) or, when its bytes were copied into a pack (small files)
 * or are held already, removed after the index that no longer needs it is on the disk.
 * Why small files are copied: syncing a file of 1 KiB costs as much as syncing a pack that holds a thousand.
 */
import * as fs from 'node:fs'
import { promisify } from 'node:util'
import { CID, CODEC_RAW, cidFromSha256 } from '../core/cid.js'
import { CidfsError, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { Leaf, Store } from '../store/store.js'
import { buildDirectory } from '../unixfs/import-directory.js'
import { buildFile } from '../unixfs/import-file.js'
import { CHUNK_BYTES } from '../unixfs/profile.js'
import type { Contents } from './contents.js'
import type { DirtyQueue, Job } from './dirty-queue.js'
import type { HashPool } from './hash-pool.js'
import { HeadStart } from './head-start.js'
import type { LocalNames } from './local-names.js'
import type { Namespace } from './namespace.js'
import { lastCid, type StagingNode } from './node.js'
import { SharedFd } from './shared-fd.js'
import { type Candidate, isSmall, SmallBatch } from './small-batch.js'

const log = logger('staging:publisher')

/** Files and directories that are worked on side by side; one large file uses all hash workers by itself. */
const CONCURRENCY = 2
/** The main thread is given back after this long. */
const SLICE_MS = 4
const DIGEST_BYTES = 32

export interface PublisherParts {
  store: Store
  names: Namespace
  contents: Contents
  queue: DirtyQueue
  hashes: HashPool
  local: LocalNames
  /** Inside the transaction in which `node` got its new CID. */
  onPublished(node: StagingNode, previous: CID | undefined): void
}

const datasync = promisify(fs.fdatasync)
const nextTurn = promisify(setImmediate)

export class Publisher {
  readonly #parts: PublisherParts
  /** Working objects whose sync has failed. */
  readonly #untrusted = new Set<number>()
  #running = 0
  #timer: NodeJS.Timeout | undefined
  #timerDueMs = 0
  #stopped = true
  readonly #idle = new Set<() => void>()
  readonly #headStart: HeadStart

  constructor(parts: PublisherParts) {
    this.#parts = parts
    this.#headStart = new HeadStart(parts.store, parts.hashes)
  }

  /** The last writer of a file has closed it: work that can be done before its turn comes is begun. */
  closed(ino: number): void {
    const { names, local } = this.#parts
    const node = names.find(ino)
    const willBePublished = node?.type === 'file' && node.dirty && node.parent !== 0 && !local.covers(node)
    if (!this.#stopped && willBePublished && !isSmall(node)) this.#headStart.begin(node)
  }

  start(): void {
    this.#stopped = false
    this.#parts.queue.onChange = delayMs => this.#schedule(delayMs)
    this.#schedule(0)
  }

  /** Takes nothing up any more; resolves when what was under way has ended. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    this.#timer = undefined
    while (this.#running > 0) await new Promise<void>(resolve => this.#idle.add(resolve))
    await this.#headStart.ended()
  }

  #schedule(delayMs: number): void {
    const dueMs = performance.now() + delayMs
    if (this.#stopped || (this.#timer !== undefined && this.#timerDueMs <= dueMs)) return
    clearTimeout(this.#timer)
    this.#timerDueMs = dueMs
    this.#timer = setTimeout(() => this.#pump(), delayMs)
  }

  #pump(): void {
    this.#timer = undefined
    while (!this.#stopped && this.#running < CONCURRENCY) {
      const job = this.#parts.queue.take()
      if (job === undefined) break
      this.#running++
      void this.#guard(job, () => this.#run(job)).finally(() => this.#finished())
    }
    const delayMs = this.#running < CONCURRENCY ? this.#parts.queue.nextDelayMs() : undefined
    if (delayMs !== undefined) this.#schedule(Math.max(1, delayMs))
  }

  #finished(): void {
    this.#running--
    for (const resolve of this.#idle) resolve()
    this.#idle.clear()
    this.#schedule(0)
  }

  async #run(job: Job): Promise<void> {
    const node = this.#ready(job)
    if (node === undefined) return
    if (isSmall(node)) await this.#publishSmall(job)
    else
      await this.#guard(job, () =>
        node.type === 'file' ? this.#publishLarge(job, node) : this.#publishDirectory(job),
      )
  }

  /** The node of a job that can be worked on now. */
  #ready(job: Job): StagingNode | undefined {
    const { names, contents, queue } = this.#parts
    const node = names.find(job.ino)
    if (node === undefined || node.parent === 0) {
      queue.clean(job.ino)
      return undefined
    }
    if (!contents.isBeingWritten(job.ino)) return node
    job.running = false
    queue.suspend(job.ino)
    return undefined
  }

  async #guard(job: Job, work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (err) {
      log('publishing node %d: %s', job.ino, messageOf(err))
      this.#parts.queue.failed(job.ino, messageOf(err))
    }
  }

  /** This job and the other small ones that are due: one sync and one transaction for all. */
  async #publishSmall(first: Job): Promise<void> {
    const { store, queue } = this.#parts
    if (store.space.isShort) await store.space.giveBack() // what the batch before has left behind
    const isStopped = (): boolean => this.#stopped
    const batch = new SmallBatch({ ...this.#parts, ready: job => this.#ready(job), isStopped })
    await batch.prepare(first)
    await this.#guardBatch(batch.candidates, async () => {
      await store.flush()
      this.#commit(batch.candidates)
    })
    for (const job of batch.others) queue.putBack(job.ino)
  }

  async #guardBatch(candidates: Candidate[], work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (err) {
      log('publishing %d small files: %s', candidates.length, messageOf(err))
      for (const { job } of candidates) this.#parts.queue.failed(job.ino, messageOf(err))
    }
  }

  async #publishLarge(job: Job, node: StagingNode): Promise<void> {
    const { store, contents, queue } = this.#parts
    const { generation, object, sizeBytes } = node
    if (object === undefined) return void queue.putBack(job.ino)
    const copy = contents.mayBeWrittenUnseen(node) ? await this.#copyOf(object) : undefined
    const file = new SharedFd(store.objectPath(copy ?? object), 'r')
    try {
      const synced = this.#sync(copy ?? object, file.fd)
      const [hashed] = await Promise.allSettled([this.#digestsOf(node, file.fd, copy), synced]) // both use the descriptor
      await synced
      if (hashed.status === 'rejected') throw hashed.reason
      const digests = hashed.value
      const published = await buildFile(digests, sizeBytes, (cid, bytes) => void store.put(cid, bytes))
      await store.flush()
      this.#commit([{ job, generation, published, leaves: leavesOf(digests, sizeBytes), copy }])
    } finally {
      file.release()
      if (copy !== undefined && !store.containers.get(copy)?.sealed) store.dropObject(copy)
    }
  }

  /** What may be written past us, by the next writer that the kernel lets in or by an old one, cannot be sealed. */
  async #copyOf(object: number): Promise<number> {
    const { store } = this.#parts
    const { container, path } = store.createObject()
    try {
      await fs.promises.copyFile(store.objectPath(object), path, fs.constants.COPYFILE_FICLONE)
    } catch (err) {
      store.dropObject(container)
      throw err
    }
    return container
  }

  /** A copy is hashed itself: what was hashed ahead is the original. */
  async #digestsOf(node: StagingNode, fd: number, copy: number | undefined): Promise<Uint8Array> {
    const { sizeBytes } = node
    const begun = copy === undefined ? await this.#headStart.take(node) : undefined
    return begun ?? this.#parts.hashes.hashFile(fd, sizeBytes, CHUNK_BYTES)
  }

  /**
   * The kernel reports a write that was lost once and then calls the file clean: an object whose sync has failed is
   * not to be trusted again.
   */
  async #sync(object: number, fd: number): Promise<void> {
    if (this.#untrusted.has(object)) {
      throw new CidfsError('IO', 'the disk has lost a part of the file: write it anew, under another name')
    }
    try {
      await datasync(fd)
    } catch (err) {
      this.#untrusted.add(object)
      throw err
    }
  }

  async #publishDirectory(job: Job): Promise<void> {
    const { store, names, queue } = this.#parts
    const { generation } = names.get(job.ino)
    const entries = await this.#entriesOf(job.ino)
    if (entries === undefined) return void queue.putBack(job.ino)
    queue.updating(job.ino, entries.length)
    const published = await buildDirectory(entries, (cid, bytes) => void store.put(cid, bytes))
    await store.flush()
    this.#commit([{ job, generation, published, leaves: [] }])
  }

  /** Names with the CIDs of what they lead to; undefined when something has become dirty again. */
  async #entriesOf(ino: number): Promise<{ name: Uint8Array; cid: CID; tsize: number }[] | undefined> {
    const { names, local } = this.#parts
    const entries: { name: Uint8Array; cid: CID; tsize: number }[] = []
    for (let cookie = 0, more = true; more; ) {
      const until = performance.now() + SLICE_MS
      more = false
      for (const item of names.entries(ino, cookie)) {
        const child = names.get(item.ino)
        cookie = item.ino
        if (local.covers(child)) continue
        if (child.dirty || child.cid === undefined) return undefined
        entries.push({ name: item.name, cid: CID.decode(child.cid), tsize: child.tsize ?? 0 })
        if ((more = performance.now() > until)) break
      }
      if (more) await nextTurn()
    }
    return entries
  }

  #commit(candidates: Candidate[]): void {
    const { names, contents } = this.#parts
    const unneeded: number[] = []
    contents.saveAll() // sizes that ran ahead must be on record should what follows be rolled back
    names.transaction(() => {
      for (const candidate of candidates) this.#commitOne(candidate, unneeded)
    })
    for (const { job } of candidates) contents.published(job.ino)
    if (unneeded.length > 0) void this.#dropLater(unneeded)
  }

  #commitOne({ job, generation, published, leaves, copy }: Candidate, unneeded: number[]): void {
    const { store, names, contents, queue, local, onPublished } = this.#parts
    const node = names.find(job.ino)
    job.running = false
    if (node === undefined || node.parent === 0 || local.covers(node)) return void queue.clean(job.ino)
    if (contents.isBeingWritten(job.ino)) return void queue.suspend(job.ino)
    if (node.generation !== generation) return void queue.putBack(job.ino)
    const previous = lastCid(node)
    const passedThrough = contents.isPassedThrough(job.ino)
    if (node.object !== undefined) {
      if (!leaves.every(leaf => store.has(leaf.cid))) {
        if (passedThrough && copy === undefined) return void queue.putBack(job.ino)
        store.sealObject(copy ?? node.object, leaves)
      }
      const sealed = store.containers.get(node.object)?.sealed
      if (!sealed && !passedThrough) unneeded.push(node.object)
      delete node.object
    }
    contents.nursery.leave(node)
    Object.assign(node, { cid: published.cid.bytes, tsize: published.tsize, dirty: false })
    names.put(node)
    queue.clean(job.ino)
    onPublished(node, previous)
  }

  /** Objects whose bytes are held elsewhere, once the index on disk says so as well. */
  async #dropLater(objects: number[]): Promise<void> {
    const { store } = this.#parts
    try {
      await store.flush()
      for (const object of objects) store.dropObject(object)
    } catch (err) {
      log('objects %o stay until the next start: %s', objects, messageOf(err))
    }
  }
}

function leavesOf(digests: Uint8Array, sizeBytes: number): Leaf[] {
  const leaves: Leaf[] = []
  for (let offset = 0, at = 0; offset < sizeBytes; offset += CHUNK_BYTES, at += DIGEST_BYTES) {
    const cid = cidFromSha256(CODEC_RAW, digests.subarray(at, at + DIGEST_BYTES))
    leaves.push({ cid, offset, length: Math.min(CHUNK_BYTES, sizeBytes - offset) })
  }
  return leaves
}
