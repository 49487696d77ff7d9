/**
 * Names that lead to names.
 *
 * Invariant: a chain ends, after so many names at the latest, and what comes out is a path below `/ipfs/`.
 */
import { CidfsError } from '../core/errors.js'
import { type Name, parseName } from '../p2p/ipns-name.js'
import { parsePath } from '../p2p/ipns-path.js'
import { freshMs, isExpired, type NameEntry } from './name-cache.js'

export interface Resolved {
  /** `/ipfs/<cid>…` */
  path: string
  /** Milliseconds for which it is fresh; 0 when it is not. */
  ttlMs: number
  state: 'fresh' | 'stale' | 'expired'
}

/** As Kubo. */
const MAX_DEPTH = 32

/** From name to name, until a path below `/ipfs/` comes. */
export class NameChain {
  /** The name to be looked up; undefined when it has ended. */
  next: Name | undefined
  readonly #first: string
  #path = ''
  #segments: string[] = []
  #depth = 0
  #ttlMs = Number.POSITIVE_INFINITY
  #isExpired = false

  constructor(first: Name) {
    this.next = first
    this.#first = first.text
  }

  /** @throws CidfsError `MALFORMED_DAG`. */
  add(entry: NameEntry): void {
    if (++this.#depth > MAX_DEPTH) {
      throw new CidfsError(
        'MALFORMED_DAG',
        `${this.#first}: more than ${MAX_DEPTH} names lead to one another`,
      )
    }
    this.#ttlMs = Math.min(this.#ttlMs, freshMs(entry))
    this.#isExpired ||= isExpired(entry)
    const { root, segments } = parsePath([entry.value, ...this.#segments].join('/'))
    const [, tree, name = ''] = root.split('/')
    this.#segments = segments
    this.next = tree === 'ipns' ? parseName(name) : undefined
    this.#path = [root, ...segments].join('/')
  }

  get resolved(): Resolved {
    const state = this.#isExpired ? 'expired' : this.#ttlMs > 0 ? 'fresh' : 'stale'
    return { path: this.#path, ttlMs: this.#ttlMs, state }
  }
}
