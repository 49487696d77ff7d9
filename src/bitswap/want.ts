/**
 * A block that is wanted, and how each peer stands to it.
 *
 * Invariant: `asking` counts the peers that were asked for the bytes and are still trusted to send them soon; those
 * that are late may send them yet.
 */
import { type CID, keyOf } from '../core/cid.js'
import type { ClientPeer } from './client-peer.js'
import type { Session } from './session.js'

/** A read that somebody waits for, or a guess about what will be read next. */
export type Urgency = 'demand' | 'read-ahead'

/**
 * - `asked` for the bytes, `late` with them;
 * - `probed`: asked whether it has the block, `has` it, or not (`absent`).
 */
export type Standing = 'asked' | 'late' | 'probed' | 'has' | 'absent'

interface Waiter {
  resolve(bytes: Uint8Array): void
  reject(err: Error): void
}

export class Want {
  readonly cid: CID
  readonly key: string
  readonly session: Session
  readonly startedAt = performance.now()
  /** Ends what is done for this want alone. */
  readonly abort = new AbortController()
  urgency: Urgency
  asking = 0
  /** Providers were looked for, or are. */
  searched = false
  /** When that last ended. */
  searchedAt: number | undefined
  over = false
  readonly #standings = new Map<ClientPeer, Standing>()
  readonly #waiters = new Set<Waiter>()

  constructor(cid: CID, session: Session, urgency: Urgency) {
    this.cid = cid
    this.key = keyOf(cid)
    this.session = session
    this.urgency = urgency
  }

  get standings(): ReadonlyMap<ClientPeer, Standing> {
    return this.#standings
  }

  standing(peer: ClientPeer): Standing | undefined {
    return this.#standings.get(peer)
  }

  /** `undefined`: nothing is known any more. */
  stands(peer: ClientPeer, standing: Standing | undefined): void {
    if (this.#standings.get(peer) === 'asked') this.asking--
    if (standing === 'asked') this.asking++
    if (standing === undefined) this.#standings.delete(peer)
    else this.#standings.set(peer, standing)
  }

  /** The bytes, for one more reader; `onAlone` is called when its signal leaves nobody behind. */
  wait(signal: AbortSignal, onAlone: () => void): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const end = (): void => {
        this.#waiters.delete(waiter)
        signal.removeEventListener('abort', onAbort)
      }
      const waiter = {
        resolve: (bytes: Uint8Array) => {
          end()
          resolve(bytes)
        },
        reject: (err: Error) => {
          end()
          reject(err)
        },
      }
      const onAbort = (): void => {
        waiter.reject(new Error('aborted'))
        if (this.#waiters.size === 0 && !this.over) onAlone()
      }
      this.#waiters.add(waiter)
      if (signal.aborted) onAbort()
      else signal.addEventListener('abort', onAbort)
    })
  }

  /** Each reader gets bytes of its own: they may be transferred. */
  deliver(bytes: Uint8Array): void {
    const waiters = [...this.#waiters]
    waiters.forEach((waiter, i) => {
      waiter.resolve(i === 0 ? bytes : new Uint8Array(bytes))
    })
  }

  fail(err: Error): void {
    for (const waiter of [...this.#waiters]) waiter.reject(err)
  }
}
