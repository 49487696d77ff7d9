/**
 * Repairs the store after it was not closed: blocks that reached a pack and not the index, torn tails, and
 * files that nothing refers to.
 *
 * Invariant: bytes below the recorded `synced` length are taken as they are; every section beyond it is hashed
 * before it counts. A pack with a torn tail is cut there and sealed, so that no entry of the index which points
 * beyond the cut can ever come to lie inside the pack again.
 */
import * as fs from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type CID, canVerify, verify } from '../core/cid.js'
import { codeOf } from '../core/errors.js'
import { MAX_BLOCK_BYTES } from '../core/limits.js'
import { logger } from '../core/log.js'
import type { BlockIndex } from './block-index.js'
import { decodeSectionHead, MAX_SECTION_HEAD_BYTES } from './car-format.js'
import type { Container, Containers } from './containers.js'
import type { Environment } from './environment.js'
import { Pacer } from './pacer.js'
import { PACK_HEADER } from './packs.js'
import type { StateDirectory } from './state-directory.js'

const log = logger('store:recovery')
const WINDOW_BYTES = 4 * 1024 * 1024
/** The index has 32 bits for it. */
const MAX_ID = 0xffffffff

interface Parts {
  env: Environment
  state: StateDirectory
  containers: Containers
  index: BlockIndex
}

/** A section found in a pack. `bytes` are valid until the next one is asked for. */
export interface Section {
  cid: CID
  /** Where the block begins in the file. */
  offset: number
  bytes: Uint8Array
}

/** Brings files, registry and index into agreement. To be called before the store is used. */
export async function recover(parts: Parts): Promise<void> {
  if (!parts.containers.wasClean) await settleUnknownFiles(parts)
  for (const container of [...parts.containers.values()]) {
    if (container.kind === 'pack') await recoverPack(parts, container)
  }
}

async function recoverPack(parts: Parts, container: Container): Promise<void> {
  const path = parts.containers.path(container)
  const sizeBytes = fs.statSync(path, { throwIfNoEntry: false })?.size ?? 0
  if (sizeBytes < PACK_HEADER.length) {
    log('pack %d is missing or empty: its blocks are forgotten', container.id)
    parts.containers.remove(container)
    fs.rmSync(path, { force: true })
  } else if (sizeBytes < container.synced) {
    log('pack %d has %d bytes where %d were synced', container.id, sizeBytes, container.synced)
    seal(parts, container, sizeBytes)
  } else {
    await rescan(parts, container, path, sizeBytes)
  }
}

/** Indexes what lies behind the synced length, and cuts off what is no whole, verified section. */
async function rescan(parts: Parts, container: Container, path: string, sizeBytes: number): Promise<void> {
  const start = Math.max(container.synced, PACK_HEADER.length)
  container.length = start
  if (start === sizeBytes) return
  const fd = fs.openSync(path, 'r+')
  try {
    const pacer = new Pacer()
    for (const section of readSections(fd, start, sizeBytes)) {
      if (!isIntact(section)) break
      container.length = section.offset + section.bytes.length
      indexSection(parts, container, section)
      if (pacer.due) await pacer.pause()
    }
    if (container.length < sizeBytes) {
      log('pack %d: torn tail of %d bytes cut off', container.id, sizeBytes - container.length)
      fs.ftruncateSync(fd, container.length)
      seal(parts, container, container.length)
    }
  } finally {
    fs.closeSync(fd)
  }
}

function seal(parts: Parts, container: Container, length: number): void {
  container.length = length
  container.synced = Math.min(container.synced, length)
  container.sealed = true
  parts.env.transaction(() => parts.containers.record(container))
}

function isIntact({ cid, bytes }: Section): boolean {
  return canVerify(cid) && verify(cid, bytes)
}

function indexSection({ containers, index }: Parts, container: Container, section: Section): void {
  const multihash = section.cid.multihash.bytes
  const known = index.get(multihash)
  if (known !== undefined && containers.covers(known)) return
  index.set(multihash, { container: container.id, offset: section.offset, length: section.bytes.length })
}

/** The sections of a pack in `[start, end)`, up to the first that is torn or malformed. */
export function* readSections(fd: number, start: number, end: number): Generator<Section> {
  const window = Buffer.allocUnsafe(WINDOW_BYTES + MAX_BLOCK_BYTES + MAX_SECTION_HEAD_BYTES)
  let windowStart = start
  let filled = 0
  let position = start
  while (position < end) {
    const ahead = position - windowStart
    if (filled - ahead < MAX_BLOCK_BYTES + MAX_SECTION_HEAD_BYTES && windowStart + filled < end) {
      windowStart = position
      filled = readFully(fd, window, Math.min(window.length, end - position), position)
      if (filled === 0) return
    }
    const section = sectionAt(window.subarray(0, filled), position - windowStart, windowStart)
    if (section === undefined) return
    yield section
    position = section.offset + section.bytes.length
  }
}

function sectionAt(window: Uint8Array, at: number, windowStart: number): Section | undefined {
  try {
    const head = decodeSectionHead(window, at)
    if (head === undefined) return undefined
    const block = at + head.headLength
    const bytes = window.subarray(block, block + head.blockLength)
    if (bytes.length < head.blockLength) return undefined
    return { cid: head.cid, offset: windowStart + block, bytes }
  } catch (err) {
    if (codeOf(err) === 'BAD_CAR') return undefined
    throw err
  }
}

/** As many bytes as there are, up to `length`. */
export function readFully(fd: number, buffer: Uint8Array, length: number, position: number): number {
  let done = 0
  while (done < length) {
    const count = fs.readSync(fd, buffer, done, length - done, position + done)
    if (count === 0) break
    done += count
  }
  return done
}

/**
 * Files of containers that the registry does not know. Packs newer than it come from writes whose index was
 * lost with the machine: their blocks are good. Everything else was dropped, or never referred to.
 */
async function settleUnknownFiles({ containers, state }: Parts): Promise<void> {
  const firstLost = containers.nextId
  for (const name of await readdir(state.packsPath)) {
    const id = /^(\d+)\.car$/.exec(name)?.[1]
    if (id === undefined || containers.get(Number(id)) !== undefined) continue
    if (Number(id) >= firstLost && Number(id) <= MAX_ID) containers.adopt('pack', Number(id))
    else fs.rmSync(join(state.packsPath, name))
  }
  for (const folder of await readdir(state.objectsPath)) {
    if (!/^[0-9a-f]{2}$/.test(folder)) continue
    for (const name of await readdir(join(state.objectsPath, folder))) {
      if (/^\d+$/.test(name) && containers.get(Number(name)) === undefined) {
        log('object %s belongs to nothing: removed', name)
        fs.rmSync(join(state.objectsPath, folder, name))
      }
    }
  }
}
