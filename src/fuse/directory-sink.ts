/**
 * Packs directory entries into the reply of READDIR and READDIRPLUS.
 *
 * Invariant: an entry is taken whole or not at all, so the buffer is a valid reply at any moment. The lookups that
 * READDIRPLUS counts are remembered until the reply has left: if it does not, they are given back.
 * The kernel counts no lookup of `.` and `..`, and none of an entry with nodeid 0.
 *
 * Reference: struct fuse_dirent, struct fuse_direntplus, FUSE_DIRENT_ALIGN
 */
import type { DirectoryEntry, DirectorySink, Entry, Ino } from '../fs/file-system.js'
import { MAX_IO_BYTES } from './abi.js'
import { ENTRY_OUT_BYTES, putEntry, putU64 } from './reply.js'

const DIRENT_BYTES = 24

export class PackedDirectory implements DirectorySink {
  readonly #bytes: Uint8Array
  readonly #words: Uint32Array
  #length = 0
  readonly #lookedUp: Ino[] = []

  /** `sizeBytes` is what the kernel has room for. */
  constructor(sizeBytes: number) {
    const buffer = new ArrayBuffer(Math.min(sizeBytes, MAX_IO_BYTES) & ~7)
    this.#bytes = new Uint8Array(buffer)
    this.#words = new Uint32Array(buffer)
  }

  add(entry: DirectoryEntry): boolean {
    return this.#put(entry, 0)
  }

  addPlus(entry: DirectoryEntry, attributes: Entry | undefined): boolean {
    const at = this.#length >> 2
    if (!this.#put(entry, ENTRY_OUT_BYTES)) return false
    if (attributes === undefined || isDots(entry.name)) return true
    putEntry(this.#words, at, attributes)
    this.#lookedUp.push(attributes.attributes.ino)
    return true
  }

  #put({ name, ino, type, nextOffset }: DirectoryEntry, before: number): boolean {
    const start = this.#length + before
    const end = (start + DIRENT_BYTES + name.length + 7) & ~7
    if (end > this.#bytes.length) return false
    const at = start >> 2
    putU64(this.#words, at, ino)
    putU64(this.#words, at + 2, nextOffset)
    this.#words[at + 4] = name.length
    this.#words[at + 5] = type
    this.#bytes.set(name, start + DIRENT_BYTES)
    this.#length = end
    return true
  }

  /** The reply so far; empty means the end of the directory. */
  packed(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }

  /** The node ids whose lookup count rises by one when the kernel takes the reply. */
  get lookedUp(): readonly Ino[] {
    return this.#lookedUp
  }
}

function isDots(name: Uint8Array): boolean {
  return name[0] === 0x2e && (name.length === 1 || (name.length === 2 && name[1] === 0x2e))
}
