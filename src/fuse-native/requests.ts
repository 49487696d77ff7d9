/**
 * The requests of libfuse's threads, each of which waits for its answer.
 *
 * Invariant: every request is answered exactly once, whatever its handler does: a thread that got no answer would
 * never end, nor would the mount. Who asks is not known here, and interrupts do not arrive; the signal is aborted
 * when the session ends.
 */
import { CidfsError, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { isPromise, type MaybePromise } from '../core/maybe-promise.js'
import { errnoOf } from '../fs/errno.js'
import type { Context } from '../fs/file-system.js'
import type { OperationCount } from '../fs/session.js'

const trace = logger('fuse-native:trace')
const log = logger('fuse-native:requests')

export class Requests {
  readonly #counts = new Map<string, OperationCount>()
  readonly #end = new AbortController()
  #inFlight = 0
  /** For the file system, requests are those of the user who mounted. */
  readonly context: Context = {
    uid: process.geteuid?.() ?? 0,
    gid: process.getegid?.() ?? 0,
    pid: 0,
    signal: this.#end.signal,
  }

  get inFlight(): number {
    return this.#inFlight
  }

  /** Requests and errors by name of the operation. */
  counts(): Record<string, OperationCount> {
    return Object.fromEntries([...this.#counts].map(([name, count]) => [name, { ...count }]))
  }

  /** Lets everything that waits for the network go. */
  abort(): void {
    this.#end.abort(new CidfsError('INTERRUPTED', 'the mount has ended'))
  }

  /** Runs `work`; then calls `done` with its value, or with an errno below 0 as `failed`. */
  run<T>(
    operation: string,
    work: () => MaybePromise<T>,
    done: (value: T) => void,
    failed: (errno: number) => void,
  ): void {
    const count = this.#count(operation)
    this.#inFlight++
    const fail = (err: unknown) => {
      this.#inFlight--
      count.errors++
      this.#report(operation, err)
      failed(-errnoOf(err))
    }
    const succeed = (value: T) => {
      this.#inFlight--
      done(value)
    }
    let value: MaybePromise<T>
    try {
      value = work()
    } catch (err) {
      fail(err)
      return
    }
    if (isPromise(value)) value.then(succeed, fail)
    else succeed(value)
  }

  #count(operation: string): OperationCount {
    trace('%s', operation)
    const count = this.#counts.get(operation) ?? { count: 0, errors: 0 }
    this.#counts.set(operation, count)
    count.count++
    return count
  }

  #report(operation: string, err: unknown): void {
    if (trace.enabled) trace('%s: %s', operation, messageOf(err))
    const foreseen = err instanceof CidfsError || (err instanceof Error && 'errno' in err)
    if (!foreseen) log('%s: %O', operation, err)
  }
}
