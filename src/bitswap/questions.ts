/**
 * Questions who has a block, without fetching it.
 *
 * Invariant: each peer is asked once however many ask, and told when nobody wants to know any more. Who has not
 * answered is `unknown`, not `no`.
 */
import { type CID, keyOf } from '../core/cid.js'
import type { ClientPeer } from './client-peer.js'

export type Has = 'yes' | 'no' | 'unknown'

interface Question {
  answered(peer: ClientPeer, has: Has): void
}

export class Questions {
  readonly #open = new Map<string, Set<Question>>()

  /**
   * What each of the peers says, once all have answered or `signal` aborts. `wanted` tells then whether the block is
   * wanted besides, so that the peers must not be told otherwise.
   */
  async ask(
    cid: CID,
    peers: ClientPeer[],
    signal: AbortSignal,
    wanted: () => boolean,
  ): Promise<Map<string, Has>> {
    const key = keyOf(cid)
    const answers = new Map<string, Has>(peers.map(peer => [peer.id, 'unknown']))
    const asked = peers.filter(peer => peer.speaksPresence)
    if (asked.length === 0 || signal.aborted) return answers
    for (const peer of asked) {
      peer.questions++
      peer.question(key, cid)
    }
    await this.#answers(key, new Set(asked), answers, signal)
    const unwanted = !this.#open.has(key) && !wanted()
    for (const peer of asked) {
      peer.questions--
      if (unwanted) peer.cancel(key, cid)
    }
    return answers
  }

  #answers(
    key: string,
    silent: Set<ClientPeer>,
    answers: Map<string, Has>,
    signal: AbortSignal,
  ): Promise<void> {
    return new Promise(resolve => {
      const end = (): void => {
        signal.removeEventListener('abort', end)
        this.#close(key, question)
        resolve()
      }
      const question: Question = {
        answered: (peer, has) => {
          if (silent.delete(peer)) answers.set(peer.id, has)
          if (silent.size === 0) end()
        },
      }
      this.#open.set(key, (this.#open.get(key) ?? new Set()).add(question))
      signal.addEventListener('abort', end)
    })
  }

  #close(key: string, question: Question): void {
    const questions = this.#open.get(key)
    questions?.delete(question)
    if (questions?.size === 0) this.#open.delete(key)
  }

  answered(key: string, peer: ClientPeer, has: Has): void {
    for (const question of [...(this.#open.get(key) ?? [])]) question.answered(peer, has)
  }

  /** The peer is gone, and answers nothing any more. */
  left(peer: ClientPeer): void {
    for (const key of [...this.#open.keys()]) this.answered(key, peer, 'unknown')
  }
}
