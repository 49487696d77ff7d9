/**
 * The files that the kernel has open, written down for the daemon that may have to take over.
 *
 * Invariant: an open stands in the log before the kernel learns its handle, and is gone from it before the kernel
 * learns that it was released. So a successor knows every handle it may be asked about; what is one too many is an
 * open whose answer did not arrive, which is sent again under the same request id.
 * Why a plain file that is never synced: it has to outlive the process, not the machine. In memory (tmpfs) one write
 * per open costs two microseconds; on a disk it can wait for the journal whenever somebody syncs. It has no name: the
 * supervisor holds it as it holds the connection, and it goes when nobody does.
 *
 * Slots of 64 bytes, so that none lies on two pages: a write that is cut short by a kill leaves all of it or nothing.
 * Each is 8 numbers of 64 bits: handle (0: free), inode, flags, request id, backing id, token, two unused. The first
 * slot holds how many daemons the mount has had: their handles never collide.
 */
import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { Fh, Ino } from '../fs/file-system.js'

const log = logger('fuse:handles')

const SLOT_BYTES = 64
const NUMBERS = SLOT_BYTES / 8
/** Handles that one daemon may give out. */
const HANDLES_PER_DAEMON = 2 ** 32

/** An open file as its successor needs it. */
export interface LoggedHandle {
  handle: Fh
  ino: Ino
  /** Of open(2). */
  flags: number
  /** Of the request that opened it. */
  requestId: number
  /** The kernel's id of the file that it serves by itself; 0: none. */
  backingId: number
  /** The file system's name for that file. */
  token: number
}

export class HandleLog {
  /** What the daemon before left open. */
  readonly inherited: LoggedHandle[]
  readonly fd: number
  readonly #slots = new Map<Fh, number>()
  readonly #free: number[] = []
  readonly #slot = new Float64Array(NUMBERS)
  readonly #bytes = new Uint8Array(this.#slot.buffer)
  #end: number
  #closed = false
  #next: Fh

  private constructor(fd: number, content: Buffer) {
    this.fd = fd
    this.inherited = this.#read(content)
    this.#end = Math.max(1, content.length / SLOT_BYTES)
    const daemons = content.length === 0 ? 0 : content.readDoubleLE(0)
    this.#next = daemons * HANDLES_PER_DAEMON + 1
    this.#write(0, [daemons + 1])
  }

  /** Of a new mount; `dir` is where the file would have its name. @throws Error as `openSync`. */
  static create(dir: string): HandleLog {
    const path = join(dir, `cidfs-${randomBytes(12).toString('hex')}`)
    const fd = fs.openSync(path, 'wx+', 0o600)
    fs.unlinkSync(path)
    return new HandleLog(fd, Buffer.alloc(0))
  }

  /** Of a mount that goes on; `inherited` are its open files. Takes the descriptor over. */
  static resume(fd: number): HandleLog {
    const { size } = fs.fstatSync(fd)
    const content = Buffer.alloc(size - (size % SLOT_BYTES))
    fs.readSync(fd, content, 0, content.length, 0) // its offset is shared with whoever else holds it
    return new HandleLog(fd, content)
  }

  #read(content: Buffer): LoggedHandle[] {
    const found: LoggedHandle[] = []
    for (let at = SLOT_BYTES; at < content.length; at += SLOT_BYTES) {
      const number = (index: number): number => content.readDoubleLE(at + 8 * index)
      const handle = number(0)
      if (handle === 0) {
        this.#free.push(at / SLOT_BYTES)
        continue
      }
      this.#slots.set(handle, at / SLOT_BYTES)
      const [ino, flags, requestId, backingId, token] = [1, 2, 3, 4, 5].map(number) as [
        ...[number, number, number, number, number],
      ]
      found.push({ handle, ino, flags, requestId, backingId, token })
    }
    return found
  }

  /** Writes an open down; returns its handle. */
  opened({ ino, flags, requestId, backingId, token }: Omit<LoggedHandle, 'handle'>): Fh {
    const handle = this.#next++
    const slot = this.#free.pop() ?? this.#end++
    this.#slots.set(handle, slot)
    this.#write(slot, [handle, ino, flags, requestId, backingId, token])
    return handle
  }

  released(handle: Fh): void {
    if (this.#closed) return
    const slot = this.#slots.get(handle)
    if (slot === undefined) return
    this.#slots.delete(handle)
    this.#free.push(slot)
    this.#write(slot, [])
  }

  /** A full disk costs the successor a handle: reading goes on by the inode, what is unlinked may be gone. */
  #write(slot: number, numbers: number[]): void {
    if (this.#closed) return
    this.#slot.fill(0)
    this.#slot.set(numbers)
    try {
      fs.writeSync(this.fd, this.#bytes, 0, SLOT_BYTES, slot * SLOT_BYTES)
    } catch (err) {
      log('slot %d: %s', slot, messageOf(err))
    }
  }

  /** From here on nothing is written down: the log is another daemon's, or nobody's. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    fs.closeSync(this.fd)
  }
}
