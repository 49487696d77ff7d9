/**
 * Keeps a back-end in step with the top-level entries of `staging/`.
 *
 * Invariant: for each entry the queue remembers (in LMDB, in the transaction that changed the entry) what is
 * wanted there, what is known to be pinned there, and what may be pinned there besides. The new content is
 * pinned before the old is given back, and what another entry needs is not given back. Nothing is dropped:
 * failures come again with back-off, across restarts.
 */
import type { Database } from 'lmdb'
import { CID } from '../core/cid.js'
import { messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { Store } from '../store/store.js'
import { retryDelayMs } from './back-off.js'
import type { Backend } from './backend.js'
import { inoKey, keyIno } from './keys.js'

const log = logger('staging:backend')

interface Wish {
  label: string
  /** What should be pinned there; absent: nothing. */
  wanted?: Uint8Array
  /** `wanted` may be pinned there already: an attempt has begun. */
  attempted?: boolean
  /** What is pinned there, as far as we know. */
  done?: Uint8Array
  /** What may be pinned there besides, to be given back as soon as `wanted` is pinned. */
  old?: Uint8Array[]
  /** What the entry has replaced: pinned until there is a wish for its new content. */
  held?: Uint8Array[]
  tries: number
  error?: string
}

export interface BackendState {
  pending: boolean
  tries: number
  error: string | undefined
}

const CONCURRENCY = 2

export class BackendQueue {
  readonly #backend: Backend
  readonly #wishes: Database<Wish, Buffer>
  /** CID, ino: entries that need this CID to stay pinned. */
  readonly #needs: Database<Buffer, Buffer>
  readonly #store: Store
  /** Entries to be worked on, and the clock time in milliseconds from which. */
  readonly #pending = new Map<number, number>()
  readonly #running = new Map<number, AbortController>()
  /** CIDs that are being unpinned: whoever pins one of them anew has to wait for that. */
  readonly #leaving = new Map<string, Promise<void>>()
  #timer: NodeJS.Timeout | undefined
  #stopped = true
  #ended: (() => void) | undefined
  /** Called when an entry is done or has failed. */
  onChange: () => void = () => {}

  constructor(store: Store, backend: Backend) {
    const { env } = store
    this.#store = store
    this.#backend = backend
    this.#wishes = env.openDB({ name: `staging:backend:${backend.name}`, keyEncoding: 'binary' })
    this.#needs = env.openDB({
      name: `staging:backend-needs:${backend.name}`,
      keyEncoding: 'binary',
      encoding: 'binary',
    })
  }

  start(): void {
    this.#stopped = false
    for (const { key, value } of this.#wishes.getRange({ start: inoKey(0) })) {
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
    const before = this.#wishes.get(inoKey(ino))
    const unchanged = same(before?.wanted, cid?.bytes)
    const old = unchanged ? (before?.old ?? []) : leftovers(before)
    // given back only when `cid` is pinned: that comes first
    const wish: Wish = { label, tries: 0, old: [...old, ...(before?.held ?? [])] }
    if (cid !== undefined) wish.wanted = cid.bytes
    if (unchanged && before?.attempted === true) wish.attempted = true
    if (before?.done !== undefined) wish.done = before.done
    this.#put(ino, wish)
    this.#queue(ino, wish)
  }

  /** Entry `to` takes the place of `from`, whose content stays pinned until that of `to` is. As `want`. */
  replace(from: number, to: number, label: string): void {
    const gone = this.#wishes.get(inoKey(from))
    if (gone === undefined) return
    this.#put(from, undefined)
    const before = this.#wishes.get(inoKey(to))
    const wish: Wish = before ?? { label, tries: 0 }
    wish.old = [...(wish.old ?? []), ...leftovers(gone)]
    const held = [...(wish.held ?? []), ...(gone.held ?? [])]
    if (before !== undefined && gone.done !== undefined) held.push(gone.done)
    else if (gone.done !== undefined) Object.assign(wish, { wanted: gone.done, done: gone.done })
    if (held.length > 0) wish.held = distinct(held)
    this.#put(to, wish)
    this.#queue(to, wish)
  }

  state(ino: number): BackendState {
    const wish = this.#wishes.get(inoKey(ino))
    return { pending: wish !== undefined && !isDone(wish), tries: wish?.tries ?? 0, error: wish?.error }
  }

  get pendingCount(): number {
    return this.#pending.size
  }

  /** How many entries are not done, how many of them have failed, and what one of those met. */
  summary(): { pending: number; failed: number; error: string | undefined } {
    const states = [...this.#pending.keys()].map(ino => this.state(ino))
    const failed = states.filter(state => state.tries > 0)
    return { pending: states.length, failed: failed.length, error: failed[0]?.error }
  }

  /** Entries whose last try has failed. */
  *failing(): Generator<BackendState & { ino: number }> {
    for (const ino of this.#pending.keys()) {
      const state = this.state(ino)
      if (state.tries > 0) yield { ino, ...state }
    }
  }

  /** Stores or removes a wish together with what it needs. */
  #put(ino: number, wish: Wish | undefined): void {
    const key = inoKey(ino)
    this.#store.transaction(() => {
      for (const cid of needsOf(this.#wishes.get(key))) this.#needs.removeSync(Buffer.concat([cid, key]))
      for (const cid of needsOf(wish)) this.#needs.putSync(Buffer.concat([cid, key]), Buffer.of(1))
      if (wish === undefined || isVoid(wish)) this.#wishes.removeSync(key)
      else this.#wishes.putSync(key, wish)
    })
  }

  #queue(ino: number, wish: Wish): void {
    if (isDone(wish)) this.#pending.delete(ino)
    else this.#pending.set(ino, 0)
    this.#schedule()
  }

  #schedule(): void {
    if (this.#stopped || this.#running.size >= CONCURRENCY) return
    let dueMs = Number.POSITIVE_INFINITY
    for (const [ino, ms] of this.#pending) if (ms < dueMs && !this.#running.has(ino)) dueMs = ms
    clearTimeout(this.#timer)
    if (dueMs === Number.POSITIVE_INFINITY) return
    this.#timer = setTimeout(() => this.#pump(), Math.max(0, dueMs - Date.now()))
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
    this.#schedule()
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
      if (wish.wanted !== undefined && !same(wish.wanted, wish.done))
        await this.#publish(ino, wish.wanted, wish, signal)
      for (const cid of this.#pinned(ino, wish.wanted)) await this.#giveBack(ino, cid, signal)
      this.#queue(ino, this.#wishes.get(inoKey(ino)) ?? { label: '', tries: 0 })
    } catch (err) {
      if (!signal.aborted) this.#failed(ino, wish, messageOf(err))
    }
  }

  async #publish(ino: number, wanted: Uint8Array, wish: Wish, signal: AbortSignal): Promise<void> {
    this.#put(ino, { ...wish, attempted: true })
    await this.#leaving.get(textOf(wanted))?.catch(() => {})
    await this.#backend.publish(CID.decode(wanted), wish.label, signal)
  }

  /** Remembers what is pinned now; returns what can be given back for it. */
  #pinned(ino: number, cid: Uint8Array | undefined): Uint8Array[] {
    const { label = '', wanted, done, old = [], held } = this.#wishes.get(inoKey(ino)) ?? {}
    const next: Wish = { label, tries: 0 }
    if (held !== undefined) next.held = held
    if (wanted !== undefined) next.wanted = wanted
    if (cid !== undefined) next.done = cid
    next.old = distinct(done === undefined ? old : [...old, done]).filter(other => !same(other, cid))
    this.#put(ino, next)
    return next.old
  }

  async #giveBack(ino: number, cid: Uint8Array, signal: AbortSignal): Promise<void> {
    if (!this.#isNeeded(cid)) await (this.#leaving.get(textOf(cid)) ?? this.#unpublish(cid, signal))
    const wish = this.#wishes.get(inoKey(ino))
    if (wish !== undefined)
      this.#put(ino, { ...wish, old: (wish.old ?? []).filter(other => !same(other, cid)) })
  }

  #unpublish(cid: Uint8Array, signal: AbortSignal): Promise<void> {
    const key = textOf(cid)
    const leaving = this.#backend.unpublish(CID.decode(cid), signal).finally(() => this.#leaving.delete(key))
    this.#leaving.set(key, leaving)
    return leaving
  }

  #isNeeded(cid: Uint8Array): boolean {
    const range = { start: Buffer.from(cid), end: Buffer.concat([cid, Buffer.alloc(8, 0xff)]), limit: 1 }
    for (const _ of this.#needs.getKeys(range)) return true
    return false
  }

  /** A wish that has changed meanwhile has not failed: it has its first try before it. */
  #failed(ino: number, tried: Wish, error: string): void {
    log('%s: %s', this.#backend.name, error)
    const wish = this.#wishes.get(inoKey(ino))
    if (wish === undefined) return void this.#pending.delete(ino)
    if (!same(wish.wanted, tried.wanted)) return void this.#pending.set(ino, 0)
    const tries = wish.tries + 1
    this.#pending.set(ino, Date.now() + retryDelayMs(tries))
    try {
      this.#put(ino, { ...wish, tries, error: `${this.#backend.name}: ${error}` })
    } catch (err) {
      // a full disk: it is tried again all the same
      log('%s: %s', this.#backend.name, messageOf(err))
    }
  }
}

function isDone(wish: Wish): boolean {
  return same(wish.wanted, wish.done) && (wish.old ?? []).length === 0
}

function isVoid(wish: Wish): boolean {
  return wish.wanted === undefined && wish.done === undefined && wish.held === undefined && isDone(wish)
}

/** What must stay pinned: what is wanted, and what that is to replace until it has. */
function needsOf(wish: Wish | undefined): Uint8Array[] {
  const { wanted, done, held = [] } = wish ?? {}
  if (wanted === undefined) return held
  return distinct(done === undefined ? [wanted, ...held] : [wanted, done, ...held])
}

/** What is not wanted any more and may be pinned without being known to be. */
function leftovers(wish: Wish | undefined): Uint8Array[] {
  const old = wish?.old ?? []
  const unsure = wish?.attempted === true && wish.wanted !== undefined && !same(wish.wanted, wish.done)
  return unsure ? [...old, wish.wanted!] : old
}

function distinct(cids: Uint8Array[]): Uint8Array[] {
  return cids.filter((cid, index) => cids.findIndex(other => same(other, cid)) === index)
}

function textOf(cid: Uint8Array): string {
  return Buffer.from(cid).toString('hex')
}

function same(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a === undefined || b === undefined ? a === b : Buffer.compare(a, b) === 0
}
