/**
 * Which blocks peers may have, and where they lie.
 *
 * Invariant: nothing is said to be here that cannot be read from the file that is named; with `pinned`, nothing
 * that no pin reaches, as far as the last look at the pins knows (locations change, too, when garbage is collected). What is unpinned goes on being served until the
 * next look, half a minute later at most.
 * Why a set of what is pinned, made when somebody asks: a block does not know the DAGs that it belongs to.
 */
import { CID, isIdentity } from '../core/cid.js'
import { messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { Store } from '../store/store.js'
import { type Links, Seen, walk } from '../store/walk.js'
import type { Handlers } from './calls.js'
import type { BlockPlace, MainMethods } from './worker-protocol.js'

const log = logger('sources:served')

/** How old the set of pinned blocks may get while pins change. */
const MAX_AGE_MS = 30_000
/** More CIDs in one question are not looked at. */
const MAX_CIDS = 1024

/** Answers `locate` for the network worker. */
export function blockLocator(
  store: Store,
  serve: 'all' | 'pinned' | 'off',
  links: Links,
  { maxAgeMs = MAX_AGE_MS } = {},
): Handlers<MainMethods> {
  const pinned = serve === 'pinned' ? new PinnedBlocks(store, links, maxAgeMs) : undefined
  const place = (bytes: Uint8Array): BlockPlace | null => {
    const cid = CID.decode(bytes)
    const location = isIdentity(cid) ? undefined : store.locate(cid)
    if (location === undefined || pinned?.has(location) === false) return null
    const container = store.containers.get(location.container)
    if (container === undefined) return null
    return { path: store.containers.path(container), offset: location.offset, length: location.length }
  }
  return {
    locate: async ({ cids }) => {
      if (serve === 'off') return cids.map(() => null)
      await pinned?.refresh()
      return cids.slice(0, MAX_CIDS).map(place)
    },
  }
}

/** The blocks that pins reach. */
class PinnedBlocks {
  readonly #store: Store
  readonly #links: Links
  readonly #maxAgeMs: number
  #seen = new Seen()
  #changes = -1
  #madeAt = Number.NEGATIVE_INFINITY
  #making: Promise<void> | undefined
  /** A block was asked for that is held and not in the set: it may have moved. */
  #missed = false

  constructor(store: Store, links: Links, maxAgeMs: number) {
    this.#store = store
    this.#links = links
    this.#maxAgeMs = maxAgeMs
  }

  has(location: { container: number; offset: number; length: number }): boolean {
    const has = this.#seen.has(location)
    this.#missed ||= !has
    return has
  }

  /** The first time it is waited for; later the old set does until the new one is there. */
  async refresh(): Promise<void> {
    const stale = this.#missed || this.#store.pins.changes !== this.#changes
    const old = performance.now() - this.#madeAt > this.#maxAgeMs
    if (stale && old) {
      this.#making ??= this.#make().finally(() => {
        this.#making = undefined
      })
    }
    if (this.#changes === -1) await this.#making
  }

  async #make(): Promise<void> {
    const { changes } = this.#store.pins
    const seen = new Seen()
    this.#missed = false
    try {
      for (const { cid } of this.#store.pins.list()) {
        await walk(this.#store, cid, this.#links, () => true, { seen })
      }
      this.#seen = seen
      this.#changes = changes
    } catch (err) {
      log('pinned blocks could not be listed: %s', messageOf(err))
    } finally {
      this.#madeAt = performance.now()
    }
  }
}
