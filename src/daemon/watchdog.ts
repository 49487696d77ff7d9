/**
 * A daemon whose main thread hangs is ended, with a word in the log about where it hung.
 *
 * Invariant: only a daemon with a supervisor ends itself: another goes on with the mount then. The main thread has
 * half of the time that the supervisor allows; the other half is for the dump, and the supervisor's own watchdog is
 * for a process that cannot even do that.
 * Why a worker: it goes on when the main thread does not, and can ask it for its stack as a debugger does.
 */
import { Worker } from 'node:worker_threads'
import { logger } from '../core/log.js'
import type { Supervisor } from './sd-notify.js'

const log = logger('daemon:watchdog')

const MAX_INTERVAL_MS = 1000
/** What has just started has better things to do than to start a thread. */
const WORKER_DELAY_MS = 1000

/** Under which name the worker finds what tells of the requests in flight. */
export const IN_FLIGHT = 'cidfs:in-flight'

export interface WatchdogData {
  /** One number, which grows while the main thread lives. */
  beats: SharedArrayBuffer
  limitMs: number
}

export class Watchdog {
  readonly #timer: NodeJS.Timeout
  readonly #delay: NodeJS.Timeout
  #worker: Worker | undefined

  private constructor(supervisor: Supervisor, limitMs: number) {
    const beats = new Int32Array(new SharedArrayBuffer(4))
    this.#timer = setInterval(
      () => {
        Atomics.add(beats, 0, 1)
        supervisor.beat()
      },
      Math.min(MAX_INTERVAL_MS, limitMs / 4),
    )
    this.#delay = setTimeout(() => this.#watch({ beats: beats.buffer, limitMs }), WORKER_DELAY_MS)
    this.#timer.unref()
    this.#delay.unref()
  }

  /** Nothing, where the supervisor does not care. `inFlight`: the requests that wait, as text. */
  static start(supervisor: Supervisor | undefined, inFlight: () => string): Watchdog | undefined {
    if (supervisor?.watchdogMs === undefined) return undefined
    Reflect.set(globalThis, Symbol.for(IN_FLIGHT), inFlight)
    return new Watchdog(supervisor, supervisor.watchdogMs / 2)
  }

  #watch(workerData: WatchdogData): void {
    const worker = new Worker(new URL('./watchdog-worker.js', import.meta.url), { workerData })
    worker.once('message', () => log('watching'))
    worker.on('error', err => log('the worker has died: %O', err))
    worker.unref()
    this.#worker = worker
  }

  stop(): void {
    clearInterval(this.#timer)
    clearTimeout(this.#delay)
    void this.#worker?.terminate()
  }
}
