/**
 * What has to be published, and when.
 *
 * Invariant: a node is in the queue exactly while it is dirty, and so is every directory above it. A file's
 * turn comes a settle delay after its last close; a directory's when nothing below it is dirty any more, and
 * not before its own delay, which is the longer the more entries it had at its last update. Membership, tries and errors are in LMDB, changed in the transaction that changes
 * the node; delays and counts of dirty children are only in memory, rebuilt at start and after a transaction
 * that failed. What has no name (unlinked, still open), or a local one, is dirty without being queued.
 * Why: ten thousand files dropped into a folder are ten thousand files to hash and one directory to update,
 * and a crash in between loses neither.
 */
import type { Database } from 'lmdb'
import { LRUCache } from 'lru-cache'
import { messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { Store } from '../store/store.js'
import { retryDelayMs } from './back-off.js'
import { inoKey, keyIno } from './keys.js'
import type { Namespace } from './namespace.js'
import { STAGING_ROOT_INO, type StagingNode } from './node.js'

const log = logger('staging:queue')

/** A directory rests about ten times as long as its last update was work, before the next. */
const REST_MS_PER_ENTRY = 0.05
const MAX_REST_MS = 5000
const REMEMBERED_SIZES = 1000

export interface Job {
  ino: number
  isDirectory: boolean
  parent: number
  /** Children that are in the queue themselves. */
  dirtyChildren: number
  /** Clock time in milliseconds before which it stays; Infinity while a file is open for writing. */
  dueMs: number
  tries: number
  error: string | undefined
  running: boolean
}

interface StoredJob {
  tries: number
  error?: string
}

export class DirtyQueue {
  readonly #names: Namespace
  readonly #stored: Database<StoredJob, Buffer>
  readonly #settleMs: number
  readonly #isLocal: (node: StagingNode) => boolean
  readonly #jobs = new Map<number, Job>()
  /** Jobs whose delay runs, oldest first: the delay is the same for all. */
  readonly #settling = new Map<number, Job>()
  /** Jobs with a time of their own: those that failed, and directories whose last child has just finished. */
  readonly #unordered = new Map<number, Job>()
  /** Of directories at their last updates: how many entries they had. */
  readonly #sizes = new LRUCache<number, number>({ max: REMEMBERED_SIZES })
  /** Dirty children of directories that are not in the queue themselves yet (or never, as the root). */
  readonly #orphanCounts = new Map<number, number>()
  /** Called when something may have become ready, or will be in so many milliseconds. */
  onChange: (delayMs: number) => void = () => {}

  /** @param isLocal whose nodes are dirty without being queued */
  constructor(
    store: Store,
    names: Namespace,
    settleMs: number,
    isLocal: (node: StagingNode) => boolean = () => false,
  ) {
    this.#isLocal = isLocal
    this.#names = names
    this.#settleMs = settleMs
    this.#stored = store.env.openDB({ name: 'staging:queue', keyEncoding: 'binary' })
    names.onRollback = () => this.#reload()
  }

  /** Takes up what an earlier run left. */
  load(): void {
    for (const { key, value } of this.#stored.getRange({ start: inoKey(0) })) {
      const node = this.#names.find(keyIno(key))
      if (node === undefined) this.#stored.removeSync(key)
      else Object.assign(this.#add(node), { tries: value.tries, error: value.error })
    }
    for (const job of this.#jobs.values()) this.settle(job.ino)
  }

  /** What is in memory follows the records again. Jobs keep their delays, and those under way their identity. */
  #reload(): void {
    const before = new Map(this.#jobs)
    for (const map of [this.#jobs, this.#settling, this.#unordered, this.#orphanCounts]) map.clear()
    for (const { key, value } of this.#stored.getRange({ start: inoKey(0) })) {
      const node = this.#names.find(keyIno(key))
      if (node === undefined) continue
      const { running = false, dueMs = Date.now() + this.#settleMs } = before.get(node.ino) ?? {}
      const job = this.#add(node, before.get(node.ino))
      Object.assign(job, { tries: value.tries, error: value.error, running, dueMs })
      if (!running && dueMs !== Number.POSITIVE_INFINITY) this.#unordered.set(node.ino, job)
    }
    this.onChange(0)
  }

  /** The content of `node` has changed or is about to: its CID no longer holds, nor those above it. */
  mark(node: StagingNode): void {
    if (node.ino === STAGING_ROOT_INO) return
    if (node.dirty && this.#jobs.has(node.ino)) return
    node.dirty = true
    this.#names.put(node)
    if (node.parent === 0 || this.#isLocal(node)) return
    this.#stored.putSync(inoKey(node.ino), { tries: 0 })
    this.#add(node)
    this.#markParent(node.parent)
  }

  /** A directory gained, lost or renamed an entry. */
  markDirectory(ino: number): void {
    this.#markParent(ino)
  }

  #markParent(ino: number): void {
    const directory = ino === 0 ? undefined : this.#names.find(ino)
    if (directory === undefined) return
    directory.generation++
    this.mark(directory)
    this.settle(ino)
  }

  /** The delay of a node begins anew. */
  settle(ino: number): void {
    const job = this.#jobs.get(ino)
    if (job === undefined) return
    const restMs = Math.min(MAX_REST_MS, REST_MS_PER_ENTRY * (this.#sizes.get(ino) ?? 0))
    job.dueMs = Date.now() + Math.max(this.#settleMs, restMs)
    this.#wait(job, restMs > this.#settleMs)
  }

  /** A directory is being updated: that is work for each of its entries. */
  updating(ino: number, entries: number): void {
    this.#sizes.set(ino, entries)
  }

  /** A file is open for writing again: it waits for the close. */
  suspend(ino: number): void {
    const job = this.#jobs.get(ino)
    if (job === undefined) return
    job.dueMs = Number.POSITIVE_INFINITY
    this.#settling.delete(ino)
    this.#unordered.delete(ino)
  }

  /** The node has its CID, or is gone. */
  clean(ino: number): void {
    this.#stored.removeSync(inoKey(ino))
    const job = this.#forget(ino)
    if (job !== undefined) this.#childLeft(job.parent)
  }

  /** Failed; stays in the queue, to be tried again later and later. */
  failed(ino: number, error: string): void {
    const job = this.#jobs.get(ino)
    if (job === undefined) return
    job.running = false
    job.tries++
    job.error = error
    job.dueMs = Date.now() + retryDelayMs(job.tries)
    this.#settling.delete(ino)
    this.#unordered.set(ino, job)
    this.onChange(0)
    try {
      this.#stored.putSync(inoKey(ino), { tries: job.tries, error })
    } catch (err) {
      // a full disk: the next start does not know of this failure
      log('%d: %s', ino, messageOf(err))
    }
  }

  /** What has failed may succeed now: its back-off is over. */
  retryFailed(): void {
    for (const job of this.#unordered.values()) if (job.tries > 0) job.dueMs = Date.now()
    this.onChange(0)
  }

  /** Was given out but is not finished, without having failed: back with a new delay. */
  putBack(ino: number): void {
    const job = this.#jobs.get(ino)
    if (job !== undefined) job.running = false
    this.settle(ino)
  }

  /** The node is in another directory now. */
  moved(node: StagingNode): void {
    const job = this.#jobs.get(node.ino)
    if (job === undefined) return
    const from = job.parent
    job.parent = node.parent
    this.#childCame(node.parent)
    this.#childLeft(from)
  }

  /** A job whose time has come, marked as running; undefined when there is none. */
  take(): Job | undefined {
    const nowMs = Date.now()
    const job = this.#firstDue(this.#settling, nowMs) ?? this.#anyDue(nowMs)
    if (job === undefined) return undefined
    job.running = true
    return job
  }

  /** Milliseconds until something may be ready; undefined when nothing waits for time. */
  nextDelayMs(): number | undefined {
    const dues = [...this.#unordered.values()].map(job => job.dueMs)
    const first = this.#settling.values().next().value
    if (first !== undefined) dues.push(first.dueMs)
    return dues.length === 0 ? undefined : Math.max(0, Math.min(...dues) - Date.now())
  }

  get(ino: number): Job | undefined {
    return this.#jobs.get(ino)
  }

  jobs(): Iterable<Job> {
    return this.#jobs.values()
  }

  #firstDue(waiting: Map<number, Job>, nowMs: number): Job | undefined {
    for (const job of waiting.values()) {
      if (job.dueMs > nowMs) return undefined
      waiting.delete(job.ino)
      if (job.dirtyChildren === 0) return job
    }
    return undefined
  }

  #anyDue(nowMs: number): Job | undefined {
    for (const job of this.#unordered.values()) {
      if (job.dueMs > nowMs) continue
      this.#unordered.delete(job.ino)
      if (job.dirtyChildren === 0) return job
    }
    return undefined
  }

  #add(node: StagingNode, reused?: Job): Job {
    const job = Object.assign(reused ?? ({} as Job), {
      ino: node.ino,
      isDirectory: node.type === 'directory',
      parent: node.parent,
      dirtyChildren: this.#orphanCounts.get(node.ino) ?? 0,
      dueMs: Number.POSITIVE_INFINITY,
      tries: 0,
      error: undefined,
      running: false,
    })
    this.#orphanCounts.delete(node.ino)
    this.#jobs.set(node.ino, job)
    this.#childCame(node.parent)
    return job
  }

  #childCame(parent: number): void {
    const job = this.#jobs.get(parent)
    if (job !== undefined) job.dirtyChildren++
    else this.#orphanCounts.set(parent, (this.#orphanCounts.get(parent) ?? 0) + 1)
  }

  #childLeft(parent: number): void {
    const job = this.#jobs.get(parent)
    if (job === undefined) {
      const left = (this.#orphanCounts.get(parent) ?? 1) - 1
      if (left > 0) this.#orphanCounts.set(parent, left)
      else this.#orphanCounts.delete(parent)
    } else if (--job.dirtyChildren === 0 && !job.running && job.dueMs !== Number.POSITIVE_INFINITY) {
      this.#settling.delete(job.ino)
      this.#unordered.set(job.ino, job)
    }
    this.onChange(0)
  }

  #forget(ino: number): Job | undefined {
    const job = this.#jobs.get(ino)
    if (job === undefined) return undefined
    this.#jobs.delete(ino)
    this.#settling.delete(ino)
    this.#unordered.delete(ino)
    if (job.dirtyChildren > 0) this.#orphanCounts.set(ino, job.dirtyChildren)
    return job
  }

  /** Into the line of those that settle, at its end; apart from it when its delay is longer. */
  #wait(job: Job, apart: boolean): void {
    if (job.running || job.dueMs === Number.POSITIVE_INFINITY) return
    this.#unordered.delete(job.ino)
    this.#settling.delete(job.ino)
    const line = apart ? this.#unordered : this.#settling
    line.set(job.ino, job)
    this.onChange(job.dueMs - Date.now())
  }
}
