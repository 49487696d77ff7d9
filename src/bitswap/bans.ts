/**
 * Peers that broke the rules, and are left alone for a while.
 *
 * Invariant: bounded, so that peers who change their ids cost nothing but the ids that are forgotten first. Each
 * further offence doubles the time.
 */
import { LRUCache } from 'lru-cache'

const FIRST_MS = 30_000
const MAX_MS = 60 * 60_000
const MAX_PEERS = 1_024

interface Ban {
  /** `Date.now()` */
  until: number
  lengthMs: number
  reason: string
}

export class Bans {
  readonly #bans = new LRUCache<string, Ban>({ max: MAX_PEERS })

  /** Returns for how many milliseconds. */
  add(peerId: string, reason: string): number {
    const lengthMs = Math.min(MAX_MS, (this.#bans.get(peerId)?.lengthMs ?? FIRST_MS / 2) * 2)
    this.#bans.set(peerId, { until: Date.now() + lengthMs, lengthMs, reason })
    return lengthMs
  }

  /** Why the peer is left alone; undefined when it is not. */
  reason(peerId: string): string | undefined {
    const ban = this.#bans.peek(peerId)
    return ban !== undefined && ban.until > Date.now() ? ban.reason : undefined
  }

  list(): { peerId: string; reason: string }[] {
    const now = Date.now()
    return [...this.#bans.entries()]
      .filter(([, { until }]) => until > now)
      .map(([peerId, { reason }]) => ({ peerId, reason }))
  }
}
