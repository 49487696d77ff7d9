/**
 * Makes what was written durable: container data first, then the index that points to it.
 *
 * Invariant: the index on disk never points at bytes that are not. So the state of the index is captured before
 * the data is synced: what is committed meanwhile belongs to the next flush. When a sync has failed once, every later one
 * fails too: the kernel reports a lost write once only and then calls the file clean, so nothing but a reopen,
 * which reads and hashes again, can tell what is there.
 * Why it also runs by itself: what LMDB wrote since the last sync cannot be reused, and recovery hashes it.
 */
import * as fs from 'node:fs'
import { open, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { CidfsError, codeOf, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { Container, Containers } from './containers.js'
import type { Environment } from './environment.js'
import { isFull } from './packs.js'

const log = logger('store:flush')

/** Bytes put before a flush begins by itself: bounds what a recovery has to hash. */
const FLUSH_BYTES = 64 * 1024 * 1024
/** Each takes some 6 KiB of the index that only a flush frees. */
const FLUSH_COMMITS = 512
/** Where the index has no room to grow. */
const SPARING_COMMITS = 32

export class Flusher {
  readonly #env: Environment
  readonly #containers: Containers
  readonly #intervalMs: number
  /** Files that the index has forgotten, and the one on disk perhaps not yet. */
  readonly #doomed = new Set<string>()
  /** Nobody who waits for a flush waits for it: to remove 256 MiB takes a third of a second. */
  #unlinking: Promise<void> = Promise.resolve()
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined
  #next: Promise<void> | undefined
  #failed: unknown
  #closed = false
  #maxCommits = FLUSH_COMMITS
  /** Since the last flush began. */
  #bytes = 0
  #commits = 0

  /** @param intervalMs at most this long after a commit, a flush is begun */
  constructor(env: Environment, containers: Containers, intervalMs: number) {
    this.#env = env
    this.#containers = containers
    this.#intervalMs = intervalMs
    env.onCommit = () => this.#onCommit()
  }

  /** Bytes were added to containers, or wait to be removed with their file. */
  noteBytes(count: number): void {
    this.#bytes += count
    if (this.#bytes >= FLUSH_BYTES) this.#flushInBackground()
  }

  /**
   * Removes a file soon after the next flush, when the index on disk does not refer to it any more: after a power failure
   * it would be missing. For use in the transaction that forgets it.
   */
  unlinkLater(path: string): void {
    this.#doomed.add(path)
    this.#env.onRollback(() => this.#doomed.delete(path))
  }

  /** From now on, pages of the index are given back sooner. */
  spare(isSparing: boolean): void {
    this.#maxCommits = isSparing ? SPARING_COMMITS : FLUSH_COMMITS
  }

  #onCommit(): void {
    if (++this.#commits >= this.#maxCommits) this.#flushInBackground()
    if (this.#timer !== undefined || this.#closed) return
    this.#timer = setTimeout(() => this.#flushInBackground(), this.#intervalMs)
    this.#timer.unref()
  }

  /** Begins a flush whose failure is logged, and reported again by the next one that somebody waits for. */
  #flushInBackground(): void {
    this.#resetCounts()
    this.flush().catch(err => log('%s', messageOf(err)))
  }

  #resetCounts(): void {
    this.#bytes = 0
    this.#commits = 0
  }

  /**
   * Resolves when everything written before the call is on disk. Calls that come while one runs share the next.
   * @throws CidfsError `IO`, for ever after the first time.
   */
  flush(): Promise<void> {
    this.#next ??= this.#begin()
    return this.#next
  }

  /** Resolves when the files are removed that the last flush has seen forgotten. */
  get unlinked(): Promise<void> {
    return this.#unlinking
  }

  /** Flushes for the last time. */
  async close(): Promise<void> {
    this.#closed = true
    this.#disarm()
    try {
      await this.flush()
    } finally {
      await this.#unlinking
    }
  }

  async #begin(): Promise<void> {
    await this.#running?.catch(() => {})
    this.#next = undefined
    this.#running = this.#flushOnce()
    await this.#running
  }

  async #flushOnce(): Promise<void> {
    this.#disarm()
    this.#resetCounts()
    if (this.#failed !== undefined) throw this.#failed
    const doomed = [...this.#doomed]
    const state = this.#env.capture()
    const synced = await this.#unlinkIfFull(doomed, async () => {
      const containers = await this.#watch(this.#syncContainers())
      if (state !== undefined) await this.#watch(this.#env.persist(state))
      return containers
    })
    this.#unlinking = this.#unlinking.then(() => this.#unlink(doomed))
    if (synced.length === 0) return
    const armed = this.#timer !== undefined
    this.#env.transaction(() => this.#record(synced))
    // saves a later recovery some hashing, and is not worth a flush of its own
    if (!armed) this.#disarm()
  }

  /** On a full disk, space is worth more than what a power failure might then lose. */
  async #unlinkIfFull<T>(doomed: string[], work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (err) {
      if (codeOf(err) === 'NO_SPACE') await this.#unlink(doomed)
      throw err
    }
  }

  async #unlink(doomed: string[]): Promise<void> {
    for (const path of doomed) {
      if (!this.#doomed.delete(path)) continue
      await rm(path, { force: true }).catch(err => log('%s stays: %s', path, messageOf(err)))
    }
  }

  /** Remembers a sync that failed. */
  async #watch<T>(work: Promise<T>): Promise<T> {
    try {
      return await work
    } catch (cause) {
      const err = syncError(cause)
      if ((cause as NodeJS.ErrnoException).syscall?.endsWith('sync')) this.#failed = err
      throw err
    }
  }

  #disarm(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  async #syncContainers(): Promise<{ container: Container; length: number }[]> {
    const synced: { container: Container; length: number }[] = []
    const folders = new Set<string>()
    for (const container of this.#containers.unsynced()) {
      const length = container.length
      const path = this.#containers.path(container)
      if (await syncFile(path)) synced.push({ container, length })
      if (container.synced === 0) folders.add(dirname(path))
    }
    for (const folder of folders) {
      await syncFile(folder)
      await syncFile(dirname(folder))
    }
    return synced
  }

  #record(synced: { container: Container; length: number }[]): void {
    for (const { container, length } of synced) {
      if (this.#containers.get(container.id) !== container) continue
      container.synced = length
      this.#containers.record(container)
    }
  }
}

/** fdatasync(2); false when the file does not exist any more. */
async function syncFile(path: string): Promise<boolean> {
  try {
    const file = await open(path, fs.constants.O_RDONLY)
    try {
      await file.datasync()
    } finally {
      await file.close()
    }
    return true
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw err
  }
}

function syncError(cause: unknown): CidfsError {
  if (cause instanceof CidfsError) return cause
  const { code, syscall } = cause as NodeJS.ErrnoException
  const message = `cannot write the store to disk: ${messageOf(cause)}`
  return new CidfsError(isFull(code) ? 'NO_SPACE' : 'IO', message, { cause, syscall: syscall ?? 'fdatasync' })
}
