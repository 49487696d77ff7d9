/**
 * Hashes large files while their settle delay runs.
 *
 * Invariant: digests are given out for the content that was hashed only: a write in the meantime changes the
 * generation of its node, and they are void. Nothing fails here: without a head start the work is done later.
 * Why: the delay is as long as hashing some hundreds of MiB, and most files are not touched again within it.
 * Few at a time and a few kept, since a file that is written over and over is hashed as often in vain. Nothing is
 * synced: the kernel tells of a lost write once, and it is the publisher that has to hear it.
 */
import type { Store } from '../store/store.js'
import { CHUNK_BYTES } from '../unixfs/profile.js'
import type { HashPool } from './hash-pool.js'
import type { StagingNode } from './node.js'
import { SharedFd } from './shared-fd.js'

const MAX_RUNNING = 2
const MAX_KEPT = 16

interface Start {
  generation: number
  object: number
  /** Undefined: it went wrong. */
  digests: Promise<Uint8Array | undefined>
}

export class HeadStart {
  readonly #store: Store
  readonly #hashes: Pick<HashPool, 'hashFile'>
  /** By node, oldest first. */
  readonly #starts = new Map<number, Start>()
  readonly #running = new Set<Promise<unknown>>()

  constructor(store: Store, hashes: Pick<HashPool, 'hashFile'>) {
    this.#store = store
    this.#hashes = hashes
  }

  /** A file was closed that will be published if nobody changes it. */
  begin(node: StagingNode): void {
    const { ino, generation, object, sizeBytes } = node
    if (object === undefined || this.#running.size >= MAX_RUNNING || this.#has(node)) return
    const digests = this.#hash(object, sizeBytes).catch(() => undefined)
    this.#running.add(digests)
    void digests.then(() => this.#running.delete(digests))
    this.#starts.delete(ino)
    this.#starts.set(ino, { generation, object, digests })
    for (const oldest of this.#starts.keys()) {
      if (this.#starts.size <= MAX_KEPT) break
      this.#starts.delete(oldest)
    }
  }

  /** The digests of the content as it is now, if they were begun; each is given out once. */
  take(node: StagingNode): Promise<Uint8Array | undefined> | undefined {
    const digests = this.#has(node) ? this.#starts.get(node.ino)?.digests : undefined
    this.#starts.delete(node.ino)
    return digests
  }

  /** When it resolves, no file is being read. */
  async ended(): Promise<void> {
    await Promise.all(this.#running)
  }

  #has({ ino, generation, object }: StagingNode): boolean {
    const start = this.#starts.get(ino)
    return start !== undefined && start.generation === generation && start.object === object
  }

  async #hash(object: number, sizeBytes: number): Promise<Uint8Array> {
    const file = new SharedFd(this.#store.objectPath(object), 'r')
    try {
      return await this.#hashes.hashFile(file.fd, sizeBytes, CHUNK_BYTES)
    } finally {
      file.release()
    }
  }
}
