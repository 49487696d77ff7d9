/**
 * Where small new files live until they are published: slots of one file, instead of a file each.
 *
 * Invariant: a slot belongs to one node at a time (`node.slot`), and is given to another only after the index on disk
 * has forgotten the first. A slot begins with whose it is and how much it holds: after a crash the size is found
 * there, as that of a working object is in its file; what was written to a slot and lost with the power reads as
 * nothing, not as somebody else's bytes.
 * Why: to create and remove a file costs the disk's file system more than all the rest of a small file costs us, and
 * almost every small file is copied into a pack a moment later.
 *
 * Slot: id of the node f64, size u32, four bytes reserved, content.
 */
import * as fs from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { FileRange } from '../core/blocks.js'
import { CidfsError, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { native } from '../core/native.js'
import { syncDirectorySync } from '../store/state-directory.js'
import type { Store } from '../store/store.js'
import type { StagingNode } from './node.js'
import { SharedFd } from './shared-fd.js'

const log = logger('staging:nursery')
const datasync = promisify(fs.fdatasync)

/** In the state directory. */
const NAME = 'nursery'
/** Content that a slot takes. */
export const SLOT_CONTENT_BYTES = 64 * 1024
const HEADER_BYTES = 16
/** Whole pages: what is synced or cut off with one slot is no part of the next. */
const SLOT_BYTES = SLOT_CONTENT_BYTES + 4096
const MAX_SLOTS = 8192
/** Slots that were given back wait for a flush this long, or until so many wait. */
const RECYCLE_MS = 1000
/** FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE */
const PUNCH_HOLE = 0x03
const RECYCLE_COUNT = 1024
/** So many small files one after the other, and the next is expected to be one. */
const SMALL_IN_A_ROW = 4

/** A part of a file that is not published, and what to call when it has been read. */
export interface WorkingRange {
  range: FileRange
  release(): void
}

export class Nursery {
  readonly #store: Store
  readonly #path: string
  #file: SharedFd | undefined
  /** Slots from here on were never used, and read as zeros. */
  #end = 0
  readonly #free: number[] = []
  readonly #taken = new Set<number>()
  /** Given back; the index on disk may still name them. */
  readonly #released = new Set<number>()
  /** How many replies are being read from a slot. */
  readonly #readers = new Map<number, number>()
  #timer: NodeJS.Timeout | undefined
  #recycling = false
  #closed = false
  #smallInARow = 0
  readonly #header = Buffer.alloc(HEADER_BYTES)

  constructor(store: Store) {
    this.#store = store
    this.#path = join(store.path, NAME)
    store.space.holders.add(() => this.#recycle())
  }

  /** Whether the next new file is likely to stay small: in most folders, files are of one kind. */
  get expectsSmall(): boolean {
    return this.#smallInARow >= SMALL_IN_A_ROW
  }

  /** A file was written and closed, or has outgrown its slot. */
  noteSize(sizeBytes: number): void {
    this.#smallInARow = sizeBytes <= SLOT_CONTENT_BYTES ? this.#smallInARow + 1 : 0
  }

  /** Gives an empty file a slot, for use in the transaction that records it; false when all are taken. */
  place(node: StagingNode): boolean {
    const used = this.#free.pop()
    const slot = used ?? (this.#end < MAX_SLOTS ? this.#end++ : undefined)
    if (slot === undefined) return false
    this.#taken.add(slot)
    this.#store.onRollback(() => {
      if (this.#taken.delete(slot)) this.#free.push(slot)
    })
    node.slot = slot
    if (used !== undefined) this.#writeHeader(slot, node.ino, 0)
    return true
  }

  /** The content is elsewhere or nowhere now; for use in the transaction that records it. */
  leave(node: StagingNode): void {
    const { slot } = node
    delete node.slot
    if (slot === undefined || !this.#taken.delete(slot)) return
    this.#released.add(slot)
    this.#store.onRollback(() => {
      if (this.#released.delete(slot)) this.#taken.add(slot)
    })
    if (this.#released.size >= RECYCLE_COUNT) void this.#recycle()
    else this.#recycleLater()
  }

  #recycleLater(): void {
    if (this.#timer !== undefined || this.#closed) return
    this.#timer = setTimeout(() => void this.#recycle(), RECYCLE_MS)
    this.#timer.unref()
  }

  async #recycle(): Promise<void> {
    if (this.#recycling || this.#closed) return
    this.#recycling = true
    clearTimeout(this.#timer)
    this.#timer = undefined
    try {
      await Promise.resolve() // what is released in the transaction under way is part of the flush, or rolled back
      const slots = [...this.#released]
      await this.#store.flush()
      this.#reuse(slots)
    } catch (err) {
      log('slots stay as they are: %s', messageOf(err))
    } finally {
      this.#recycling = false
    }
    if (this.#released.size > 0) this.#recycleLater()
  }

  #reuse(slots: number[]): void {
    if (this.#closed) return
    const free = slots.filter(slot => !this.#readers.has(slot) && this.#released.delete(slot))
    this.#free.push(...free)
    if (this.#taken.size + this.#released.size === 0) this.#empty()
    else for (const { start, end } of runsOf(free)) this.#punch(start, end)
  }

  /** Gives the space of some slots back, where the disk's file system can. */
  #punch(start: number, end: number): void {
    try {
      native.fallocate(this.#open().fd, PUNCH_HOLE, start * SLOT_BYTES, (end - start) * SLOT_BYTES)
    } catch (err) {
      log('slots %d to %d keep their space: %s', start, end, messageOf(err))
    }
  }

  /** Gives the space back to the disk. */
  #empty(): void {
    this.#free.length = 0
    this.#end = 0
    if (this.#file !== undefined) fs.ftruncateSync(this.#file.fd, 0)
  }

  /** A node from before this start has its content here. @returns the size of that. */
  claim({ ino, slot = 0 }: StagingNode): number {
    this.#taken.add(slot)
    this.#end = Math.max(this.#end, slot + 1)
    const header = Buffer.alloc(HEADER_BYTES)
    if (fs.readSync(this.#open().fd, header, 0, HEADER_BYTES, slot * SLOT_BYTES) < HEADER_BYTES) return 0
    const sizeBytes = header.readUInt32LE(8)
    return header.readDoubleLE(0) === ino && sizeBytes <= SLOT_CONTENT_BYTES ? sizeBytes : 0
  }

  /** After the last claim: all others are free. */
  claimed(): void {
    for (let slot = 0; slot < this.#end; slot++) if (!this.#taken.has(slot)) this.#free.push(slot)
    const sizeBytes = fs.statSync(this.#path, { throwIfNoEntry: false })?.size ?? 0
    if (sizeBytes > this.#end * SLOT_BYTES) fs.truncateSync(this.#path, this.#end * SLOT_BYTES)
  }

  /** Writes `data` at `offset`; behind the old end there are zeros up to there. False: the node has no room for it. */
  write(node: StagingNode, offset: number, data: Uint8Array): boolean {
    const { slot, ino, sizeBytes } = node
    const end = Math.max(sizeBytes, offset + data.length)
    if (slot === undefined || end > SLOT_CONTENT_BYTES) return false
    if (offset > sizeBytes) this.#put(slot, sizeBytes, new Uint8Array(offset - sizeBytes))
    if (offset === 0) {
      this.#writeFromStart(slot, this.#headerOf(ino, end), data)
    } else {
      this.#put(slot, offset, data)
      if (end !== sizeBytes) this.#writeHeader(slot, ino, end)
    }
    return true
  }

  /** False: the node has no room for it. */
  resize({ slot, ino, sizeBytes }: StagingNode, newSizeBytes: number): boolean {
    if (slot === undefined || newSizeBytes > SLOT_CONTENT_BYTES) return false
    if (newSizeBytes > sizeBytes) this.#put(slot, sizeBytes, new Uint8Array(newSizeBytes - sizeBytes))
    this.#writeHeader(slot, ino, newSizeBytes)
    return true
  }

  #writeFromStart(slot: number, header: Buffer, data: Uint8Array): void {
    const written = fs.writevSync(this.#open().fd, [header, data], slot * SLOT_BYTES) - HEADER_BYTES
    if (written < data.length) this.#put(slot, written, data.subarray(written))
  }

  #writeHeader(slot: number, ino: number, sizeBytes: number): void {
    fs.writeSync(this.#open().fd, this.#headerOf(ino, sizeBytes), 0, HEADER_BYTES, slot * SLOT_BYTES)
  }

  #headerOf(ino: number, sizeBytes: number): Buffer {
    this.#header.writeDoubleLE(ino, 0)
    this.#header.writeUInt32LE(sizeBytes, 8)
    return this.#header
  }

  #put(slot: number, offset: number, data: Uint8Array): void {
    const start = slot * SLOT_BYTES + HEADER_BYTES + offset
    for (let done = 0; done < data.length; )
      done += fs.writeSync(this.#open().fd, data, done, data.length - done, start + done)
  }

  /** All content of a node that has a slot. @throws CidfsError `IO`. */
  bytes({ slot = 0, sizeBytes }: StagingNode): Buffer {
    const bytes = Buffer.allocUnsafe(sizeBytes)
    const start = slot * SLOT_BYTES + HEADER_BYTES
    const count = sizeBytes === 0 ? 0 : fs.readSync(this.#open().fd, bytes, 0, sizeBytes, start)
    if (count === sizeBytes) return bytes
    throw new CidfsError('IO', 'the disk has lost a part of the file: write it anew', { path: this.#path })
  }

  /** A part of the content of a node that has a slot, which is nobody else's until the part has been read. */
  range({ slot = 0, sizeBytes }: StagingNode, offset: number, length: number): WorkingRange {
    const file = this.#open().retain()
    this.#readers.set(slot, (this.#readers.get(slot) ?? 0) + 1)
    const available = Math.max(0, Math.min(length, sizeBytes - offset))
    const range = { fd: file.fd, offset: slot * SLOT_BYTES + HEADER_BYTES + offset, length: available }
    const release = (): void => {
      file.release()
      this.#readEnded(slot)
    }
    return { range, release }
  }

  #readEnded(slot: number): void {
    const left = (this.#readers.get(slot) ?? 1) - 1
    if (left > 0) this.#readers.set(slot, left)
    else this.#readers.delete(slot)
  }

  /** What was written to any slot before the call is on the disk when it resolves. */
  async sync(): Promise<void> {
    await datasync(this.#open().fd)
  }

  /** Nothing is read or written any more. */
  close(): void {
    this.#closed = true
    clearTimeout(this.#timer)
    this.#file?.release()
    this.#file = undefined
  }

  #open(): SharedFd {
    if (this.#file !== undefined) return this.#file
    this.#file = new SharedFd(this.#path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600)
    syncDirectorySync(this.#store.path)
    return this.#file
  }
}

/** How long the nursery of a store is; 0 when there is none. */
export function nurseryBytes(store: Store): number {
  return fs.statSync(join(store.path, NAME), { throwIfNoEntry: false })?.size ?? 0
}

/** How long it must be at least to hold so much in a slot. */
export function endOfSlot(slot: number, sizeBytes: number): number {
  return sizeBytes === 0 ? 0 : slot * SLOT_BYTES + HEADER_BYTES + sizeBytes
}

/** Neighbouring slots together. */
function runsOf(slots: number[]): { start: number; end: number }[] {
  const runs: { start: number; end: number }[] = []
  for (const slot of slots.sort((a, b) => a - b)) {
    const last = runs.at(-1)
    if (last?.end === slot) last.end++
    else runs.push({ start: slot, end: slot + 1 })
  }
  return runs
}
