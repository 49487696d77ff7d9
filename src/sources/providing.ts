/**
 * Telling the network what is here, again and again, before the records expire.
 *
 * Invariant: when each record was last published is in the index, so that a restart goes on where it was, and a
 * block is provided once per interval however many pins reach it. It runs in the background, a few records at a
 * time; while nobody takes records it pauses, longer each time, and forgets nothing.
 *
 * Database `provided`: multihash to milliseconds since the epoch (u48, big-endian).
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type CID, isIdentity } from '../core/cid.js'
import { codeOf, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { NodeStatus } from '../p2p/node-status.js'
import { FIRST_KEY } from '../store/environment.js'
import { Pacer } from '../store/pacer.js'
import type { Store } from '../store/store.js'
import { type Links, Seen, walk } from '../store/walk.js'

const log = logger('sources:providing')

/** Records live 48 hours; Kubo publishes them again after 22. */
export const REPROVIDE_MS = 22 * 3_600_000
/** Records on their way at a time: each is a walk through the DHT. */
const CONCURRENCY = 6
/** Between looks for what is due, while nothing gets pinned. */
const IDLE_MS = 10 * 60_000
/** Until what was pinned is provided: files come in crowds. */
const GATHER_MS = 500
const FIRST_PAUSE_MS = 2_000
const MAX_PAUSE_MS = 10 * 60_000
/** Records of what is not pinned any more are forgotten after so many intervals. */
const FORGET_AFTER = 3
/** At a time. */
const MAX_FORGOTTEN = 10_000

export interface ProvidingStatus {
  what: 'roots' | 'all' | 'off'
  /** Blocks whose record is out and has not expired. */
  provided: number
  /** Found to be due and not yet out. */
  queued: number
  lastError: string | null
  /** Why nothing is provided at the moment; null when it is. */
  paused: string | null
}

/** The node, as far as it matters here. */
export interface ProvideNetwork {
  provide(cid: CID, signal: AbortSignal): Promise<number>
  status(): Promise<NodeStatus>
}

export interface ProvidingOptions {
  what: 'roots' | 'all' | 'off'
  links: Links
  intervalMs?: number
}

export class Providing {
  readonly #store: Store
  readonly #network: ProvideNetwork
  readonly #what: ProvidingOptions['what']
  readonly #links: Links
  readonly #intervalMs: number
  readonly #records: ReturnType<typeof openRecords>
  readonly #stop = new AbortController()
  readonly #running = new Set<Promise<void>>()
  #wake = new AbortController()
  #loop: Promise<void> | undefined
  #pauseMs = FIRST_PAUSE_MS
  #failed = false
  #lastError: string | null = null
  #paused: string | null = null

  constructor(store: Store, network: ProvideNetwork, options: ProvidingOptions) {
    this.#store = store
    this.#network = network
    this.#what = options.what
    this.#links = options.links
    this.#intervalMs = options.intervalMs ?? REPROVIDE_MS
    this.#records = openRecords(store)
  }

  start(): void {
    if (this.#what === 'off' || this.#loop !== undefined) return
    this.#store.pins.listeners.add(this.#onPin)
    this.#loop = this.#run()
  }

  async stop(): Promise<void> {
    this.#store.pins.listeners.delete(this.#onPin)
    this.#stop.abort()
    this.#wake.abort()
    await this.#loop
    await Promise.all(this.#running)
  }

  status(): ProvidingStatus {
    return {
      what: this.#what,
      provided: this.#records.count(),
      queued: this.#running.size,
      lastError: this.#lastError,
      paused: this.#what === 'off' ? 'switched off' : this.#paused,
    }
  }

  #onPin = (): void => this.#wake.abort()

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      // what is pinned from here on asks for another pass
      this.#wake = new AbortController()
      this.#paused = await this.#obstacle()
      this.#failed = false
      if (this.#paused === null) await this.#pass()
      const waitMs = this.#failed || this.#paused !== null ? this.#nextPause() : IDLE_MS
      await this.#wait(waitMs)
    }
  }

  /** Why nothing can be provided now. */
  async #obstacle(): Promise<string | null> {
    try {
      const { state, error, addresses } = await this.#network.status()
      if (state !== 'running') return error ?? `the node is ${state}`
      return addresses.length > 0 ? null : 'peers cannot reach this node: it listens nowhere (--listen)'
    } catch (err) {
      return messageOf(err)
    }
  }

  /** A pause after a failure is not cut short by new pins: they would fail, too. */
  async #wait(waitMs: number): Promise<void> {
    const idle = waitMs === IDLE_MS
    const signal = idle ? AbortSignal.any([this.#stop.signal, this.#wake.signal]) : this.#stop.signal
    await sleep(waitMs, undefined, { signal, ref: false }).catch(() => {})
    if (idle) await sleep(GATHER_MS, undefined, { signal: this.#stop.signal, ref: false }).catch(() => {})
  }

  #nextPause(): number {
    const pauseMs = this.#pauseMs
    this.#pauseMs = Math.min(MAX_PAUSE_MS, pauseMs * 2)
    return pauseMs
  }

  /** Everything that is due, once. */
  async #pass(): Promise<void> {
    const pacer = new Pacer()
    const seen = new Seen()
    for (const { cid } of this.#store.pins.list()) {
      if (this.#stop.signal.aborted || this.#failed) break
      if (pacer.due) await pacer.pause()
      if (this.#what === 'roots') await this.#provideIfDue(cid)
      else await this.#provideAll(cid, seen)
    }
    await Promise.all(this.#running)
    if (this.#failed) return
    this.#pauseMs = FIRST_PAUSE_MS
    this.#records.forgetOlderThan(Date.now() - FORGET_AFTER * this.#intervalMs)
  }

  /** In batches: the walk may not stand still in the middle of a block. */
  async #provideAll(root: CID, seen: Seen): Promise<void> {
    const due: CID[] = []
    const { signal } = this.#stop
    try {
      await walk(this.#store, root, this.#links, cid => void (this.#isDue(cid) && due.push(cid)), {
        seen,
        signal,
      })
    } catch (err) {
      if (codeOf(err) !== 'INTERRUPTED') throw err
    }
    for (const cid of due) {
      if (this.#failed || signal.aborted) return
      await this.#provideIfDue(cid)
    }
  }

  #isDue(cid: CID): boolean {
    if (isIdentity(cid)) return false
    const last = this.#records.get(cid)
    // a clock that was wrong must not keep a record from being renewed
    return last === undefined || Math.abs(Date.now() - last) >= this.#intervalMs
  }

  async #provideIfDue(cid: CID): Promise<void> {
    if (!this.#isDue(cid) || !this.#store.has(cid)) return
    while (this.#running.size >= CONCURRENCY) await Promise.race(this.#running)
    if (this.#failed || this.#stop.signal.aborted) return
    const task = this.#provide(cid).finally(() => this.#running.delete(task))
    this.#running.add(task)
  }

  async #provide(cid: CID): Promise<void> {
    const { signal } = this.#stop
    try {
      const taken = await this.#network.provide(cid, signal)
      log('%s: %d peers took the record', cid, taken)
      this.#records.set(cid, Date.now())
      this.#lastError = null
    } catch (err) {
      if (signal.aborted) return
      this.#failed = true
      this.#lastError = messageOf(err)
      log('%s could not be provided: %s', cid, this.#lastError)
    }
  }
}

/** When each block was last provided. */
function openRecords(store: Store) {
  const db = store.env.openDB<Uint8Array, Uint8Array>({
    name: 'provided',
    encoding: 'binary',
    keyEncoding: 'binary',
  })
  const keyOf = (cid: CID) => Buffer.from(cid.multihash.bytes)
  return {
    get: (cid: CID): number | undefined => {
      const value = db.get(keyOf(cid))
      return value === undefined ? undefined : decode(value)
    },
    set: (cid: CID, atMs: number): void => {
      const value = Buffer.allocUnsafe(6)
      value.writeUIntBE(atMs, 0, 6)
      store.transaction(() => db.putSync(keyOf(cid), value))
    },
    count: (): number => (db.getStats() as { entryCount: number }).entryCount,
    forgetOlderThan: (atMs: number): void => {
      const old: Uint8Array[] = []
      for (const { key, value } of db.getRange({ start: FIRST_KEY })) {
        if (decode(value) < atMs && old.push(Uint8Array.from(key)) >= MAX_FORGOTTEN) break
      }
      if (old.length === 0) return
      store.transaction(() => {
        for (const key of old) db.removeSync(key)
      })
    },
  }
}

function decode(value: Uint8Array): number {
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength).readUIntBE(0, 6)
}
