/**
 * What one peer wants of us, and what is to be sent to it.
 *
 * Invariant: bounded: at most `MAX_WANTS` wants, of which the oldest that we cannot serve give way to new ones; at
 * most one answer for each is queued. Wants that we cannot serve are kept: we may get the block yet.
 */
import type { CID } from '../core/cid.js'
import type { HeldBlock } from './supply.js'

/** As many as Kubo keeps. */
export const MAX_WANTS = 1_024
/** A block up to this size is sent to whoever asks whether we have it. */
const HAVE_REPLACED_BYTES = 1_024

export interface PeerWant {
  cid: CID
  priority: number
  have: boolean
  sendDontHave: boolean
}

/** What is to be sent for a want. */
export type Answer =
  | { want: PeerWant; kind: 'block'; held: HeldBlock }
  | { want: PeerWant; kind: 'has' | 'absent' }

export class ServerPeer {
  /** By the bytes of the CID: codec and version are repeated in the answer. */
  readonly #wants = new Map<string, PeerWant>()
  readonly #answers = new Map<string, Answer>()
  /** Of the queued blocks. */
  pendingBytes = 0
  sentBlocks = 0
  sentBytes = 0

  get wants(): number {
    return this.#wants.size
  }

  get hasAnswers(): boolean {
    return this.#answers.size > 0
  }

  /** Wants that nothing is queued for: what we have not got. */
  *open(): Generator<[string, PeerWant]> {
    for (const entry of this.#wants) if (!this.#answers.has(entry[0])) yield entry
  }

  /** False: there are too many, all of which can be served. */
  want(key: string, want: PeerWant): boolean {
    const known = this.#wants.get(key)
    if (known !== undefined) {
      // A want-block includes the want-have.
      this.#wants.set(key, { ...want, have: want.have && known.have })
      return true
    }
    if (this.#wants.size >= MAX_WANTS && !this.#makeRoom()) return false
    this.#wants.set(key, want)
    return true
  }

  #makeRoom(): boolean {
    for (const [key] of this.open()) return this.#wants.delete(key)
    return false
  }

  cancel(key: string): void {
    this.#wants.delete(key)
    this.#unqueue(key)
  }

  /** A want list that replaces the earlier ones begins. */
  clear(): void {
    this.#wants.clear()
    this.#answers.clear()
    this.pendingBytes = 0
  }

  /**
   * Where the block of a want lies is known. `fresh`: the peer has just asked, and may want to be told no.
   */
  located(key: string, held: HeldBlock | undefined, fresh: boolean): void {
    const want = this.#wants.get(key)
    if (want === undefined) return
    this.#unqueue(key)
    if (held === undefined) {
      if (fresh && want.sendDontHave) this.#answers.set(key, { want, kind: 'absent' })
    } else if (want.have && held.length > HAVE_REPLACED_BYTES) {
      this.#answers.set(key, { want, kind: 'has' })
    } else {
      this.#answers.set(key, { want, kind: 'block', held })
      this.pendingBytes += held.length
    }
  }

  /** The want is not kept for later; an answer that is queued for it is sent. */
  forget(key: string): void {
    this.#wants.delete(key)
  }

  #unqueue(key: string): void {
    const answer = this.#answers.get(key)
    if (answer?.kind === 'block') this.pendingBytes -= answer.held.length
    this.#answers.delete(key)
  }

  /**
   * Takes answers from the queue: of the highest priority first, in the order of asking, up to so many bytes of
   * blocks but at least one answer. A want whose block is taken is over; of the others only a yes ends them.
   */
  take(maxBytes: number): Answer[] {
    const taken: Answer[] = []
    let bytes = 0
    for (const [key, answer] of this.#byPriority()) {
      const size = answer.kind === 'block' ? answer.held.length : PRESENCE_BYTES
      if (taken.length > 0 && bytes + size > maxBytes) break
      bytes += size
      taken.push(answer)
      this.#unqueue(key)
      if (answer.kind !== 'absent') this.#wants.delete(key)
    }
    return taken
  }

  #byPriority(): [string, Answer][] {
    const answers = [...this.#answers]
    const first = answers[0]?.[1].want.priority
    if (answers.every(([, { want }]) => want.priority === first)) return answers
    return answers.sort(([, a], [, b]) => b.want.priority - a.want.priority)
  }
}

const PRESENCE_BYTES = 48
