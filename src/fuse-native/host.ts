/**
 * What the callbacks work with, and how they get from paths to nodes.
 *
 * Invariant: a node that an operation works on stays looked up until the operation has ended.
 */
import { type MaybePromise, then } from '../core/maybe-promise.js'
import type { FileSystem, Ino } from '../fs/file-system.js'
import type { Names } from './names.js'
import type { OpenFiles } from './open-files.js'
import type { Answer } from './package.js'
import { splitPath } from './paths.js'
import type { Requests } from './requests.js'
import type { UnsizedFiles } from './unsized-files.js'

export interface Host {
  readonly fs: FileSystem
  readonly requests: Requests
  readonly names: Names
  readonly files: OpenFiles
  /** Nodes whose attributes the kernel has wrong, since the last open. */
  readonly changed: Set<Ino>
  readonly unsized: UnsizedFiles
}

/** `work` on the node at `path`. */
export function onNode<T>(host: Host, path: string, work: (ino: Ino) => MaybePromise<T>): MaybePromise<T> {
  const found = host.names.resolve(path, host.requests.context)
  return then(found, name => host.names.during(name, () => work(name.ino)))
}

/** `work` on a name in a directory, which need not exist. */
export function inDirectory<T>(
  host: Host,
  path: string,
  work: (parent: Ino, name: Buffer) => MaybePromise<T>,
): MaybePromise<T> {
  const { directory, name } = splitPath(path)
  return onNode(host, directory, parent => work(parent, name))
}

/** Runs `work` and answers without a value. */
export function answerVoid(
  host: Host,
  operation: string,
  answer: Answer,
  work: () => MaybePromise<unknown>,
): void {
  host.requests.run(operation, work, () => answer(0), answer)
}

/** Runs `work` and answers with its value. */
export function answerWith<T>(
  host: Host,
  operation: string,
  answer: Answer<[T]>,
  work: () => MaybePromise<T>,
): void {
  const failed = answer as (errno: number) => void
  host.requests.run(operation, work, value => answer(0, value), failed)
}

/** Runs `work` and answers with the number of bytes it returns. */
export function answerBytes(
  host: Host,
  operation: string,
  answer: Answer,
  work: () => MaybePromise<number>,
): void {
  host.requests.run(operation, work, answer, answer)
}

/** Not a Buffer: `slice` of one would not copy, and file systems keep what they copy. */
export function plain(bytes: Buffer, length = bytes.length): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, length)
}
