/**
 * What a transport may ask of a file system: the operations of the FUSE protocol, without its wire format.
 *
 * Invariant: nothing here names a transport or IPFS; `src/fuse` calls it, `src/fs` implements it, and the
 * tests drive it directly. Node ids are positive numbers below 2^53; the root is 1. Names are bytes.
 * Any method may answer at once or with a promise, and throws what `errnoOf` (errno.ts) can map.
 * Buffers passed in are only valid until the method returns: what is kept must be copied.
 *
 * Reference: include/uapi/linux/fuse.h, Documentation/filesystems/fuse.rst
 */
import type { FileRange } from '../core/blocks.js'
import type { MaybePromise } from '../core/maybe-promise.js'

export type Ino = number
/** File handle: a number below 2^53 that the file system chose at open. 0 where it needs none. */
export type Fh = number

export const ROOT_INO: Ino = 1

/** Who asks, and the signal that FUSE_INTERRUPT aborts. */
export interface Context {
  uid: number
  gid: number
  pid: number
  /** Names the request, where the transport can send one again to the next daemon: it then has the same id. */
  readonly id?: number
  /** An earlier daemon may have done what is asked, and died before it could say so. */
  readonly repeated?: boolean
  /** Created on first access, so that requests answered at once cost no AbortController. */
  readonly signal: AbortSignal
}

/** Times are nanoseconds since the epoch split in two, as on the wire. */
export interface Time {
  seconds: number
  nanoseconds: number
}

export interface Attributes {
  ino: Ino
  sizeBytes: number
  /** 512-byte units. */
  blocks: number
  atime: Time
  mtime: Time
  ctime: Time
  /** Type and permission bits (S_IFMT | 07777). */
  mode: number
  nlink: number
  uid: number
  gid: number
  rdev: number
  blksize: number
}

export interface Entry {
  attributes: Attributes
  /** How long the kernel may keep the name; 0: ask each time. */
  entryTtlMs: number
  attributesTtlMs: number
}

/** A name that is proven absent; with a TTL the kernel remembers that. */
export interface NegativeEntry {
  attributes: undefined
  entryTtlMs: number
}

/**
 * A file of the disk with the content of the one that is opened: the kernel may read and write it by itself
 * (FOPEN_PASSTHROUGH), and then sends neither READ nor WRITE. Only an offer. While an inode is open the kernel
 * wants all opens of it alike: the answer to the first one holds until the last has been released, and every
 * later offer for the inode must name the same file.
 */
export interface Passthrough {
  /** Calls `attempt` at most once, with a descriptor that is good during the call, and heeds the answer. */
  offer(attempt: (fd: number) => PassthroughAnswer): void
  /** By which the file system finds the file again when the next daemon reopens what the kernel has open. */
  readonly token?: number
}

/** `refused`: not this file; `unsupported`: no file, ever. A transport that does not even ask has refused. */
export type PassthroughAnswer = 'taken' | 'refused' | 'unsupported'

export interface Opened {
  fh: Fh
  /** The kernel may serve the file by itself. */
  passthrough?: Passthrough | undefined
  /** FOPEN_KEEP_CACHE: pages read before stay valid. */
  keepCache?: boolean
  /** FOPEN_CACHE_DIR: the kernel may cache the listing. */
  cacheDirectory?: boolean
  /** FOPEN_DIRECT_IO: bypass the page cache; sizes may be unknown (status files). */
  directIo?: boolean
  /** FOPEN_NONSEEKABLE */
  nonSeekable?: boolean
  /** FOPEN_NOFLUSH (Linux 5.16): `flush` has nothing to do, so close(2) does not wait for it. */
  noFlush?: boolean
}

/** Bytes, or ranges of open files that the transport copies itself and then releases. */
export type ReadResult = Uint8Array | FileRanges

export interface FileRanges {
  ranges: FileRange[]
  /** Called once when the transport has read them, also on failure. */
  release(): void
}

/** Only the fields present change. `now` stands for UTIME_NOW. */
export interface AttributeChanges {
  mode?: number
  uid?: number
  gid?: number
  sizeBytes?: number
  atime?: Time | 'now'
  mtime?: Time | 'now'
  ctime?: Time
  /** The open handle of ftruncate and friends. */
  fh?: Fh
  /** FATTR_KILL_SUIDGID */
  killSuidGid?: boolean
}

/** What a directory offers for one name. */
export interface DirectoryEntry {
  name: Uint8Array
  /** Shown as d_ino; need not be a node the kernel knows. */
  ino: Ino
  /** DT_* of dirent.h (S_IFMT >> 12), 0 where unknown. */
  type: number
  /** Cookie after this entry: a readdir from it goes on behind. Above 0, stable while the directory is open. */
  nextOffset: number
}

/**
 * Collects entries until the reply is full. `add` and `addPlus` return false when the entry did not fit: then
 * it was not taken, and the file system must not count it as looked up.
 */
export interface DirectorySink {
  add(entry: DirectoryEntry): boolean
  /**
   * Readdirplus. `entry` undefined: the attributes are not known here; the kernel will look the name up when
   * it needs them. Called with an entry and returning true, it counts as one lookup.
   */
  addPlus(entry: DirectoryEntry, attributes: Entry | undefined): boolean
}

export interface StatFs {
  blocks: number
  blocksFree: number
  blocksAvailable: number
  files: number
  filesFree: number
  blockSizeBytes: number
  nameMaxBytes: number
}

/** Ways in which the file system tells the kernel that something changed. Sent later, never from a reply. */
export interface Notifier {
  /** Forget attributes, and pages from `offset` (length 0: to the end; offset below 0: attributes only). */
  invalidateInode(ino: Ino, offset: number, length: number): void
  /** Forget the name in this directory. */
  invalidateEntry(parent: Ino, name: Uint8Array): void
}

export const RENAME_NOREPLACE = 1
export const RENAME_EXCHANGE = 2

export interface FileSystem {
  /** Called once when the transport is ready; the notifier is absent where the transport has none. */
  start(notifier: Notifier | undefined): void

  lookup(parent: Ino, name: Uint8Array, ctx: Context): MaybePromise<Entry | NegativeEntry>
  /** `count` lookups of `ino` are given back. Never fails. */
  forget(ino: Ino, count: number): void
  getattr(ino: Ino, fh: Fh | undefined, ctx: Context): MaybePromise<{ attributes: Attributes; ttlMs: number }>
  setattr(
    ino: Ino,
    changes: AttributeChanges,
    ctx: Context,
  ): MaybePromise<{ attributes: Attributes; ttlMs: number }>
  readlink(ino: Ino, ctx: Context): MaybePromise<Uint8Array>

  mknod(parent: Ino, name: Uint8Array, mode: number, rdev: number, ctx: Context): MaybePromise<Entry>
  mkdir(parent: Ino, name: Uint8Array, mode: number, ctx: Context): MaybePromise<Entry>
  symlink(parent: Ino, name: Uint8Array, target: Uint8Array, ctx: Context): MaybePromise<Entry>
  link(ino: Ino, parent: Ino, name: Uint8Array, ctx: Context): MaybePromise<Entry>
  unlink(parent: Ino, name: Uint8Array, ctx: Context): MaybePromise<void>
  rmdir(parent: Ino, name: Uint8Array, ctx: Context): MaybePromise<void>
  /** `flags`: RENAME_NOREPLACE, RENAME_EXCHANGE. */
  rename(
    parent: Ino,
    name: Uint8Array,
    newParent: Ino,
    newName: Uint8Array,
    flags: number,
    ctx: Context,
  ): MaybePromise<void>

  /** `flags` are those of open(2). With O_TRUNC the file is emptied (FUSE_ATOMIC_O_TRUNC). */
  open(ino: Ino, flags: number, ctx: Context): MaybePromise<Opened>
  create(
    parent: Ino,
    name: Uint8Array,
    mode: number,
    flags: number,
    ctx: Context,
  ): MaybePromise<{ entry: Entry; opened: Opened }>
  read(ino: Ino, fh: Fh, offset: number, sizeBytes: number, ctx: Context): MaybePromise<ReadResult>
  /**
   * An earlier daemon has opened it with `flags`, and the kernel still has it open; `passthrough`: the token of the
   * file that it serves by itself. Returns the handle. Absent where no daemon can take over.
   */
  reopen?(ino: Ino, flags: number, passthrough: number | undefined): Fh
  /** Returns the bytes accepted. `flags` are the file's open flags; O_APPEND means at its end. */
  write(ino: Ino, fh: Fh, offset: number, data: Uint8Array, flags: number, ctx: Context): MaybePromise<number>
  /** At each close(2) of a descriptor; an error here is what close returns. */
  flush(ino: Ino, fh: Fh, ctx: Context): MaybePromise<void>
  /** After the last close; its error goes nowhere. `flags` as in `open`. */
  release(ino: Ino, fh: Fh, flags: number): MaybePromise<void>
  fsync(ino: Ino, fh: Fh, dataOnly: boolean, ctx: Context): MaybePromise<void>
  fallocate(ino: Ino, fh: Fh, offset: number, length: number, mode: number, ctx: Context): MaybePromise<void>
  /** SEEK_DATA (3) or SEEK_HOLE (4); the kernel does the others itself. */
  lseek(ino: Ino, fh: Fh, offset: number, whence: number, ctx: Context): MaybePromise<number>
  copyFileRange(
    inIno: Ino,
    inFh: Fh,
    inOffset: number,
    outIno: Ino,
    outFh: Fh,
    outOffset: number,
    length: number,
    ctx: Context,
  ): MaybePromise<number>

  opendir(ino: Ino, flags: number, ctx: Context): MaybePromise<Opened>
  /** Entries behind cookie `offset` (0: from the start) into the sink until it is full or the end. */
  readdir(
    ino: Ino,
    fh: Fh,
    offset: number,
    plus: boolean,
    sink: DirectorySink,
    ctx: Context,
  ): MaybePromise<void>
  releasedir(ino: Ino, fh: Fh): MaybePromise<void>
  fsyncdir(ino: Ino, fh: Fh, dataOnly: boolean, ctx: Context): MaybePromise<void>

  statfs(ino: Ino, ctx: Context): MaybePromise<StatFs>
  getxattr(ino: Ino, name: string, ctx: Context): MaybePromise<Uint8Array>
  listxattr(ino: Ino, ctx: Context): MaybePromise<string[]>
  /** `flags`: XATTR_CREATE (1), XATTR_REPLACE (2). */
  setxattr(ino: Ino, name: string, value: Uint8Array, flags: number, ctx: Context): MaybePromise<void>
  removexattr(ino: Ino, name: string, ctx: Context): MaybePromise<void>
}
