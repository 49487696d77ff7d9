/**
 * Wants that belong together: the blocks of one DAG, which one peer usually has all of.
 *
 * Invariant: bounded: what is forgotten costs one more round of questions and nothing else. A block belongs to the
 * session of the first node that linked to it; one that nobody linked to begins a session of its own.
 * Why the links are read here: bitswap is asked for blocks one by one, and is not told what they are for.
 */
import { LRUCache } from 'lru-cache'
import { type CID, CODEC_DAG_PB, keyOf } from '../core/cid.js'
import { keyOfCidBytes } from './block-key.js'
import { linksOf } from './dag-links.js'

const MAX_LINKS = 32_768
const MAX_PEERS = 256
/** Peers above this are asked first, and alone. */
const LIKELY = 0.3
const FIRST_YES = 0.6
const WEIGHT = 0.3

export class Session {
  readonly root: CID
  /** How often a peer that was asked for a block of it had it, of late: 0 to 1. There are thousands of these. */
  #affinity: Map<string, number> | undefined

  constructor(root: CID) {
    this.root = root
  }

  /** A peer had a block of it. */
  yes(peerId: string): void {
    const old = this.#affinity?.get(peerId) ?? 0
    this.#set(peerId, Math.max(FIRST_YES, old + WEIGHT * (1 - old)))
  }

  /** A peer had not, or did not keep its word. */
  no(peerId: string): void {
    const old = this.#affinity?.get(peerId)
    if (old !== undefined) this.#set(peerId, old * (1 - WEIGHT))
  }

  #set(peerId: string, affinity: number): void {
    this.#affinity ??= new Map()
    this.#affinity.delete(peerId)
    this.#affinity.set(peerId, affinity)
    const [oldest] = this.#affinity.keys()
    if (this.#affinity.size > MAX_PEERS && oldest !== undefined) this.#affinity.delete(oldest)
  }

  likely(peerId: string): boolean {
    return (this.#affinity?.get(peerId) ?? 0) > LIKELY
  }
}

export class Sessions {
  readonly #byBlock = new LRUCache<string, Session>({ max: MAX_LINKS })

  of(cid: CID): Session {
    const key = keyOf(cid)
    const known = this.#byBlock.get(key)
    if (known !== undefined) return known
    const session = new Session(cid)
    this.#byBlock.set(key, session)
    return session
  }

  /** The session of a block that was asked for not long ago. */
  known(key: string): Session | undefined {
    return this.#byBlock.get(key)
  }

  /** A block of the session came: what it links to belongs to it as well. */
  arrived(session: Session, cid: CID, bytes: Uint8Array): void {
    if (cid.code !== CODEC_DAG_PB) return
    for (const link of linksOf(bytes)) {
      const key = keyOfCidBytes(link)
      if (key !== undefined && !this.#byBlock.has(key)) this.#byBlock.set(key, session)
    }
  }
}
