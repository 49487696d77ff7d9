/**
 * What may still be written to the state directory: the limit that is configured, and the floor of free space.
 *
 * Invariant: what users write, and what the network brings, asks here first and leaves the floor free and the limit
 * kept. Publishing, the index and garbage collection do not ask: they live on what floor and limit hold back, so that
 * what has been accepted can be published.
 * Why a budget: to ask the disk before every write of 4 KiB would cost as much as the write. A part of the room is
 * given out at a time, for at most a second, since others write to the disk too; the last of it to the byte.
 */
import * as fs from 'node:fs'
import { join } from 'node:path'
import { CidfsError } from '../core/errors.js'
import type { MaybePromise } from '../core/maybe-promise.js'
import type { Containers } from './containers.js'
import { Reserve } from './reserve.js'
import { UsedBytes } from './used-bytes.js'

const MIB = 1024 * 1024
const GIB = 1024 * MIB

export interface SpaceLimits {
  /** What the state directory may take; undefined: as much as there is. */
  maxBytes?: number | undefined
  /** What stays free on its disk, in bytes or in percent of the disk; 1 GiB or 1 % when absent, whichever is less. */
  minFree?: number | { percent: number } | undefined
}

/** Below this much room all of it is given out, or nothing. */
const SMALL_ROOM_BYTES = 16 * MIB
const MAX_BUDGET_BYTES = 64 * MIB
const BUDGET_MS = 1000
/** Somebody who is refused over and over does not make us look each time. */
const REFUSAL_MS = 10
/** To make room for somebody who waits. */
const ATTEMPTS = 3
/** A name takes a record of the index and the file behind it. */
export const NAME_BYTES = 8192

/** What the disk has, for everybody but root. */
export interface Disk {
  totalBytes: number
  freeBytes: number
}

export interface SpaceReport {
  /** null: no limit. */
  maxBytes: number | null
  minFreeBytes: number
  usedBytes: number
  /** That users may still write. */
  availableBytes: number
  /** Whether writes are refused, until something is removed. */
  full: boolean
}

export class Space {
  /** Whether anything is limited; else everything goes. */
  readonly limited: boolean
  readonly maxBytes: number | undefined
  readonly minFreeBytes: number
  /** Room that is worked for by dropping what need not be kept, when less than half of it is left. */
  readonly comfortBytes: number
  /** Frees what can be freed; `isAwaited`: somebody waits for it. For the daemon to set. Never fails. */
  onShortage: ((isAwaited: boolean) => Promise<void>) | undefined
  /** Under way. */
  #relief: Promise<void> | undefined
  /** Each gives back what somebody holds and does not need any more. Called one after another; may fail. */
  readonly holders = new Set<() => Promise<void>>()
  /** Without a reserve the index has to make do with the pages that it has. */
  onReserve: ((isHeld: boolean) => void) | undefined
  /** There may be something to collect. */
  #garbage = true
  /** There may be files that go with the next flush. */
  #dropped = true
  /** Fetched since garbage was last collected. */
  #keptBytes = 0
  readonly #path: string
  readonly #used: UsedBytes
  readonly #reserve: Reserve | undefined
  /** More than this never fits. */
  readonly #capacityBytes: number
  /** Floor and limit hold back this much at least, for publishing. */
  readonly #heldBackBytes: number
  #budget = 0
  /** The budget is all that there is. */
  #isLast = false
  #renewedMs = Number.NEGATIVE_INFINITY
  #refused = false
  /** It is the limit that leaves no room, and not the disk. */
  #limitBinds = false
  #looks = 0

  constructor(path: string, containers: Containers, limits: SpaceLimits | undefined) {
    this.#path = path
    this.#used = new UsedBytes(path, containers)
    this.limited = limits !== undefined
    const { totalBytes } = diskOf(path)
    this.maxBytes = limits?.maxBytes
    const capacity = Math.min(totalBytes, this.maxBytes ?? totalBytes)
    this.#capacityBytes = capacity
    this.comfortBytes = Math.min(4 * GIB, Math.floor(capacity / 16))
    this.#heldBackBytes = clamp(Math.floor(capacity / 32), MIB, 64 * MIB)
    this.minFreeBytes = Math.max(this.#heldBackBytes, floorOf(limits?.minFree, totalBytes))
    if (limits === undefined) return
    this.#reserve = new Reserve(join(path, 'reserve'), clamp(Math.floor(capacity / 32), MIB / 4, 4 * MIB))
    this.keepReserve()
  }

  /** How large packs may become, so that there is something to drop one by one. */
  get packBytes(): number | undefined {
    return this.limited ? clamp(this.comfortBytes / 2, 2 * MIB, 256 * MIB) : undefined
  }

  /** How much may be copied into packs before what was copied is removed. */
  get batchBytes(): number {
    return this.limited ? this.#heldBackBytes / 2 : 32 * MIB
  }

  /** Whether there is so little that what is not needed any more should go at once. */
  get isShort(): boolean {
    return this.limited && this.room() + this.#heldBackBytes < 8 * this.batchBytes
  }

  /** What can go without anybody's loss has gone when it resolves. */
  async giveBack(): Promise<void> {
    for (const holder of this.holders) await holder()
    this.changed()
  }

  /** How often the disk was asked. */
  get looks(): number {
    return this.#looks
  }

  /**
   * Lets `bytes` more be written, or says why not. What can be dropped for them is dropped first.
   * @throws CidfsError `NO_SPACE`.
   */
  take(bytes: number): MaybePromise<void> {
    if (this.spend(bytes)) return
    if (!this.#mayFree || bytes > this.#capacityBytes) throw this.#noSpace()
    return this.#wait(bytes)
  }

  get #mayFree(): boolean {
    const something = this.#garbage || this.#dropped || this.#keptBytes > 0 || this.#relief !== undefined
    return something && this.onShortage !== undefined
  }

  /** One attempt to free space may have begun before there was what frees enough. */
  async #wait(bytes: number): Promise<void> {
    for (let attempt = 0; attempt < ATTEMPTS && this.#mayFree; attempt++) {
      if (this.#keptBytes > 0) this.#garbage = true
      await this.#relieve(true)
      this.changed()
      if (this.spend(bytes)) return
    }
    throw this.#noSpace()
  }

  #relieve(isAwaited: boolean): Promise<void> | undefined {
    const relief = this.onShortage?.(isAwaited)
    this.#relief = relief
    void relief?.then(() => {
      if (this.#relief === relief) this.#relief = undefined
    })
    return relief
  }

  /** As `take`, without waiting: whether it may be. */
  spend(bytes: number): boolean {
    if (!this.limited) return true
    const nowMs = performance.now()
    const isOld = nowMs - this.#renewedMs > BUDGET_MS
    const maySeeMore = !this.#isLast || nowMs - this.#renewedMs > REFUSAL_MS
    const room = isOld || (bytes > this.#budget && maySeeMore) ? this.#renew(nowMs) : this.#budget
    this.#refused = bytes > room
    if (this.#refused) return false
    this.#budget = Math.max(0, Math.min(this.#budget - bytes, room - bytes))
    return true
  }

  #renew(nowMs: number): number {
    const room = this.room()
    this.#renewedMs = nowMs
    this.#isLast = room <= SMALL_ROOM_BYTES
    this.#budget = this.#isLast ? Math.max(0, room) : Math.min(MAX_BUDGET_BYTES, Math.floor(room / 4))
    if (room < this.comfortBytes / 2 && (this.#garbage || this.#dropped)) void this.#relieve(false)
    return room
  }

  /** What users may still write, as of now. Below zero: so much too much is there already. */
  room(): number {
    if (!this.limited) return Number.POSITIVE_INFINITY
    this.#looks++
    const byDisk = diskOf(this.#path).freeBytes - this.minFreeBytes
    if (this.maxBytes === undefined) return byDisk
    const byLimit = this.#roomByLimit(this.maxBytes)
    this.#limitBinds = byLimit < byDisk
    return Math.min(byDisk, byLimit)
  }

  #roomByLimit(maxBytes: number): number {
    const room = maxBytes - this.#heldBackBytes - this.#used.total()
    if (room > 0) return room
    this.#used.measureAll()
    return maxBytes - this.#heldBackBytes - this.#used.total()
  }

  /**
   * Whether a file may be given to the kernel, which writes to it without asking: never where there is a limit, which
   * it would not keep, nor where the floor is near.
   */
  get allowsUnseenWrites(): boolean {
    if (!this.limited) return true
    if (this.maxBytes !== undefined) return false
    const { totalBytes, freeBytes } = diskOf(this.#path)
    return freeBytes - this.minFreeBytes > Math.min(GIB, totalBytes / 4)
  }

  /** An object was written to. */
  wrote(object: number): void {
    if (this.limited) this.#used.changed(object)
  }

  /** There may be more room than a moment ago. */
  changed(): void {
    this.#renewedMs = Number.NEGATIVE_INFINITY
  }

  /** Something is not wanted any more. */
  noteGarbage(): void {
    this.#garbage = true
    this.noteDropped()
  }

  /** A file goes with the next flush. */
  noteDropped(): void {
    this.#dropped = true
    this.changed()
  }

  /** Whether there is little room, and something that may be dropped for more. */
  get isTight(): boolean {
    return (this.#garbage || this.#dropped) && this.room() < this.comfortBytes / 2
  }

  /** Whether files may wait for a flush; it counts as done then. */
  takeDropped(): boolean {
    const before = this.#dropped
    this.#dropped = false
    return before
  }

  /** Whether there may be something to collect; it counts as collected then. */
  takeGarbage(): boolean {
    const before = this.#garbage
    this.#garbage = false
    this.#keptBytes = 0
    return before
  }

  /** As `spend`, for what the network brings: it may be dropped again. */
  keep(bytes: number): boolean {
    if (!this.spend(bytes)) return false
    this.#keptBytes += bytes
    if (this.#keptBytes > this.comfortBytes / 8) this.#garbage = true
    return true
  }

  /** The disk has refused something: if it is full, what is held back is for the index from now on. */
  diskFull(): void {
    this.noteDropped()
    if (this.#reserve !== undefined && diskOf(this.#path).freeBytes < this.#reserve.sizeBytes)
      this.#reserve.giveUp()
    this.onReserve?.(this.#reserve?.held !== false)
    void this.#relieve(false)
  }

  /** Gives the reserve up before the disk is full, and takes it again where there is room. */
  keepReserve(): void {
    if (this.#reserve === undefined) return
    const { freeBytes } = diskOf(this.#path)
    const { sizeBytes, held } = this.#reserve
    if (held && freeBytes < sizeBytes / 4) this.#reserve.giveUp()
    else if (!held && freeBytes > 2 * sizeBytes) this.#reserve.take()
    this.onReserve?.(this.#reserve.held)
  }

  /** A new name in the index. @throws CidfsError `NO_SPACE` when what is left of the disk is for publishing. */
  takeName(): void {
    if (this.#reserve === undefined || this.#reserve.held) return
    this.keepReserve()
    if (!this.#reserve.held && this.#reserve.isPossible) throw this.#noSpace()
  }

  /** Capacity and room, as `df` of the mount shows them. */
  disk(): Disk & { availableBytes: number } {
    const { totalBytes, freeBytes } = diskOf(this.#path)
    const availableBytes = Math.max(0, Math.min(freeBytes, this.room()))
    if (this.maxBytes === undefined) return { totalBytes, freeBytes, availableBytes }
    return { totalBytes: this.#used.total() + availableBytes, freeBytes: availableBytes, availableBytes }
  }

  /** Whether writes are refused. */
  get isFull(): boolean {
    return this.#isFullWith(this.room())
  }

  #isFullWith(roomBytes: number): boolean {
    return roomBytes < NAME_BYTES || (this.#refused && roomBytes < MIB)
  }

  report(): SpaceReport {
    const availableBytes = Math.max(0, Math.min(diskOf(this.#path).freeBytes, this.room()))
    return {
      maxBytes: this.maxBytes ?? null,
      minFreeBytes: this.minFreeBytes,
      usedBytes: this.#used.total(),
      availableBytes,
      full: this.#isFullWith(availableBytes),
    }
  }

  #noSpace(): CidfsError {
    const { maxBytes, minFreeBytes } = this
    const why = this.#limitBinds
      ? `the state directory may take ${maxBytes} bytes (--max-size): remove files, unpin, or raise it`
      : `${minFreeBytes} bytes of the disk of ${this.#path} stay free (--min-free): remove files, unpin, or make room`
    return new CidfsError('NO_SPACE', `no space left: ${why}`, { path: this.#path })
  }
}

function diskOf(path: string): Disk {
  const { blocks, bavail, bsize } = fs.statfsSync(path)
  return { totalBytes: blocks * bsize, freeBytes: bavail * bsize }
}

function floorOf(minFree: SpaceLimits['minFree'], totalBytes: number): number {
  if (minFree === undefined) return Math.min(GIB, Math.floor(totalBytes / 100))
  return typeof minFree === 'number' ? minFree : Math.floor((totalBytes * minFree.percent) / 100)
}

function clamp(value: number, low: number, high: number): number {
  return Math.max(low, Math.min(high, value))
}
