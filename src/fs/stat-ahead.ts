/**
 * Fetches the roots of a directory's children in batches when a program looks at them one by one.
 *
 * Invariant: listing alone fetches nothing. Only after two children in a row (in the order of the listing)
 * have been looked up are the next ones asked for, at most `AHEAD` before the program. Raw children are left
 * out: their links say how large they are.
 * Why: `ls -l` asks for ten thousand names, each a round trip, one after the other.
 */
import { type CID, CODEC_RAW } from '../core/cid.js'
import { codeOf, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { prefetch } from '../sources/batch.js'
import type { BlockService } from '../sources/block-service.js'
import type { Directory, DirLink } from '../unixfs/directory.js'

const log = logger('fs:stat-ahead')

const AHEAD = 512

interface Walk {
  links: readonly DirLink[]
  /** Index of the child that was looked up last. */
  last: number
  /** Children before this one have been asked for. */
  askedTo: number
  inRow: number
  running: boolean
}

export class StatAhead {
  readonly #blocks: BlockService
  readonly #walks = new WeakMap<Directory, Walk>()
  readonly #abort = new AbortController()

  constructor(blocks: BlockService) {
    this.#blocks = blocks
  }

  /** A program has read the listing: from here on lookups may be a walk through it. */
  listed(directory: Directory, links: readonly DirLink[]): void {
    if (this.#walks.has(directory)) return
    this.#walks.set(directory, { links, last: -1, askedTo: 0, inRow: 0, running: false })
  }

  /** A child was looked up. Never waits. */
  lookedUp(directory: Directory, name: Uint8Array): void {
    const walk = this.#walks.get(directory)
    if (walk === undefined) return
    const index = findBehind(walk.links, walk.last, name)
    if (index === undefined) {
      walk.inRow = 0
      return
    }
    walk.last = index
    walk.inRow++
    if (walk.inRow >= 2 && !walk.running && index + AHEAD / 2 > walk.askedTo) void this.#ask(walk)
  }

  close(): void {
    this.#abort.abort()
  }

  async #ask(walk: Walk): Promise<void> {
    const start = Math.max(walk.askedTo, walk.last + 1)
    walk.askedTo = Math.min(walk.links.length, start + AHEAD)
    const wanted: CID[] = []
    for (let index = start; index < walk.askedTo; index++) {
      const { cid } = walk.links[index]!
      if (cid.code !== CODEC_RAW && !this.#blocks.has(cid)) wanted.push(cid)
    }
    if (wanted.length === 0) return
    walk.running = true
    try {
      await prefetch(this.#blocks, wanted, { signal: this.#abort.signal })
    } catch (err) {
      if (codeOf(err) !== 'INTERRUPTED') log('%s', messageOf(err))
    } finally {
      walk.running = false
    }
  }
}

/** How far behind the last one a child still counts as the next: programs skip some. */
const NEAR = 64

function findBehind(links: readonly DirLink[], last: number, name: Uint8Array): number | undefined {
  const end = Math.min(links.length, last + 1 + NEAR)
  for (let index = last + 1; index < end; index++) {
    if (Buffer.compare(links[index]!.name, name) === 0) return index
  }
  return undefined
}
