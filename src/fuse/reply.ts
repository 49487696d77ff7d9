/**
 * Writes the structs of replies.
 *
 * Invariant: a reply is built and sent in one go, so one buffer serves all of them. Every struct is written in
 * full, padding included: nothing of an earlier reply is left in it.
 * Numbers are written as 32-bit words, little-endian like every machine the addon compiles for.
 *
 * Reference: include/uapi/linux/fuse.h; sizes and offsets in the comments are bytes.
 */
import type { Attributes, Entry, NegativeEntry, Opened, StatFs, Time } from '../fs/file-system.js'
import { FOPEN, OUT_HEADER_BYTES } from './abi.js'

const TWO_32 = 2 ** 32
const REPLY_BUFFER_BYTES = 4096
const BODY = OUT_HEADER_BYTES >> 2

export const ENTRY_OUT_BYTES = 128
export const ATTR_BYTES = 88

/** Negative numbers come out in two's complement. `at` is an index of words. */
export function putU64(words: Uint32Array, at: number, value: number): void {
  words[at] = value
  words[at + 1] = Math.floor(value / TWO_32)
}

/** struct fuse_attr (88). */
function putAttributes(words: Uint32Array, at: number, a: Attributes): void {
  putU64(words, at, a.ino)
  putU64(words, at + 2, a.sizeBytes)
  putU64(words, at + 4, a.blocks)
  putU64(words, at + 6, a.atime.seconds)
  putU64(words, at + 8, a.mtime.seconds)
  putU64(words, at + 10, a.ctime.seconds)
  words[at + 12] = a.atime.nanoseconds
  words[at + 13] = a.mtime.nanoseconds
  words[at + 14] = a.ctime.nanoseconds
  words[at + 15] = a.mode
  words[at + 16] = a.nlink
  words[at + 17] = a.uid
  words[at + 18] = a.gid
  words[at + 19] = a.rdev
  words[at + 20] = a.blksize
  words[at + 21] = 0
}

/** struct fuse_entry_out (128): nodeid, generation, two TTLs, attributes. */
export function putEntry(words: Uint32Array, at: number, entry: Entry): void {
  putU64(words, at, entry.attributes.ino)
  putU64(words, at + 2, 0)
  putTtl(words, at + 4, at + 8, entry.entryTtlMs)
  putTtl(words, at + 6, at + 9, entry.attributesTtlMs)
  putAttributes(words, at + 10, entry.attributes)
}

function putTtl(words: Uint32Array, secondsAt: number, nanosecondsAt: number, ms: number): void {
  putU64(words, secondsAt, Math.floor(ms / 1000))
  words[nanosecondsAt] = (ms % 1000) * 1e6
}

/** The reusable buffer with the header and the fixed part of a reply. */
export class Reply {
  /** The channel's output buffer. */
  readonly bytes = Buffer.from(new ArrayBuffer(REPLY_BUFFER_BYTES))
  readonly words = new Uint32Array(this.bytes.buffer)
  /** Bytes so far, header included. */
  length = OUT_HEADER_BYTES

  begin(): void {
    this.length = OUT_HEADER_BYTES
  }

  /** struct fuse_out_header. `errno` is positive, 0 on success; `length` counts header, body and payload. */
  header(errno: number, uniqueLow: number, uniqueHigh: number, length: number): void {
    this.words[0] = length
    this.words[1] = -errno
    this.words[2] = uniqueLow
    this.words[3] = uniqueHigh
  }

  entry(entry: Entry | NegativeEntry): void {
    if (entry.attributes === undefined) this.#negative(entry.entryTtlMs)
    else putEntry(this.words, BODY, entry)
    this.length = OUT_HEADER_BYTES + ENTRY_OUT_BYTES
  }

  /** A nodeid of 0: the kernel remembers the absence for the TTL. */
  #negative(ttlMs: number): void {
    this.words.fill(0, BODY, BODY + (ENTRY_OUT_BYTES >> 2))
    putTtl(this.words, BODY + 4, BODY + 8, ttlMs)
  }

  /** struct fuse_attr_out (104). */
  attributes(attributes: Attributes, ttlMs: number): void {
    putTtl(this.words, BODY, BODY + 2, ttlMs)
    this.words[BODY + 3] = 0
    putAttributes(this.words, BODY + 4, attributes)
    this.length = OUT_HEADER_BYTES + 16 + ATTR_BYTES
  }

  /**
   * struct fuse_open_out (16), behind what is there already (FUSE_CREATE has an entry before it). With a backing
   * id the file bypasses our page cache, and the kernel takes no flag that speaks of it.
   */
  opened(opened: Opened, backingId = 0): void {
    const at = this.length >> 2
    putU64(this.words, at, opened.fh)
    this.words[at + 2] =
      (opened.noFlush ? FOPEN.NOFLUSH : 0) | (backingId === 0 ? cachingFlags(opened) : FOPEN.PASSTHROUGH)
    this.words[at + 3] = backingId
    this.length += 16
  }

  /** struct fuse_write_out and struct fuse_getxattr_out (8). */
  size(bytes: number): void {
    this.words[BODY] = bytes
    this.words[BODY + 1] = 0
    this.length = OUT_HEADER_BYTES + 8
  }

  /** struct fuse_lseek_out (8). */
  u64(value: number): void {
    putU64(this.words, BODY, value)
    this.length = OUT_HEADER_BYTES + 8
  }

  /** struct fuse_statfs_out (80). */
  statfs(s: StatFs): void {
    const counts = [s.blocks, s.blocksFree, s.blocksAvailable, s.files, s.filesFree]
    this.words.fill(0, BODY, BODY + 20)
    for (const [i, count] of counts.entries()) putU64(this.words, BODY + 2 * i, count)
    this.words[BODY + 10] = s.blockSizeBytes
    this.words[BODY + 11] = s.nameMaxBytes
    this.words[BODY + 12] = s.blockSizeBytes
    this.length = OUT_HEADER_BYTES + 80
  }

  /** A struct given as words. */
  struct(words: ArrayLike<number>): void {
    this.words.set(words, BODY)
    this.length = OUT_HEADER_BYTES + 4 * words.length
  }
}

function cachingFlags(opened: Opened): number {
  return (
    (opened.directIo ? FOPEN.DIRECT_IO : 0) |
    (opened.keepCache ? FOPEN.KEEP_CACHE : 0) |
    (opened.nonSeekable ? FOPEN.NONSEEKABLE : 0) |
    (opened.cacheDirectory ? FOPEN.CACHE_DIR : 0)
  )
}

/** A Time from the wire. */
export function time(seconds: number, nanoseconds: number): Time {
  return { seconds, nanoseconds }
}
