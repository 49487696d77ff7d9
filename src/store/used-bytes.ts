/**
 * What the state directory takes on disk.
 *
 * Invariant: packs count with their length, objects with the blocks that their file has (holes are free), everything
 * else with the blocks of its file. Only objects that were written to since the last look are looked at again.
 */
import * as fs from 'node:fs'
import { join } from 'node:path'
import type { Containers } from './containers.js'

/** Unit of st_blocks. */
const BLOCK_BYTES = 512

export class UsedBytes {
  readonly #path: string
  readonly #containers: Containers
  /** By object. */
  readonly #measured = new Map<number, number>()
  readonly #changed = new Set<number>()

  constructor(path: string, containers: Containers) {
    this.#path = path
    this.#containers = containers
    for (const { id, kind, sealed } of containers.values())
      if (kind === 'object' && !sealed) this.#changed.add(id)
  }

  /** The object has been written to. */
  changed(object: number): void {
    this.#changed.add(object)
  }

  total(): number {
    for (const object of this.#changed) this.#measure(object)
    this.#changed.clear()
    let bytes = this.#besides()
    for (const { id, kind, length } of this.#containers.values())
      bytes += kind === 'pack' ? length : (this.#measured.get(id) ?? length)
    return bytes
  }

  /** Sealed objects of earlier runs count with their length until they are measured: files with holes take less. */
  measureAll(): void {
    for (const { id, kind } of this.#containers.values())
      if (kind === 'object' && !this.#measured.has(id)) this.#measure(id)
  }

  #measure(object: number): void {
    const container = this.#containers.get(object)
    const stats = container && fs.statSync(this.#containers.path(container), { throwIfNoEntry: false })
    if (stats === undefined) this.#measured.delete(object)
    else this.#measured.set(object, stats.blocks * BLOCK_BYTES)
  }

  /** The index and whatever else lies beside the folders of containers. */
  #besides(): number {
    let bytes = 0
    for (const entry of fs.readdirSync(this.#path, { withFileTypes: true })) {
      if (!entry.isFile()) continue
      const stats = fs.statSync(join(this.#path, entry.name), { throwIfNoEntry: false })
      bytes += (stats?.blocks ?? 0) * BLOCK_BYTES
    }
    return bytes
  }
}
