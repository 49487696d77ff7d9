/**
 * Makes room before it is missing: what was fetched and is not pinned goes when it gets tight.
 *
 * Invariant: garbage is only collected where there may be some, and seldom when it has taken long; somebody who waits
 * for room waits for one collection, and not longer than `WAIT_MS`.
 * Why a clock besides: the kernel writes files by itself, and others fill the disk.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { codeOf, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { Store } from '../store/store.js'
import type { Collector } from './maintenance.js'

const log = logger('daemon:space')

const TICK_MS = 1000
/** A writer waits for room at most this long. */
const WAIT_MS = 10_000
/** Collecting takes at most this part of the time, unless somebody waits for it. */
const DUTY = 0.1
/** While writes are refused, garbage is looked for again after this long, whatever is known of any. */
const LOOK_AGAIN_MS = 60_000

export class SpaceKeeper {
  readonly #store: Store
  readonly #collector: Pick<Collector, 'collect'>
  readonly #onRoom: () => void
  readonly #end = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined
  /** Without anybody waiting, nothing is collected before. */
  #notBeforeMs = 0
  #lookedMs = performance.now()
  #wasFull = false

  /** @param onRoom there is room again where there was none */
  constructor(store: Store, collector: Pick<Collector, 'collect'>, onRoom: () => void) {
    this.#store = store
    this.#onRoom = onRoom
    this.#collector = collector
  }

  start(): void {
    const { space } = this.#store
    space.onShortage = isAwaited => this.#relieve(isAwaited)
    this.#timer = setInterval(() => this.#tick(), TICK_MS)
    this.#timer.unref()
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    this.#store.space.onShortage = undefined
    this.#end.abort()
    await this.#running
  }

  #tick(): void {
    const { space } = this.#store
    try {
      space.keepReserve()
      const { isFull } = space
      if (isFull !== this.#wasFull) log(isFull ? 'full: writes are refused' : 'there is room again')
      if (this.#wasFull && !isFull) this.#onRoom()
      this.#wasFull = isFull
      if (isFull && performance.now() - this.#lookedMs > LOOK_AGAIN_MS) space.noteGarbage()
      if (space.isTight) void this.#relieve(false)
    } catch (err) {
      log('%s', messageOf(err))
    }
  }

  /** Resolves when there is more room, or none can be made. Never fails. */
  #relieve(isAwaited: boolean): Promise<void> {
    if (!isAwaited && performance.now() < this.#notBeforeMs) return Promise.resolve()
    this.#running ??= this.#makeRoom()
      .catch(err => log('no room was made: %s', messageOf(err)))
      .finally(() => {
        this.#running = undefined
      })
    if (!isAwaited) return this.#running
    const waited = new AbortController()
    const late = sleep(WAIT_MS, undefined, { signal: waited.signal }).catch(() => {})
    return Promise.race([this.#running, late]).finally(() => waited.abort())
  }

  async #makeRoom(): Promise<void> {
    const { space } = this.#store
    if (space.takeDropped()) await space.giveBack()
    const missing = space.comfortBytes - space.room()
    if (missing <= 0 || !space.takeGarbage()) return
    const beganMs = performance.now()
    this.#lookedMs = beganMs
    try {
      const { freedBytes } = await this.#collector.collect(() => {}, this.#end.signal, missing)
      log('%d bytes collected, %d were wanted', freedBytes, missing)
      if (freedBytes >= missing) space.noteGarbage() // it stopped there: there may be more
    } catch (err) {
      if (codeOf(err) === 'BUSY') space.noteGarbage()
      throw err
    } finally {
      const endedMs = performance.now()
      this.#notBeforeMs = endedMs + (endedMs - beganMs) / DUTY
      space.changed()
    }
  }
}
