/**
 * Which of the roots somebody asked for are held completely: they are what `ls ipfs/` shows besides pins.
 *
 * Invariant: a root is only marked as held after a walk over all of its blocks. Walks run in the background,
 * one at a time, end at the first missing block, and come again the later the longer they took.
 * Why not at each block: a file is complete once, and has a million blocks.
 */
import { type CID, keyOf } from '../core/cid.js'
import { messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { Store } from '../store/store.js'
import { completeness } from '../store/walk.js'
import { links } from '../unixfs/inspect.js'

const log = logger('fs:held-roots')

const INTERVAL_MS = 1_000
/** A walk that took this long may come again after `REST` times that. */
const REST = 20
const MAX_CANDIDATES = 256

interface Candidate {
  cid: CID
  /** Clock time in milliseconds. */
  notBefore: number
}

export class HeldRoots {
  readonly #store: Store
  readonly #candidates = new Map<string, Candidate>()
  readonly #abort = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #checking = false

  constructor(store: Store) {
    this.#store = store
  }

  start(): void {
    this.#timer = setInterval(() => void this.#check(), INTERVAL_MS)
    this.#timer.unref()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#abort.abort()
  }

  /** Somebody used `ipfs/<cid>`. */
  asked(cid: CID): void {
    const key = keyOf(cid)
    if (this.#candidates.has(key) || this.#store.roots.isListed(cid)) return
    this.#store.roots.note(cid)
    this.#candidates.set(key, { cid, notBefore: 0 })
    const oldest = this.#candidates.keys().next().value
    if (this.#candidates.size > MAX_CANDIDATES && oldest !== undefined) this.#candidates.delete(oldest)
  }

  /**
   * How much of the DAG under `cid` is held here: 100 exactly when nothing is missing, else by blocks known.
   * @throws CidfsError `INTERRUPTED`.
   */
  async percentHeld(cid: CID, signal: AbortSignal): Promise<number> {
    const either = AbortSignal.any([signal, this.#abort.signal])
    const { blocks, missing } = await completeness(this.#store, cid, links, { signal: either })
    if (missing === 0) return 100
    return Math.min(99, Math.floor((100 * blocks) / (blocks + missing)))
  }

  async #check(): Promise<void> {
    if (this.#checking) return
    this.#checking = true
    try {
      for (const [key, candidate] of this.#candidates) {
        if (candidate.notBefore > Date.now()) continue
        await this.#checkOne(key, candidate)
      }
    } catch (err) {
      if (!this.#abort.signal.aborted) log('%s', messageOf(err))
    } finally {
      this.#checking = false
    }
  }

  async #checkOne(key: string, candidate: Candidate): Promise<void> {
    const began = performance.now()
    const { signal } = this.#abort
    const { missing } = await completeness(this.#store, candidate.cid, links, {
      signal,
      stopAtFirstMissing: true,
    })
    candidate.notBefore = Date.now() + REST * (performance.now() - began)
    if (missing > 0 || signal.aborted) return
    this.#store.roots.markHeld(candidate.cid, true)
    this.#candidates.delete(key)
  }
}
