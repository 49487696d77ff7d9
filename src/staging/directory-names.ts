/**
 * Directories of `staging/` that are published under a name: the name follows their CID.
 *
 * Invariant: which directory follows which key is on disk; what a name leads to is compared with the directory's
 * CID at every start and after every change, so a crash in between costs nothing. One key follows one directory.
 */
import { CidfsError, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { NameKeys } from './name-keys.js'
import type { NamePublisher } from './name-publisher.js'
import type { NameRecords } from './name-records.js'
import { STAGING_ROOT_INO, type StagingNode } from './node.js'
import type { Staging } from './staging.js'

const log = logger('staging:names')

/** Changes in a row are one publication. */
const DEBOUNCE_MS = 1_000

export interface DirectoryName {
  keyName: string
  /** The name itself; undefined when its key is gone. */
  name: string | undefined
  /** Why the name does not lead to the present CID, if something failed. */
  error: string | undefined
}

export interface DirectoryNamesParts {
  staging: Staging
  keys: NameKeys
  records: NameRecords
  publisher: NamePublisher
  debounceMs?: number
}

export class DirectoryNames {
  readonly #parts: DirectoryNamesParts
  readonly #changed = new Set<number>()
  readonly #errors = new Map<number, string>()
  #timer: NodeJS.Timeout | undefined
  #stopped = true

  constructor(parts: DirectoryNamesParts) {
    this.#parts = parts
    parts.staging.onDirectoryPublished = ino => {
      if (parts.records.keyOf(ino) !== undefined) this.#schedule(ino)
    }
  }

  start(): void {
    this.#stopped = false
    for (const [ino] of this.#parts.records.bindings()) this.#schedule(ino)
  }

  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
  }

  /** What a directory is published under. */
  of(ino: number): DirectoryName | undefined {
    const { records, keys, publisher } = this.#parts
    const keyName = records.keyOf(ino)
    if (keyName === undefined) return undefined
    const name = keys.find(keyName)?.name.text
    const failed = name === undefined ? undefined : publisher.publicationOf(name)?.error
    const error = this.#errors.get(ino) ?? (failed === null ? undefined : failed)
    return { keyName, name, error }
  }

  /** The directory that a key follows, as a path. */
  pathOf(keyName: string): string | undefined {
    const { records, staging } = this.#parts
    for (const [ino, bound] of records.bindings()) {
      const node = bound === keyName ? this.#find(ino) : undefined
      if (node !== undefined) return `staging/${staging.names.pathOf(node)}`
    }
    return undefined
  }

  /**
   * From now on the name of the key leads to this directory.
   * @throws CidfsError `NOT_SUPPORTED` (no directory, or the root), `NOT_FOUND` (no such key), `BUSY` (it follows
   * another directory).
   */
  bind(node: StagingNode, keyName: string): void {
    const { keys, records } = this.#parts
    if (node.type !== 'directory' || node.ino === STAGING_ROOT_INO) {
      throw new CidfsError('NOT_SUPPORTED', 'names follow directories inside staging/')
    }
    keys.get(keyName)
    const path = records.keyOf(node.ino) === keyName ? undefined : this.pathOf(keyName)
    if (path !== undefined) throw new CidfsError('BUSY', `the key ${keyName} follows ${path}`)
    records.bind(node.ino, keyName)
    this.#schedule(node.ino)
  }

  /** The name leads to what it last did. @throws CidfsError `NO_ATTRIBUTE`. */
  unbind(ino: number): void {
    if (this.#parts.records.keyOf(ino) === undefined) {
      throw new CidfsError('NO_ATTRIBUTE', 'it follows no name')
    }
    this.#parts.records.unbind(ino)
    this.#errors.delete(ino)
  }

  #schedule(ino: number): void {
    this.#changed.add(ino)
    if (this.#stopped || this.#timer !== undefined) return
    this.#timer = setTimeout(() => this.#publishChanged(), this.#parts.debounceMs ?? DEBOUNCE_MS)
  }

  #publishChanged(): void {
    this.#timer = undefined
    for (const ino of this.#changed) {
      this.#changed.delete(ino)
      try {
        this.#publish(ino)
        this.#errors.delete(ino)
      } catch (err) {
        log('directory %d: %s', ino, messageOf(err))
        this.#errors.set(ino, messageOf(err))
      }
    }
  }

  /** A directory that is being changed has no CID now, and comes again when it has. */
  #publish(ino: number): void {
    const { records, keys, publisher, staging } = this.#parts
    const keyName = records.keyOf(ino)
    const node = this.#find(ino)
    if (keyName === undefined) return
    if (node === undefined) {
      records.unbind(ino)
      return
    }
    const cid = staging.publishedCid(node)
    if (cid === undefined) return
    const value = `/ipfs/${cid}`
    if (records.get(keys.get(keyName).name.text)?.value !== value) publisher.enqueue(keyName, value)
  }

  #find(ino: number): StagingNode | undefined {
    const node = this.#parts.staging.names.find(ino)
    return node === undefined || node.parent === 0 ? undefined : node
  }
}
