/**
 * Tells the kernel to forget what it cached.
 *
 * Invariant: a notification is never written from the turn of the event loop that asked for it, nor from this
 * thread at all. Writing one can block on the lock of an inode whose request is still ours to answer; from the
 * main thread that would be a deadlock. The kernel's refusal (ENOENT: it does not know the node) means nothing.
 *
 * Reference: struct fuse_notify_inval_inode_out, struct fuse_notify_inval_entry_out
 */
import { checkResult } from '../core/native.js'
import type { Ino, Notifier } from '../fs/file-system.js'
import { NOTIFY, OUT_HEADER_BYTES } from './abi.js'
import type { Channel } from './channel.js'

export class NotificationQueue implements Notifier {
  readonly #channel: Channel
  #queued: Uint8Array[] = []

  constructor(channel: Channel) {
    this.#channel = channel
  }

  invalidateInode(ino: Ino, offset: number, length: number): void {
    const message = notification(NOTIFY.INVAL_INODE, 24)
    message.writeBigUInt64LE(BigInt(ino), OUT_HEADER_BYTES)
    message.writeBigInt64LE(BigInt(offset), OUT_HEADER_BYTES + 8)
    message.writeBigInt64LE(BigInt(length), OUT_HEADER_BYTES + 16)
    this.#push(message)
  }

  invalidateEntry(parent: Ino, name: Uint8Array): void {
    const message = notification(NOTIFY.INVAL_ENTRY, 16 + name.length + 1)
    message.writeBigUInt64LE(BigInt(parent), OUT_HEADER_BYTES)
    message.writeUInt32LE(name.length, OUT_HEADER_BYTES + 8)
    message.set(name, OUT_HEADER_BYTES + 16)
    this.#push(message)
  }

  /**
   * All requests that the kernel has sent and got no answer to are to be sent again. At once, unlike the others: for
   * this one the kernel waits for nothing.
   */
  resend(): void {
    checkResult(this.#channel.send(notification(NOTIFY.RESEND, 0)), 'FUSE_NOTIFY_RESEND')
  }

  #push(message: Uint8Array): void {
    if (this.#queued.push(message) === 1) setImmediate(() => this.#flush())
  }

  #flush(): void {
    const messages = this.#queued
    this.#queued = []
    for (const message of messages) this.#channel.notify(message)
  }
}

/** struct fuse_out_header with the code in place of the error, and no `unique`. */
function notification(code: number, bodyBytes: number): Buffer {
  const message = Buffer.alloc(OUT_HEADER_BYTES + bodyBytes)
  message.writeUInt32LE(message.length, 0)
  message.writeInt32LE(code, 4)
  return message
}
