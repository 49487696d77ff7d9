/**
 * Messages on their way to one peer, in order, one at a time.
 *
 * Invariant: whoever has something to say asks for its turn first and writes the message when it has come, so that
 * nothing is kept here but those who wait: at most the client, the server, and what each of them bounds itself.
 */
import { messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { MaybePromise } from '../core/maybe-promise.js'
import type { PeerLink } from './link.js'

const log = logger('bitswap:send')

/** A peer that does not take a message within this time, and a second for every 12.5 kB, is gone for us. */
const SEND_TIMEOUT_MS = 10_000
const MIN_BYTES_PER_MS = 12.5

export class SendQueue {
  readonly #link: PeerLink
  #turn: Promise<void> = Promise.resolve()

  constructor(link: PeerLink) {
    this.#link = link
  }

  /** Sends what `compose` returns when it is its turn; false when nothing was sent or the peer is gone. */
  send(compose: () => MaybePromise<Uint8Array[]>): Promise<boolean> {
    const sent = this.#turn.then(async () => this.#send(await compose()))
    this.#turn = sent.then(() => undefined)
    return sent
  }

  async #send(pieces: Uint8Array[]): Promise<boolean> {
    if (pieces.length === 0) return false
    const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0)
    const timer = setTimeout(
      () => this.#link.drop('it does not take what it asked for'),
      SEND_TIMEOUT_MS + bytes / MIN_BYTES_PER_MS,
    )
    try {
      await this.#link.send(pieces)
      return true
    } catch (err) {
      log('%s: %s', this.#link.peerId, messageOf(err))
      return false
    } finally {
      clearTimeout(timer)
    }
  }
}
