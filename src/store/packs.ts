/**
 * Packs: append-only containers that are plain CARv1 files without roots.
 *
 * Invariant: at most one pack is open for writing, and `length` of its container ends at a whole section. What
 * a failed or torn write leaves behind lies beyond it and is overwritten or cut off (see pack-recovery.ts).
 * Why CAR: any IPFS tool can read the store, and a pack alone is enough to find its blocks again.
 */
import * as fs from 'node:fs'
import type { Location } from '../core/blocks.js'
import type { CID } from '../core/cid.js'
import { CidfsError, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { encodeHeader, encodeSectionHead } from './car-format.js'
import type { Container, Containers } from './containers.js'

const log = logger('store:packs')

/** What the file of every pack begins with. */
export const PACK_HEADER = encodeHeader([])
/** Buffers per writev(2), below IOV_MAX. */
const MAX_VECTORS = 1000
/** Bytes per writev(2), so that one call holds up the main thread only briefly. */
const MAX_WRITE_BYTES = 4 * 1024 * 1024

export interface Block {
  cid: CID
  bytes: Uint8Array
}

export class Packs {
  readonly #containers: Containers
  readonly #maxBytes: number
  #active: { container: Container; fd: number } | undefined

  /** @param maxBytes a pack is closed when it reaches this size */
  constructor(containers: Containers, maxBytes: number) {
    this.#containers = containers
    this.#maxBytes = maxBytes
  }

  /** Goes on with the pack that was being written when the store was closed, if there is one. */
  resume(): void {
    const open = [...this.#containers.values()].filter(({ kind, sealed }) => kind === 'pack' && !sealed)
    const last = open.pop()
    for (const container of open) this.#seal(container)
    if (last === undefined) return
    this.#active = { container: last, fd: fs.openSync(this.#containers.path(last), 'r+') }
  }

  /**
   * Appends blocks and returns where they lie, in the same order. They are the caller's to put in the index.
   * @throws CidfsError `NO_SPACE`, `IO`; then none of them counts as written.
   */
  append(blocks: readonly Block[]): Location[] {
    const locations: Location[] = []
    let next = 0
    while (next < blocks.length) next = this.#appendSome(blocks, next, locations)
    return locations
  }

  /** Ends the active pack; the next block begins a new one. */
  rotate(): void {
    if (this.#active === undefined) return
    const { container, fd } = this.#active
    this.#active = undefined
    fs.closeSync(fd)
    this.#seal(container)
  }

  close(): void {
    if (this.#active !== undefined) fs.closeSync(this.#active.fd)
    this.#active = undefined
  }

  #seal(container: Container): void {
    container.sealed = true
    this.#containers.record(container)
  }

  /** Writes as many blocks from `first` on as one call takes; returns the first that is left. */
  #appendSome(blocks: readonly Block[], first: number, locations: Location[]): number {
    const { container, fd } = this.#writable()
    const buffers: Uint8Array[] = []
    const written: Location[] = []
    let end = container.length
    let next = first
    const limit = Math.min(container.length + MAX_WRITE_BYTES, this.#maxBytes)
    while (next < blocks.length && buffers.length < MAX_VECTORS && (end < limit || next === first)) {
      const { cid, bytes } = blocks[next++] as Block
      const head = encodeSectionHead(cid, bytes.length)
      buffers.push(head, bytes)
      written.push({ container: container.id, offset: end + head.length, length: bytes.length })
      end += head.length + bytes.length
    }
    this.#write(fd, buffers, container.length, end)
    container.length = end
    locations.push(...written)
    return next
  }

  #writable(): { container: Container; fd: number } {
    if (this.#active !== undefined && this.#active.container.length >= this.#maxBytes) this.rotate()
    return (this.#active ??= this.#begin())
  }

  #begin(): { container: Container; fd: number } {
    const container = this.#containers.create('pack')
    const path = this.#containers.path(container)
    let fd: number | undefined
    try {
      fd = fs.openSync(path, 'wx+', 0o600)
      this.#write(fd, [PACK_HEADER], 0, PACK_HEADER.length)
      container.length = PACK_HEADER.length
      return { container, fd }
    } catch (cause) {
      if (fd !== undefined) fs.closeSync(fd)
      fs.rmSync(path, { force: true })
      this.#containers.remove(container)
      throw cause instanceof CidfsError ? cause : writeError(path, cause)
    }
  }

  #write(fd: number, buffers: Uint8Array[], start: number, end: number): void {
    let position = start
    let rest = buffers
    try {
      while (position < end) {
        const count = fs.writevSync(fd, rest, position)
        position += count
        rest = behind(rest, count)
      }
    } catch (cause) {
      giveBack(fd, start)
      throw writeError('a pack', cause)
    }
  }
}

/** Cuts off what a failed write left: others may need the room. Whatever stays is overwritten or cut later. */
function giveBack(fd: number, length: number): void {
  try {
    fs.ftruncateSync(fd, length)
  } catch (err) {
    log('cannot truncate a pack: %s', messageOf(err))
  }
}

/** What is left of buffers when `count` bytes of them were written. */
function behind(buffers: Uint8Array[], count: number): Uint8Array[] {
  let skip = count
  let i = 0
  for (; i < buffers.length && skip >= (buffers[i] as Uint8Array).length; i++)
    skip -= (buffers[i] as Uint8Array).length
  const rest = buffers.slice(i)
  if (rest[0] !== undefined && skip > 0) rest[0] = rest[0].subarray(skip)
  return rest
}

function writeError(what: string, cause: unknown): CidfsError {
  const code = isFull((cause as NodeJS.ErrnoException).code) ? 'NO_SPACE' : 'IO'
  return new CidfsError(code, `cannot write ${what}: ${messageOf(cause)}`, { cause, syscall: 'write' })
}

/** Whether an error code of Node's says that there is no room. */
export function isFull(code: string | undefined): boolean {
  return code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG'
}
