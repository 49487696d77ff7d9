/**
 * A value now or later.
 *
 * What is already local is answered without a promise: the difference is one microtask and, in the file
 * system, whether the reply to the kernel leaves in the same turn of the event loop.
 */
export type MaybePromise<T> = T | Promise<T>

export function isPromise<T>(value: MaybePromise<T>): value is Promise<T> {
  return value instanceof Promise
}

/** `fn(value)`, at once when the value is there. */
export function then<T, U>(value: MaybePromise<T>, fn: (value: T) => MaybePromise<U>): MaybePromise<U> {
  return value instanceof Promise ? value.then(fn) : fn(value)
}
