/**
 * Keeps a back-end in step with the top-level entries of `staging/`.
 *
 * Invariant: for each entry the queue remembers (in LMDB, in the transaction that changed the entry) what is
 * wanted there and what is known to be pinned there. The new content is pinned before the old is unpinned,
 * and a CID that another entry wants or has is not unpinned. Nothing is dropped: failures come again with
 * back-off, across restarts.
 */
import type { Database } from 'lmdb'
import { CID } from '../core/cid.js'
import { messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { Store } from '../store/store.js'
import type { Backend } from './backend.js'
import { inoKey, keyIno } from './keys.js'

const log = logger('staging:backend')

interface Wish {
  label: string
  /** What should be pinned there; absent: nothing. */
  wanted?: Uint8Array
  /** What is pinned there, as far as we know. */
  done?: Uint8Array
  tries: number
  error?: string
}

export interface BackendState {
  pending: boolean
  tries: number
  error: string | undefined
}

const CONCURRENCY = 2
const FIRST_RETRY_MS = 1_000
const LAST_RETRY_MS = 5 * 60_000

export class BackendQueue {
  readonly #backend: Backend
  readonly #wishes: Database<Wish, Buffer>
  /** Entries to be worked on, and the clock time in milliseconds from which. */
  readonly #pending = new Map<number, number>()
  readonly #running = new Map<number, AbortController>()
  #timer: NodeJS.Timeout | undefined
  #stopped = true
  #ended: (() => void) | undefined
  /** Called when an entry is done or has failed. */
  onChange: () => void = () => {}

  constructor(store: Store, backend: Backend) {
    this.#backend = backend
    this.#wishes = store.env.openDB({ name: `staging:backend:${backend.name}`, keyEncoding: 'binary' })
  }

  start(): void {
    this.#stopped = false
    for (const { key, value } of this.#wishes.getRange({})) {
      if (!isDone(value)) this.#pending.set(keyIno(key), 0)
    }
    this.#schedule()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    for (const controller of this.#running.values()) controller.abort()
    if (this.#running.size > 0) await new Promise<void>(resolve => (this.#ended = resolve))
  }

  /** From now on `cid` is to be pinned for the entry, or nothing. For use inside a transaction. */
  want(ino: number, label: string, cid: CID | undefined): void {
    const wish: Wish = { label, tries: 0 }
    const done = this.#wishes.get(inoKey(ino))?.done
    if (cid !== undefined) wish.wanted = cid.bytes
    if (done !== undefined) wish.done = done
    this.#store(ino, wish)
    if (!isDone(wish)) this.#pending.set(ino, 0)
    this.#schedule()
  }

  state(ino: number): BackendState {
    const wish = this.#wishes.get(inoKey(ino))
    return { pending: wish !== undefined && !isDone(wish), tries: wish?.tries ?? 0, error: wish?.error }
  }

  get pendingCount(): number {
    return this.#pending.size
  }

  #store(ino: number, wish: Wish): void {
    if (wish.wanted === undefined && wish.done === undefined) this.#wishes.removeSync(inoKey(ino))
    else this.#wishes.putSync(inoKey(ino), wish)
  }

  #schedule(): void {
    if (this.#stopped || this.#pending.size === 0) return
    clearTimeout(this.#timer)
    const delayMs = Math.max(0, Math.min(...this.#pending.values()) - Date.now())
    this.#timer = setTimeout(() => this.#pump(), delayMs)
  }

  #pump(): void {
    const nowMs = Date.now()
    for (const [ino, dueMs] of this.#pending) {
      if (this.#stopped || this.#running.size >= CONCURRENCY) return
      if (dueMs > nowMs || this.#running.has(ino)) continue
      const controller = new AbortController()
      this.#running.set(ino, controller)
      void this.#run(ino, controller.signal).finally(() => this.#finished(ino))
    }
    if (this.#running.size < CONCURRENCY) this.#schedule()
  }

  #finished(ino: number): void {
    this.#running.delete(ino)
    this.onChange()
    if (this.#stopped && this.#running.size === 0) this.#ended?.()
    this.#schedule()
  }

  async #run(ino: number, signal: AbortSignal): Promise<void> {
    const wish = this.#wishes.get(inoKey(ino))
    if (wish === undefined || isDone(wish)) return void this.#pending.delete(ino)
    try {
      await this.#fulfil(wish, signal)
      this.#succeeded(ino, wish)
    } catch (err) {
      if (!signal.aborted) this.#failed(ino, messageOf(err))
    }
  }

  /** New first, then old. */
  async #fulfil({ wanted, done, label }: Wish, signal: AbortSignal): Promise<void> {
    if (wanted !== undefined) await this.#backend.publish(CID.decode(wanted), label, signal)
    if (done === undefined || same(done, wanted) || this.#isWantedTwice(done)) return
    await this.#backend.unpublish(CID.decode(done), signal)
  }

  #isWantedTwice(cid: Uint8Array): boolean {
    let count = 0
    for (const { value } of this.#wishes.getRange({}))
      if (same(value.wanted, cid) || same(value.done, cid)) count++
    return count > 1
  }

  #succeeded(ino: number, fulfilled: Wish): void {
    const wanted = this.#wishes.get(inoKey(ino))?.wanted
    const next: Wish = { label: fulfilled.label, tries: 0 }
    if (wanted !== undefined) next.wanted = wanted
    if (fulfilled.wanted !== undefined) next.done = fulfilled.wanted
    this.#store(ino, next)
    if (isDone(next)) this.#pending.delete(ino)
    else this.#pending.set(ino, 0)
  }

  #failed(ino: number, error: string): void {
    log('%s: %s', this.#backend.name, error)
    const wish = this.#wishes.get(inoKey(ino))
    if (wish === undefined) return
    const tries = wish.tries + 1
    this.#store(ino, { ...wish, tries, error: `${this.#backend.name}: ${error}` })
    this.#pending.set(ino, Date.now() + Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** (tries - 1)))
  }
}

function isDone(wish: Wish): boolean {
  return same(wish.wanted, wish.done)
}

function same(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a === undefined || b === undefined ? a === b : Buffer.compare(a, b) === 0
}
