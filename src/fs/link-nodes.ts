/**
 * Symbolic links whose targets change with time: each target is a node of its own.
 *
 * Invariant: the target of a node never changes, because the kernel caches what it once read of a link for as long
 * as it knows the node. An id is on disk before the kernel learns of it, until the kernel forgets it or the mount
 * ends.
 */
import { hash } from 'node:crypto'
import type { Database } from 'lmdb'
import { CidfsError } from '../core/errors.js'
import type { Store } from '../store/store.js'
import type { Ino } from './file-system.js'
import { FIRST_LINK_INO, MAX_LINKS } from './ino.js'

export interface LinkNode {
  readonly ino: Ino
  readonly name: string
  readonly target: string
}

/** Hexadecimal digits of 48 bits. */
const HASH_DIGITS = 12

export class LinkNodes {
  readonly #db: Database<{ name: string; target: string }, number>
  readonly #nodes = new Map<Ino, LinkNode & { nlookup: number }>()

  /** `resume`: the mount is one that an earlier daemon served. */
  constructor({ env }: Store, resume: boolean) {
    this.#db = env.openDB({ name: 'fs:links' })
    if (!resume) this.#db.clearSync()
  }

  /** The id that a link has or would have. */
  inoOf(name: string, target: string): Ino {
    for (
      let ino = firstIno(name, target);
      ;
      ino = FIRST_LINK_INO + ((ino + 1 - FIRST_LINK_INO) % MAX_LINKS)
    ) {
      const node = this.#find(ino)
      if (node === undefined || (node.name === name && node.target === target)) return ino
    }
  }

  /** Counted as one lookup. */
  lookup(name: string, target: string): LinkNode {
    const ino = this.inoOf(name, target)
    // how often the kernel holds what an earlier daemon gave it is not known: it stays until the mount ends
    const nlookup = this.#db.doesExist(ino) ? Number.POSITIVE_INFINITY : 0
    const node = this.#nodes.get(ino) ?? { ino, name, target, nlookup }
    if (node.nlookup++ === 0) this.#db.putSync(ino, { name, target })
    this.#nodes.set(ino, node)
    return node
  }

  /** @throws CidfsError `STALE` for an id that was never handed out. */
  get(ino: Ino): LinkNode {
    const node = this.#find(ino)
    if (node === undefined) throw new CidfsError('STALE', `no link ${ino}`)
    return node
  }

  forget(ino: Ino, count: number): void {
    const node = this.#nodes.get(ino)
    if (node === undefined || (node.nlookup -= count) > 0) return
    this.#nodes.delete(ino)
    this.#db.removeSync(ino)
  }

  #find(ino: Ino): LinkNode | undefined {
    const node = this.#nodes.get(ino)
    if (node !== undefined) return node
    const stored = this.#db.get(ino)
    return stored && { ino, ...stored }
  }
}

function firstIno(name: string, target: string): Ino {
  return (
    FIRST_LINK_INO + Number.parseInt(hash('sha256', `${name}\0${target}`, 'hex').slice(0, HASH_DIGITS), 16)
  )
}
