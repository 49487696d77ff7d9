/**
 * Why blocks could not be had, for `user.ipfs.error` and for the next read of the same block.
 *
 * Invariant: at most `MAX_ERRORS` are held, the latest one of each block, and none of a block that came since.
 */
import { LRUCache } from 'lru-cache'
import { type CID, keyOf } from '../core/cid.js'
import type { CidfsError } from '../core/errors.js'

const MAX_ERRORS = 4096
/** How long the absence of a block is believed: long enough for one `ls -l`, not for a user to notice. */
const BELIEVED_MS = 1_000

export interface FetchError {
  error: CidfsError
  /** Milliseconds since the epoch. */
  at: number
}

export class FetchErrors {
  readonly #errors = new LRUCache<string, FetchError>({ max: MAX_ERRORS })

  /** The last error of the block, undefined when it came since, or was never missed. */
  get(cid: CID): FetchError | undefined {
    return this.#errors.get(keyOf(cid))
  }

  /** The error to repeat without asking anybody: every source denied this block within the last second. */
  denied(key: string): CidfsError | undefined {
    const last = this.#errors.get(key)
    if (last === undefined || Date.now() - last.at >= BELIEVED_MS) return undefined
    return last.error.code === 'UNREACHABLE' || last.error.code === 'BAD_BLOCK' ? last.error : undefined
  }

  record(key: string, error: CidfsError): void {
    this.#errors.set(key, { error, at: Date.now() })
  }

  clear(key: string): void {
    this.#errors.delete(key)
  }
}
