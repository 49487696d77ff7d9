/**
 * Open descriptors of containers, shared by everybody who reads them.
 *
 * Invariant: a descriptor is never closed while somebody has acquired it, since a native thread may be reading
 * from it and the number could by then belong to another file. What falls out of the cache while in use is
 * closed by its last `release`.
 */
import * as fs from 'node:fs'
import { LRUCache } from 'lru-cache'

interface Descriptor {
  fd: number
  users: number
}

export class DescriptorCache {
  readonly #path: (container: number) => string
  readonly #cached: LRUCache<number, Descriptor>
  /** Fallen out of the cache, still acquired. */
  readonly #lingering = new Map<number, Descriptor>()

  /**
   * @param max descriptors kept open for later
   * @param path the file of a container
   */
  constructor(max: number, path: (container: number) => string) {
    this.#path = path
    this.#cached = new LRUCache<number, Descriptor>({
      max,
      dispose: (descriptor, container) => this.#retire(container, descriptor),
    })
  }

  /**
   * An open descriptor for reading, which stays open until `release`.
   * @throws what open(2) does, for example ENOENT.
   */
  acquire(container: number): number {
    const descriptor = this.#cached.get(container) ?? this.#revive(container) ?? this.#open(container)
    descriptor.users++
    return descriptor.fd
  }

  /** Gives back what `acquire` gave. */
  release(container: number): void {
    const lingering = this.#lingering.get(container)
    const descriptor = lingering ?? this.#cached.peek(container)
    if (descriptor === undefined || descriptor.users === 0) {
      throw new RangeError(`container ${container} is released more often than it was acquired`)
    }
    if (--descriptor.users > 0 || lingering === undefined) return
    this.#lingering.delete(container)
    fs.closeSync(descriptor.fd)
  }

  /** The file goes away: closes its descriptor, once nobody has it. */
  drop(container: number): void {
    this.#cached.delete(container)
  }

  /** Closes all that nobody has acquired; the rest is closed by its last `release`. */
  close(): void {
    this.#cached.clear()
  }

  #open(container: number): Descriptor {
    const descriptor = { fd: fs.openSync(this.#path(container), 'r'), users: 0 }
    this.#cached.set(container, descriptor)
    return descriptor
  }

  #revive(container: number): Descriptor | undefined {
    const descriptor = this.#lingering.get(container)
    if (descriptor === undefined) return undefined
    this.#lingering.delete(container)
    this.#cached.set(container, descriptor)
    return descriptor
  }

  #retire(container: number, descriptor: Descriptor): void {
    if (descriptor.users > 0) this.#lingering.set(container, descriptor)
    else fs.closeSync(descriptor.fd)
  }
}
