/**
 * Walks over the local part of a DAG.
 *
 * Invariant: each block is visited once however often it is linked, depth costs no stack, and the event loop
 * runs every few milliseconds. What the links of a block are is the caller's knowledge (the unixfs layer's):
 * this layer knows blocks only.
 *
 * Visited is kept by location and not by multihash: numbers take a fraction of the memory. A block that is
 * linked both as raw and as a node is visited once and still followed as a node.
 */
import type { Location } from '../core/blocks.js'
import { type CID, CODEC_RAW, isIdentity, keyOf } from '../core/cid.js'
import { codeOf, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { Pacer } from './pacer.js'
import type { Store } from './store.js'

const log = logger('store:walk')

/** The links of a block, in order; empty for a leaf. May throw `MALFORMED_DAG` or `UNSUPPORTED_CODEC`. */
export type Links = (cid: CID, bytes: Uint8Array) => readonly CID[]

/** `location` is undefined where the block is missing. Returning false ends the walk. */
export type Visit = (cid: CID, location: Location | undefined) => boolean | undefined

export interface WalkOptions {
  signal?: AbortSignal | undefined
  /** Blocks visited and nodes followed before, by an earlier walk that shares them. */
  seen?: Seen
}

/** What walks have visited. */
export class Seen {
  readonly #visited = new LocationSet()
  readonly #followed = new Map<number, LocationSet>()
  readonly #missing = new Set<string>()

  /** False when it was visited before. */
  visit(location: Location): boolean {
    return this.#visited.add(location)
  }

  /** Whether a block was visited. */
  has(location: Location): boolean {
    return this.#visited.has(location)
  }

  /** False when its links were followed before. */
  follow(location: Location, codec: number): boolean {
    const existing = this.#followed.get(codec)
    const followed = existing ?? new LocationSet()
    if (existing === undefined) this.#followed.set(codec, followed)
    return followed.add(location)
  }

  miss(cid: CID): boolean {
    const key = keyOf(cid)
    if (this.#missing.has(key)) return false
    this.#missing.add(key)
    return true
  }
}

class LocationSet {
  readonly #offsets = new Map<number, Set<number>>()

  add({ container, offset }: Location): boolean {
    let offsets = this.#offsets.get(container)
    if (offsets === undefined) this.#offsets.set(container, (offsets = new Set()))
    if (offsets.has(offset)) return false
    offsets.add(offset)
    return true
  }

  has({ container, offset }: Location): boolean {
    return this.#offsets.get(container)?.has(offset) ?? false
  }
}

/**
 * Visits every block of a DAG that is held, and those missing next to them, depth first and in order. Identity
 * CIDs are followed and not visited. A node that cannot be decoded has no links to follow.
 * @throws CidfsError `INTERRUPTED` and what `visit` throws.
 */
export async function walk(
  store: Store,
  root: CID,
  links: Links,
  visit: Visit,
  options: WalkOptions = {},
): Promise<void> {
  const seen = options.seen ?? new Seen()
  const pacer = new Pacer(options.signal)
  pacer.check()
  const stack: CID[] = [root]
  for (let cid = stack.pop(); cid !== undefined; cid = stack.pop()) {
    if (pacer.due) await pacer.pause()
    if (isIdentity(cid)) {
      pushLinks(stack, linksOf(cid, cid.multihash.digest, links))
      continue
    }
    const location = store.locate(cid)
    const first = location === undefined ? seen.miss(cid) : seen.visit(location)
    if (first && visit(cid, location) === false) return
    if (location === undefined || cid.code === CODEC_RAW || !seen.follow(location, cid.code)) continue
    const bytes = store.get(cid)
    if (bytes !== undefined) pushLinks(stack, linksOf(cid, bytes, links))
    else if (seen.miss(cid) && visit(cid, undefined) === false) return
  }
}

function pushLinks(stack: CID[], links: readonly CID[]): void {
  for (let i = links.length - 1; i >= 0; i--) stack.push(links[i] as CID)
}

function linksOf(cid: CID, bytes: Uint8Array, links: Links): readonly CID[] {
  try {
    return links(cid, bytes)
  } catch (err) {
    const code = codeOf(err)
    if (code !== 'MALFORMED_DAG' && code !== 'UNSUPPORTED_CODEC') throw err
    log('%s is followed no further: %s', cid, messageOf(err))
    return []
  }
}

export interface Completeness {
  /** Every block of the DAG is here. */
  held: boolean
  /** Distinct blocks that are here, and their bytes. */
  blocks: number
  bytes: number
  /** Distinct blocks known to be missing; what lies below them is not known. */
  missing: number
  firstMissing: CID | undefined
}

/**
 * How much of a DAG is held. With `stopAtFirstMissing` the counts end there.
 * @throws CidfsError `INTERRUPTED`.
 */
export async function completeness(
  store: Store,
  root: CID,
  links: Links,
  options: { signal?: AbortSignal | undefined; stopAtFirstMissing?: boolean } = {},
): Promise<Completeness> {
  const result: Completeness = { held: true, blocks: 0, bytes: 0, missing: 0, firstMissing: undefined }
  const count: Visit = (cid, location) => {
    if (location !== undefined) {
      result.blocks++
      result.bytes += location.length
      return true
    }
    result.held = false
    result.missing++
    result.firstMissing ??= cid
    return options.stopAtFirstMissing !== true
  }
  await walk(store, root, links, count, { signal: options.signal })
  return result
}
