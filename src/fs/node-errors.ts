/**
 * What went wrong last with a node, for `user.ipfs.error`.
 *
 * Invariant: bounded; an error goes when the node was read or looked into without one.
 * Why by node: the program that got EIO knows a path, the error is that of some block far below.
 */
import { LRUCache } from 'lru-cache'
import { messageOf } from '../core/errors.js'
import type { MaybePromise } from '../core/maybe-promise.js'
import type { Ino } from './file-system.js'

const MAX_NODES = 4096

export class NodeErrors {
  readonly #errors = new LRUCache<Ino, string>({ max: MAX_NODES })

  get(ino: Ino): string | undefined {
    return this.#errors.get(ino)
  }

  /** Runs `work` on behalf of a node and remembers how it failed. */
  watch<T>(ino: Ino, work: () => MaybePromise<T>): MaybePromise<T> {
    try {
      const result = work()
      if (!(result instanceof Promise)) return result
      return result.then(
        value => {
          if (this.#errors.size > 0) this.#errors.delete(ino)
          return value
        },
        (err: unknown) => this.#failed(ino, err),
      )
    } catch (err) {
      return this.#failed(ino, err)
    }
  }

  #failed(ino: Ino, err: unknown): never {
    this.#errors.set(ino, messageOf(err))
    throw err
  }
}
