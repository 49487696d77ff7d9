/**
 * What went wrong last with a node, for `user.ipfs.error`.
 *
 * Invariant: bounded; an error goes when the node was read or looked into without one, by somebody who began
 * after it was met: of several reads that the kernel sends at once, one that succeeds does not hide another.
 * Why by node: the program that got EIO knows a path, the error is that of some block far below.
 */
import { LRUCache } from 'lru-cache'
import { messageOf } from '../core/errors.js'
import type { MaybePromise } from '../core/maybe-promise.js'
import type { Ino } from './file-system.js'

const MAX_NODES = 4096

export class NodeErrors {
  readonly #errors = new LRUCache<Ino, { message: string }>({ max: MAX_NODES })

  get(ino: Ino): string | undefined {
    return this.#errors.get(ino)?.message
  }

  /** Runs `work` on behalf of a node and remembers how it failed. */
  watch<T>(ino: Ino, work: () => MaybePromise<T>): MaybePromise<T> {
    const before = this.#errors.size === 0 ? undefined : this.#errors.get(ino)
    try {
      const result = work()
      if (!(result instanceof Promise)) return this.#succeeded(ino, before, result)
      return result.then(
        value => this.#succeeded(ino, before, value),
        (err: unknown) => this.#failed(ino, err),
      )
    } catch (err) {
      return this.#failed(ino, err)
    }
  }

  #succeeded<T>(ino: Ino, before: { message: string } | undefined, value: T): T {
    if (before !== undefined && this.#errors.get(ino) === before) this.#errors.delete(ino)
    return value
  }

  #failed(ino: Ino, err: unknown): never {
    this.#errors.set(ino, { message: messageOf(err) })
    throw err
  }
}
