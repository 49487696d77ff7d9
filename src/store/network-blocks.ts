/**
 * The store as the network sees it: what it brings is kept while there is room.
 *
 * Invariant: a block that is not kept is refused with `NO_SPACE`, which keeps nobody from reading it once.
 */
import type { Location } from '../core/blocks.js'
import type { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import type { Store } from './store.js'

export class NetworkBlocks {
  readonly #store: Store

  constructor(store: Store) {
    this.#store = store
  }

  get(cid: CID): Uint8Array | undefined {
    return this.#store.get(cid)
  }

  has(cid: CID): boolean {
    return this.#store.has(cid)
  }

  locate(cid: CID): Location | undefined {
    return this.#store.locate(cid)
  }

  /** @throws CidfsError `NO_SPACE`, `IO`. */
  put(cid: CID, bytes: Uint8Array): void {
    if (!this.#store.space.keep(bytes.length))
      throw new CidfsError('NO_SPACE', 'no space left to keep what is fetched: unpin, or remove files')
    this.#store.put(cid, bytes)
  }
}
