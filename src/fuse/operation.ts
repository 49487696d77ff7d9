/**
 * What an entry of the opcode table is made of.
 *
 * Invariant: `run` reads all its arguments before it returns (they are overwritten afterwards), `encode` only
 * writes the reply, and `undo` takes back what `run` gave the kernel when the reply cannot be delivered. So the
 * session needs to know nothing about any single operation.
 */
import type { MaybePromise } from '../core/maybe-promise.js'
import type { Entry, FileRanges, FileSystem, NegativeEntry } from '../fs/file-system.js'
import type { BackingFiles } from './backing-files.js'
import type { Negotiated } from './init.js'
import type { OpenHandles } from './open-handles.js'
import type { Reply } from './reply.js'
import type { Arguments, Request } from './request.js'

/** The session, as far as operations need it. */
export interface Host {
  readonly fs: FileSystem
  readonly handles: OpenHandles
  readonly backing: BackingFiles
  /** Whether FUSE_PASSTHROUGH is wanted. */
  readonly passthrough: boolean
  /** FUSE_INIT was understood. */
  initialize(negotiated: Negotiated): void
  /** FUSE_INTERRUPT for the request with this `unique`. */
  interrupt(uniqueLow: number, uniqueHigh: number): void
}

/** What follows the struct of a reply. */
export type Payload = Uint8Array | FileRanges | undefined

export interface Handler<T> {
  run(host: Host, args: Arguments, request: Request): MaybePromise<T>
  /** Absent: the reply is a header alone. */
  encode?(reply: Reply, value: T): Payload
  /** The kernel has taken the reply. */
  delivered?(host: Host, value: T, request: Request): void
  /** The reply was not delivered. */
  undo?(host: Host, value: T, request: Request): MaybePromise<void>
}

export interface Operation extends Handler<unknown> {
  readonly name: string
  /** Of the arguments: what the handler reads without asking. */
  readonly minimumBytes: number
  /** The kernel expects no reply. */
  readonly oneWay: boolean
}

/** Replies with an entry, which counts as a lookup of its node. */
export function entryHandler<T extends Entry | NegativeEntry>(run: Handler<T>['run']): Handler<T> {
  return {
    run,
    encode(reply, entry) {
      reply.entry(entry)
      return undefined
    },
    undo(host, entry) {
      if (entry.attributes !== undefined) host.fs.forget(entry.attributes.ino, 1)
    },
  }
}

/** Replies with nothing but success. */
export function voidHandler(run: Handler<void>['run']): Handler<void> {
  return { run }
}
