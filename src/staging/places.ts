/**
 * Where the content of a staged file lies until it is published: in a slot of the nursery, or in an object.
 *
 * Invariant: a file has one place at a time, and changes it in one transaction: a crash finds all of the content in the
 * old one or in the new.
 */
import * as fs from 'node:fs'
import type { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import type { MaybePromise } from '../core/maybe-promise.js'
import type { Store } from '../store/store.js'
import type { CopyContent } from './copy-content.js'
import type { DirtyQueue } from './dirty-queue.js'
import type { Namespace } from './namespace.js'
import { hasPlace, type StagingNode } from './node.js'
import type { Nursery } from './nursery.js'
import { unallocated, writeFully } from './object-file.js'
import type { OpenContent } from './open-content.js'
import { SharedFd } from './shared-fd.js'

export interface PlacesParts {
  store: Store
  names: Namespace
  dirty: DirtyQueue
  copy: CopyContent
  nursery: Nursery
  /** Whether a new file is to have a slot, which the kernel cannot serve by itself. */
  expectsSmall: () => boolean
}

export class Places {
  readonly #parts: PlacesParts

  constructor(parts: PlacesParts) {
    this.#parts = parts
  }

  /** The descriptor of the object of a file, which becomes the place of its content where it is not. */
  file(content: OpenContent): SharedFd {
    if (content.node.object === undefined) this.#moveOut(content)
    const container = content.node.object!
    if (content.container === container && content.file !== undefined) return content.file
    content.file?.release()
    content.file = new SharedFd(this.#parts.store.objectPath(container), 'r+')
    content.container = container
    return content.file
  }

  /** A working copy of what is published. */
  async copyFrom(content: OpenContent, source: CID): Promise<void> {
    const { container, path } = this.#parts.store.createObject()
    try {
      await this.#parts.copy(source, path)
    } catch (err) {
      this.#parts.store.dropObject(container)
      throw err
    }
    // emptied in the meantime: that is the content, and not the copy
    if (hasPlace(content.node)) return this.#parts.store.dropObject(container)
    this.adopt(content, container, content.node.sizeBytes)
  }

  /** An empty file gets a place for its content: a slot where it is likely to stay small. */
  begin(content: OpenContent): void {
    const { node } = content
    if (!this.#parts.expectsSmall() || !this.#parts.names.transaction(() => this.#beginSlot(node)))
      this.#beginObject(content, 0)
  }

  #beginSlot(node: StagingNode): boolean {
    if (!this.#parts.nursery.place(node)) return false
    this.#replaced(node, 0)
    return true
  }

  #beginObject(content: OpenContent, sizeBytes: number, bytes?: Uint8Array): void {
    const { container, path } = this.#parts.store.createObject()
    try {
      const file = new SharedFd(path, 'w+', 0o600)
      content.file?.release()
      Object.assign(content, { file, container })
      if (bytes !== undefined) writeFully(file.fd, bytes, 0)
      this.adopt(content, container, sizeBytes)
    } catch (err) {
      this.#parts.store.dropObject(container)
      throw err
    }
  }

  /** From here on the object is the content. One transaction: a crash finds either the old state or this. */
  adopt({ node }: OpenContent, container: number, sizeBytes: number): void {
    this.#parts.names.transaction(() => {
      this.#parts.nursery.leave(node)
      node.object = container
      this.#replaced(node, sizeBytes)
    })
  }

  #replaced(node: StagingNode, sizeBytes: number): void {
    node.sizeBytes = sizeBytes
    node.generation++
    this.#parts.names.put(node) // marked already, it would not be stored
    this.#parts.dirty.mark(node)
  }

  /** A file that has outgrown its slot, or is used as only a file of its own can be. */
  #moveOut(content: OpenContent): void {
    const { node } = content
    if (node.slot === undefined) throw new CidfsError('BAD_HANDLE', `node ${node.ino} has no working object`)
    this.#parts.nursery.noteSize(Number.POSITIVE_INFINITY)
    this.#beginObject(content, node.sizeBytes, this.#parts.nursery.bytes(node))
  }

  /** Space for a range of the working object, where it does not have it. @throws CidfsError `NO_SPACE`. */
  claim(content: OpenContent, offset: number, length: number): MaybePromise<void> {
    const { space } = this.#parts.store
    if (space.spend(length)) return
    const isInFile = content.node.object !== undefined
    const missing = isInFile ? unallocated(this.file(content).fd, offset, length) : length
    if (missing > 0) return space.take(missing)
  }

  /** All of a small file. @throws CidfsError `IO` when the disk has lost a part of it. */
  bytes(node: StagingNode): Uint8Array {
    const { nursery, store } = this.#parts
    if (node.slot !== undefined) return nursery.bytes(node)
    return node.object === undefined ? new Uint8Array(0) : fs.readFileSync(store.objectPath(node.object))
  }
}
