/**
 * `Promise.withResolvers` for Node 20, which has not got it; libp2p calls it.
 *
 * Invariant: imported before the first module of libp2p is, and defines nothing where the runtime has it.
 */

interface Resolvers<T> {
  promise: Promise<T>
  resolve(value: T | PromiseLike<T>): void
  reject(reason?: unknown): void
}

/** A promise with its two ends. */
export function withResolvers<T>(): Resolvers<T> {
  let resolve!: Resolvers<T>['resolve']
  let reject!: Resolvers<T>['reject']
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve
    reject = onReject
  })
  return { promise, resolve, reject }
}

const runtime = Promise as unknown as { withResolvers?: typeof withResolvers }
runtime.withResolvers ??= withResolvers
