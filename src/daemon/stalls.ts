/**
 * How long the main thread keeps requests of the kernel waiting because it is busy.
 *
 * Invariant: costs some 50 wake-ups a second and no allocation, and keeps no process alive.
 * Why sampled: a timer that fires late by so much is what a request that came at that moment would have waited.
 */
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks'
import type { StallReport } from './control-protocol.js'

const RESOLUTION_MS = 20
const NS_PER_MS = 1e6

export class Stalls {
  readonly #histogram: IntervalHistogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS })

  start(): void {
    this.#histogram.enable()
  }

  stop(): void {
    this.#histogram.disable()
  }

  /** Since the start. */
  report(): StallReport {
    return {
      p50Ms: lateness(this.#histogram.percentile(50)),
      p99Ms: lateness(this.#histogram.percentile(99)),
      maxMs: this.#histogram.count === 0 ? 0 : lateness(this.#histogram.max),
    }
  }
}

/** Of a timer that fired after so many nanoseconds. */
function lateness(ns: number): number {
  return Math.max(0, Math.round((ns / NS_PER_MS - RESOLUTION_MS) * 10) / 10)
}
