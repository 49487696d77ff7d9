/**
 * The last state of the index that surely is on disk, and the way back to it after a power failure.
 *
 * LMDB runs without syncing here, since a sync at each commit costs milliseconds of the main thread. Commits
 * then survive the death of the process (the pages are the kernel's) but not the death of the machine: it may
 * have written a new meta page and not yet the pages that it points to.
 *
 * Invariant: `index.safe` names a state of which every page is on disk and stays as it is. The first by
 * fdatasync before it is named, the second by a read transaction that is held open on it: LMDB reuses no page
 * that a reader can see. After a boot the meta pages of the index are set back to that state.
 * Why not LMDB's MDB_OVERLAPPINGSYNC, which has the same idea: its synchronous commits wait for the disk
 * (measured: one fdatasync each).
 *
 * Format: two slots, written in turn, each SHA-256 of the rest, sequence number, size of the index file, size
 * of its pages, boot id, and the head of the meta page. Layout of meta pages: struct MDB_meta in LMDB's mdb.c.
 */
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { promisify } from 'node:util'
import type { RootDatabase } from 'lmdb'
import { CidfsError } from '../core/errors.js'
import { logger } from '../core/log.js'

const log = logger('store:index')
const fdatasync = promisify(fs.fdatasync)

const SLOT_SPACING_BYTES = 4096
const HEAD_BYTES = 128
/** Enough for page header and struct MDB_meta. */
const META_BYTES = 512
const SLOT_BYTES = HEAD_BYTES + META_BYTES
const BOOT_ID_BYTES = 64
/** MDB_MAGIC in the byte order of this machine; it is the first field of struct MDB_meta. */
const MAGIC = Buffer.from(new Uint32Array([0xbeefc0de]).buffer)
/** From the magic to mm_txnid: magic, version, address, mapsize, two MDB_db of 48 bytes, last page. */
const TXN_ID_OFFSET = 4 + 4 + 8 + 8 + 2 * 48 + 8

/** From the magic to mm_psize: magic, version, address, mapsize. */
const PAGE_SIZE_OFFSET = 4 + 4 + 8 + 8
/** The magic lies behind the page header. */
const MAX_PAGE_HEADER_BYTES = 64

interface Slot {
  sequence: bigint
  indexBytes: number
  pageBytes: number
  bootId: string
  meta: Buffer
}

/** What names this boot; empty where the kernel does not tell, which then counts as another boot each time. */
export function currentBootId(): string {
  try {
    return fs.readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return ''
  }
}

/**
 * Sets the index back to its last safe state when the machine was booted since. To be called before LMDB
 * opens the file. Whether anything was set back.
 * @throws CidfsError `STORE_DAMAGED` when the index is missing or shorter than the safe state needs.
 */
export function restoreAfterReboot(indexPath: string, safePath: string, bootId: string): boolean {
  const slot = readLatestSlot(safePath)
  if (slot === undefined) return false
  const indexBytes = fs.existsSync(indexPath) ? fs.statSync(indexPath).size : 0
  if (indexBytes < slot.indexBytes) {
    throw damaged(indexPath, `it has ${indexBytes} bytes where ${slot.indexBytes} were synced`)
  }
  if (bootId !== '' && slot.bootId === bootId) return false
  log('new boot: index set back to its last synced state')
  const fd = fs.openSync(indexPath, 'r+')
  try {
    writeMeta(fd, slot)
    fs.fdatasyncSync(fd)
  } finally {
    fs.closeSync(fd)
  }
  return true
}

/**
 * Looks for LMDB's two meta pages, since lmdb-js crashes the process when it opens a file without.
 * @throws CidfsError `STORE_DAMAGED`.
 */
export function checkMetaPages(indexPath: string): void {
  const size = fs.statSync(indexPath, { throwIfNoEntry: false })?.size ?? 0
  if (size === 0) return
  const fd = fs.openSync(indexPath, 'r')
  try {
    const first = readMetaHead(fd, 0)
    const start = first.subarray(0, MAX_PAGE_HEADER_BYTES).indexOf(MAGIC)
    if (start < 0) throw damaged(indexPath, 'it is no LMDB file')
    const pageBytes = first.readUInt32LE(start + PAGE_SIZE_OFFSET)
    if (readMetaHead(fd, pageBytes).indexOf(MAGIC) !== start)
      throw damaged(indexPath, 'a meta page is missing')
  } finally {
    fs.closeSync(fd)
  }
}

function readMetaHead(fd: number, position: number): Buffer {
  const bytes = Buffer.alloc(META_BYTES)
  fs.readSync(fd, bytes, 0, META_BYTES, position)
  return bytes
}

/** The error for an index that cannot be used, with what to do about it. */
export function damaged(indexPath: string, why: string, cause?: unknown): CidfsError {
  const message = `the index ${indexPath} is damaged (${why}); restore it from a backup or use another state directory`
  return new CidfsError('STORE_DAMAGED', message, { path: indexPath, cause })
}

/** Both meta pages get the safe state: LMDB takes whichever looks newer. Page headers stay. */
function writeMeta(fd: number, slot: Slot): void {
  const start = slot.meta.indexOf(MAGIC)
  const meta = slot.meta.subarray(start)
  for (const page of [0, 1]) fs.writeSync(fd, meta, 0, meta.length, page * slot.pageBytes + start)
}

/** With room for both slots from the start: a flush on a full disk then needs none. */
function openSafe(safePath: string): number {
  const fd = fs.openSync(safePath, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600)
  const { size } = fs.fstatSync(fd)
  const room = 2 * SLOT_SPACING_BYTES
  if (size < room) fs.writeSync(fd, Buffer.alloc(room - size), 0, room - size, size)
  return fd
}

function readLatestSlot(safePath: string): Slot | undefined {
  if (!fs.existsSync(safePath)) return undefined
  const bytes = fs.readFileSync(safePath)
  const slots = [0, 1].map(i => decodeSlot(bytes.subarray(i * SLOT_SPACING_BYTES).subarray(0, SLOT_BYTES)))
  const [a, b] = slots
  if (a === undefined || b === undefined) return a ?? b
  return a.sequence > b.sequence ? a : b
}

function decodeSlot(bytes: Buffer): Slot | undefined {
  if (bytes.length !== SLOT_BYTES || !checksum(bytes).equals(bytes.subarray(0, 32))) return undefined
  return {
    sequence: bytes.readBigUInt64LE(32),
    indexBytes: Number(bytes.readBigUInt64LE(40)),
    pageBytes: bytes.readUInt32LE(48),
    bootId: bytes.toString('utf8', 64, 64 + BOOT_ID_BYTES).replace(/\0+$/, ''),
    meta: Buffer.from(bytes.subarray(HEAD_BYTES)),
  }
}

function encodeSlot(slot: Slot): Buffer {
  const bytes = Buffer.alloc(SLOT_BYTES)
  bytes.writeBigUInt64LE(slot.sequence, 32)
  bytes.writeBigUInt64LE(BigInt(slot.indexBytes), 40)
  bytes.writeUInt32LE(slot.pageBytes, 48)
  bytes.write(slot.bootId.slice(0, BOOT_ID_BYTES), 64)
  slot.meta.copy(bytes, HEAD_BYTES)
  checksum(bytes).copy(bytes)
  return bytes
}

function checksum(slot: Buffer): Buffer {
  return createHash('sha256').update(slot.subarray(32)).digest()
}

/** A state of the index that is protected from reuse, not yet named in `index.safe`. */
export interface CapturedState {
  readonly txnId: number
  readonly pageBytes: number
  readonly meta: Buffer
  readonly pin: { done(): void }
}

/** Keeps `index.safe` of an open index. */
export class IndexSnapshot {
  readonly #root: RootDatabase
  readonly #indexPath: string
  readonly #indexFd: number
  readonly #safeFd: number
  readonly #bootId: string
  #sequence: bigint
  #pin: { done(): void } | undefined
  #safeTxnId = -1

  /** To be created before anything is committed: the state that `index.safe` names is protected from here on. */
  constructor(root: RootDatabase, indexPath: string, safePath: string, bootId: string) {
    this.#root = root
    this.#indexPath = indexPath
    this.#bootId = bootId
    this.#sequence = readLatestSlot(safePath)?.sequence ?? 0n
    this.#indexFd = fs.openSync(indexPath, 'r')
    this.#safeFd = openSafe(safePath)
    this.#pin = this.#hold()
  }

  /** The state as of the last commit; undefined when it is the safe one already. `persist` or `release` it. */
  capture(): CapturedState | undefined {
    const { lastTxnId, pageSize } = this.#root.getStats() as { lastTxnId: number; pageSize: number }
    if (lastTxnId === this.#safeTxnId) return undefined
    const pin = this.#hold()
    try {
      return { txnId: lastTxnId, pageBytes: pageSize, meta: this.#readMeta(lastTxnId, pageSize), pin }
    } catch (err) {
      pin.done()
      throw err
    }
  }

  /** When it resolves, a captured state is the one that a power failure leads back to. One at a time. */
  async persist(state: CapturedState): Promise<void> {
    try {
      const indexBytes = fs.fstatSync(this.#indexFd).size
      await fdatasync(this.#indexFd)
      await this.#writeSlot(state, indexBytes)
    } catch (err) {
      state.pin.done()
      throw err
    }
    this.#pin?.done()
    this.#pin = state.pin
    this.#safeTxnId = state.txnId
  }

  /** Lets go of the protected state. */
  close(): void {
    this.#pin?.done()
    this.#pin = undefined
    fs.closeSync(this.#indexFd)
    fs.closeSync(this.#safeFd)
  }

  /** A reader of the newest state. */
  #hold(): { done(): void } {
    this.#root.resetReadTxn()
    return this.#root.useReadTransaction()
  }

  /** The head of the meta page of a transaction: they alternate between the first two pages. */
  #readMeta(txnId: number, pageBytes: number): Buffer {
    const meta = readMetaHead(this.#indexFd, (txnId & 1) * pageBytes)
    const start = meta.indexOf(MAGIC)
    if (start < 0 || meta.readBigUInt64LE(start + TXN_ID_OFFSET) !== BigInt(txnId)) {
      throw damaged(this.#indexPath, 'its meta page is not where LMDB writes it')
    }
    return meta
  }

  async #writeSlot({ pageBytes, meta }: CapturedState, indexBytes: number): Promise<void> {
    const sequence = this.#sequence + 1n
    const slot = encodeSlot({ sequence, indexBytes, pageBytes, bootId: this.#bootId, meta })
    fs.writeSync(this.#safeFd, slot, 0, SLOT_BYTES, Number(sequence & 1n) * SLOT_SPACING_BYTES)
    await fdatasync(this.#safeFd)
    this.#sequence = sequence
  }
}
