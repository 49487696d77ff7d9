/**
 * Decoded directories and chunk tables, shared by every path to the same content.
 *
 * Invariant: keyed by codec and multihash; bounded by memory, least recently used first. Losing one costs a
 * decode and nothing else.
 */
import { LRUCache } from 'lru-cache'
import type { BlockReader, GetOptions } from '../core/blocks.js'
import { type CID, keyOf } from '../core/cid.js'
import { type MaybePromise, then } from '../core/maybe-promise.js'
import { Directory } from '../unixfs/directory.js'
import { FileTable } from '../unixfs/file-table.js'

const MAX_DIRECTORY_BYTES = 64 * 1024 * 1024
const MAX_TABLES = 512
/** What a directory costs besides its blocks. */
const DIRECTORY_OVERHEAD_BYTES = 1024

export class ContentCache {
  readonly #blocks: BlockReader
  readonly #directories = new LRUCache<string, Directory>({
    maxSize: MAX_DIRECTORY_BYTES,
    sizeCalculation: directory => directory.heldBytes + DIRECTORY_OVERHEAD_BYTES,
  })
  readonly #tables = new LRUCache<string, FileTable>({ max: MAX_TABLES })
  /** Size under which a directory is accounted: it grows as shards are read. */
  readonly #accounted = new WeakMap<Directory, number>()

  constructor(blocks: BlockReader) {
    this.#blocks = blocks
  }

  /** @throws CidfsError as `Directory.open` and `BlockReader.get`. */
  directory(cid: CID, options: GetOptions): MaybePromise<Directory> {
    const key = cacheKey(cid)
    const cached = this.#directories.get(key)
    if (cached !== undefined) return this.#account(key, cached)
    return then(this.#blocks.get(cid, options), bytes =>
      this.#account(key, Directory.open(cid, bytes, this.#blocks)),
    )
  }

  #account(key: string, directory: Directory): Directory {
    if (this.#accounted.get(directory) !== directory.heldBytes) {
      this.#accounted.set(directory, directory.heldBytes)
      this.#directories.delete(key)
      this.#directories.set(key, directory)
    }
    return directory
  }

  /** @throws CidfsError as `FileTable.open` and `BlockReader.get`. */
  file(cid: CID, options: GetOptions): MaybePromise<FileTable> {
    const key = cacheKey(cid)
    const cached = this.#tables.get(key)
    if (cached !== undefined) return cached
    return then(this.#blocks.get(cid, options), bytes => {
      const table = FileTable.open(cid, bytes)
      this.#tables.set(key, table)
      return table
    })
  }
}

function cacheKey(cid: CID): string {
  return `${cid.code}:${keyOf(cid)}`
}
