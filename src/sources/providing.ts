/**
 * Telling the network what is here, again and again, before the records expire.
 *
 * Invariant: when each record was last published is in the index, so that a restart goes on where it was, and a
 * block is provided once per interval however many pins reach it. It runs in the background, a few records at a
 * time; while nobody takes records it pauses, longer each time, and forgets nothing.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Location } from '../core/blocks.js'
import { type CID, isIdentity, keyOf } from '../core/cid.js'
import { codeOf, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { NodeStatus } from '../p2p/node-status.js'
import { Pacer } from '../store/pacer.js'
import type { Store } from '../store/store.js'
import { type Links, walk } from '../store/walk.js'
import { ProvidedRecords } from './provided-records.js'

const log = logger('sources:providing')

/** Records live 48 hours; Kubo publishes them again after 22. */
export const REPROVIDE_MS = 22 * 3_600_000
/** Records on their way at a time: each is a walk through the DHT. */
const CONCURRENCY = 6
/** Between looks for what is due, while nothing gets pinned. */
const IDLE_MS = 10 * 60_000
/** Until what was pinned is provided: files come in crowds. */
const GATHER_MS = 500
/** New pins that are remembered by themselves; more wait for the next pass. */
const MAX_FRESH = 10_000
/** Blocks of one DAG that are gathered at a time. */
const MAX_BATCH = 4_096
/** Between looks whether the network is there. */
const OBSTACLE_MS = 2_000
/** In a row: then it is not the block that is at fault, and the rest of a pass is put off. */
const MAX_FAILURES = 6
const FIRST_PAUSE_MS = 2_000
const MAX_PAUSE_MS = 10 * 60_000
/** Records of what is not pinned any more are forgotten after so many intervals. */
const FORGET_AFTER = 3

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
  readonly #records: ProvidedRecords
  readonly #stop = new AbortController()
  /** By the keys of their blocks. */
  readonly #running = new Map<string, Promise<void>>()
  /** Pinned since the pass began: they do not wait for their turn in the next one. */
  #fresh: CID[] = []
  #wake = new AbortController()
  #loop: Promise<void> | undefined
  #pauseMs = FIRST_PAUSE_MS
  /** Blocks that nobody took in this pass; the next one tries them again. */
  readonly #refused = new Set<string>()
  #failuresInRow = 0
  #lastError: string | null = null
  #paused: string | null = null

  constructor(store: Store, network: ProvideNetwork, options: ProvidingOptions) {
    this.#store = store
    this.#network = network
    this.#what = options.what
    this.#links = options.links
    this.#intervalMs = options.intervalMs ?? REPROVIDE_MS
    this.#records = new ProvidedRecords(store)
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
    await Promise.all(this.#running.values())
  }

  status(): ProvidingStatus {
    return {
      what: this.#what,
      provided: this.#records.count,
      queued: this.#running.size,
      lastError: this.#lastError,
      paused: this.#what === 'off' ? 'switched off' : this.#paused,
    }
  }

  #onPin = (cid: CID): void => {
    if (this.#fresh.length < MAX_FRESH) this.#fresh.push(cid)
    this.#wake.abort()
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      // what is pinned from here on asks for another pass
      this.#wake = new AbortController()
      this.#paused = await this.#obstacle()
      if (this.#paused === null) await this.#pass()
      if (this.#paused !== null) await this.#wait(OBSTACLE_MS)
      else await this.#wait(this.#refused.size > 0 ? this.#nextPause() : IDLE_MS)
    }
  }

  /** Why nothing can be provided now. */
  async #obstacle(): Promise<string | null> {
    try {
      const { state, error, addresses, routers } = await this.#network.status()
      if (state !== 'running') return error ?? `the node is ${state}`
      if (addresses.length === 0) return 'peers cannot reach this node: it listens nowhere (--listen)'
      const tables = routers.map(({ tableSize }) => tableSize).filter(size => size !== null)
      if (tables.length === 0) return 'the DHT is off (--dht)'
      return tables.some(size => size > 0) ? null : 'no peer of the DHT is connected'
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
    this.#refused.clear()
    this.#failuresInRow = 0
    for (const { cid } of this.#store.pins.list()) {
      if (this.#over) break
      if (pacer.due) await pacer.pause()
      for (const fresh of this.#fresh.splice(0)) await this.#providePin(fresh)
      await this.#providePin(cid)
    }
    this.#fresh = []
    await Promise.all(this.#running.values())
    if (this.#refused.size > 0) return
    this.#pauseMs = FIRST_PAUSE_MS
    await this.#records.forgetOlderThan(Date.now() - FORGET_AFTER * this.#intervalMs, pacer)
  }

  get #over(): boolean {
    return this.#failuresInRow >= MAX_FAILURES || this.#stop.signal.aborted
  }

  async #providePin(root: CID): Promise<void> {
    if (this.#what === 'roots') return this.#provideIfDue(root)
    // a walk may not stand still in the middle, so it ends with a batch and begins anew for the next one
    for (let due = [root]; due.length > 0 && !this.#over; ) {
      due = await this.#dueBelow(root)
      for (const cid of due) await this.#provideIfDue(cid)
      await Promise.all(this.#running.values())
    }
  }

  /** Some of the blocks that are due, none when none is. */
  async #dueBelow(root: CID): Promise<CID[]> {
    const due: CID[] = []
    const collect = (cid: CID, location: Location | undefined): boolean => {
      if (location !== undefined && this.#isDue(cid)) due.push(cid)
      return due.length < MAX_BATCH
    }
    try {
      await walk(this.#store, root, this.#links, collect, { signal: this.#stop.signal })
    } catch (err) {
      if (codeOf(err) !== 'INTERRUPTED') throw err
    }
    return due
  }

  #isDue(cid: CID): boolean {
    const key = keyOf(cid)
    if (isIdentity(cid) || this.#running.has(key) || this.#refused.has(key)) return false
    const last = this.#records.get(cid)
    // a clock that was wrong must not keep a record from being renewed
    return last === undefined || Math.abs(Date.now() - last) >= this.#intervalMs
  }

  async #provideIfDue(cid: CID): Promise<void> {
    if (!this.#isDue(cid) || !this.#store.has(cid)) return
    while (this.#running.size >= CONCURRENCY) await Promise.race(this.#running.values())
    if (this.#over || !this.#isDue(cid)) return
    const key = keyOf(cid)
    this.#running.set(
      key,
      this.#provide(cid).finally(() => this.#running.delete(key)),
    )
  }

  async #provide(cid: CID): Promise<void> {
    const { signal } = this.#stop
    try {
      const taken = await this.#network.provide(cid, signal)
      log('%s: %d peers took the record', cid, taken)
      this.#records.set(cid, Date.now())
      this.#lastError = null
      this.#failuresInRow = 0
    } catch (err) {
      if (signal.aborted) return
      this.#refused.add(keyOf(cid))
      this.#failuresInRow++
      this.#lastError = messageOf(err)
      log('%s could not be provided: %s', cid, this.#lastError)
    }
  }
}
