/**
 * Changes that are made once, however often the kernel asks for them.
 *
 * Invariant: a change and the record of its request are one transaction. So a daemon that takes over, and is sent
 * again what the one before it had not answered, can tell what that one had done: it says so, and does not do it
 * again (a `mkdir` would fail with EEXIST, though it was this very request that made the directory).
 * Why a ring is enough: a change is answered in the turn of the event loop that makes it, so of those that were made
 * only the very last can have been left without an answer.
 */
import type { Database } from 'lmdb'
import { isPromise, type MaybePromise } from '../core/maybe-promise.js'
import type { Store } from '../store/store.js'
import type { Context } from './file-system.js'

const SLOTS = 64

export class Performed {
  readonly #store: Store
  /** slot -> id of the request */
  readonly #db: Database<number, number>
  /** Requests of an earlier daemon. */
  readonly #earlier = new Set<number>()
  #slot = 0

  /** `resume`: the requests of an earlier daemon may come again; else their ids mean nothing any more. */
  constructor(store: Store, resume: boolean) {
    this.#store = store
    this.#db = store.env.openDB({ name: 'fs:performed', keyEncoding: 'uint32' })
    if (!resume) this.#db.clearSync()
    for (const { value } of this.#db.getRange()) this.#earlier.add(value)
  }

  /** What `work` returns; `again` instead if an earlier daemon has made the change. */
  once<T>(ctx: Context, work: () => MaybePromise<T>, again: () => MaybePromise<T>): MaybePromise<T> {
    const { id } = ctx
    if (id === undefined) return work()
    if (ctx.repeated === true && this.#earlier.delete(id)) return again()
    const { result } = this.#store.transaction(() => {
      const result = work()
      if (!isPromise(result)) this.#record(id)
      return { result }
    })
    return result
  }

  #record(id: number): void {
    this.#db.putSync(this.#slot, id)
    this.#slot = (this.#slot + 1) % SLOTS
  }
}
