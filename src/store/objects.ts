/**
 * Objects: containers that are ordinary files, one for each large file of `staging/`.
 *
 * Invariant: an object is written until it is sealed and never afterwards; from then on ranges of it are blocks. The
 * file of one that is dropped goes after the next flush, when no index on disk names it any more.
 */
import * as fs from 'node:fs'
import { open } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Location } from '../core/blocks.js'
import { type CID, isIdentity } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import type { BlockIndex } from './block-index.js'
import type { Container, Containers } from './containers.js'
import type { Environment } from './environment.js'
import type { Flusher } from './flusher.js'

/** A leaf of an object: bytes `[offset, offset + length)` of its file. */
export interface Leaf {
  cid: CID
  offset: number
  length: number
}

export interface ObjectParts {
  environment: Environment
  containers: Containers
  index: BlockIndex
  flusher: Flusher
  /** Where a block lies that is needed although it is here. */
  held(cid: CID): Location | undefined
  put(cid: CID, bytes: Uint8Array): void
  forget(object: Container): void
}

export class Objects {
  readonly #parts: ObjectParts
  /** Known to exist. */
  readonly #folders = new Set<string>()
  /** Whose name in its folder is on the disk. */
  readonly #named = new Set<number>()
  /** Whose own name is. */
  readonly #namedFolders = new Set<string>()

  constructor(parts: ObjectParts) {
    this.#parts = parts
  }

  /** As `Store.createObject`. */
  create(): { container: number; path: string } {
    const { containers } = this.#parts
    const object = containers.create('object')
    const path = containers.path(object)
    this.#makeFolder(dirname(path))
    return { container: object.id, path }
  }

  #makeFolder(path: string): void {
    if (this.#folders.has(path)) return
    fs.mkdirSync(path, { recursive: true, mode: 0o700 })
    this.#folders.add(path)
  }

  /** As `Store.sealObject`. */
  seal(container: number, leaves: Iterable<Leaf>): { added: number } {
    const { environment, containers } = this.#parts
    const object = this.get(container)
    const sizeBytes = fs.statSync(containers.path(object), { throwIfNoEntry: false })?.size ?? 0
    const before = { ...object }
    return environment.transaction(() => {
      environment.onRollback(() => Object.assign(object, before))
      let added = 0
      object.sealed = true
      for (const leaf of leaves) {
        const end = leaf.offset + leaf.length
        if (end > sizeBytes) throw shorterThanLeaves(container, sizeBytes)
        object.length = Math.max(object.length, end)
        if (this.#add(container, leaf)) added++
      }
      containers.record(object)
      return { added }
    })
  }

  /**
   * Whether the leaf was not held before. If it was, it is here from now on: what a file had in common with its last
   * content would else keep all of that on the disk, as long as the file lives.
   */
  #add(container: number, { cid, offset, length }: Leaf): boolean {
    const { held, put, index } = this.#parts
    if (isIdentity(cid)) return false
    const isNew = held(cid) === undefined
    // nothing of an empty file would ever be synced: its one block goes to a pack
    if (length > 0) index.set(cid.multihash.bytes, { container, offset, length })
    else if (isNew) put(cid, new Uint8Array(0))
    return isNew
  }

  unsealed(): number[] {
    return [...this.#parts.containers.values()]
      .filter(({ kind, sealed }) => kind === 'object' && !sealed)
      .map(({ id }) => id)
  }

  /** As `Store.dropObject`. */
  drop(container: number): void {
    const { environment, containers, flusher, forget } = this.#parts
    const object = this.get(container)
    if (object.sealed) throw new CidfsError('INVALID', `object ${container} is sealed`)
    const path = containers.path(object)
    const sizeBytes = fs.statSync(path, { throwIfNoEntry: false })?.size ?? 0
    environment.transaction(() => {
      forget(object)
      flusher.unlinkLater(path)
    })
    this.#named.delete(container)
    flusher.noteBytes(sizeBytes) // much space is not to be waited for
  }

  /**
   * The name of the object's file is on the disk when it resolves: not every file system sees to that when the file
   * is synced. Costs something the first time only.
   */
  async syncName(container: number): Promise<void> {
    if (this.#named.has(container)) return
    const folder = dirname(this.path(container))
    await syncFolder(folder)
    if (!this.#namedFolders.has(folder)) await syncFolder(dirname(folder))
    this.#namedFolders.add(folder)
    if (this.#parts.containers.get(container) !== undefined) this.#named.add(container)
  }

  path(container: number): string {
    return this.#parts.containers.path(this.get(container))
  }

  /** @throws CidfsError `INVALID` when it is no object. */
  get(container: number): Container {
    const object = this.#parts.containers.get(container)
    if (object?.kind === 'object') return object
    throw new CidfsError('INVALID', `there is no object ${container}`)
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, fs.constants.O_RDONLY)
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

function shorterThanLeaves(container: number, sizeBytes: number): CidfsError {
  return new CidfsError('INVALID', `object ${container} has ${sizeBytes} bytes, less than its leaves need`)
}
