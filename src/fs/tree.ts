/**
 * What the trees of the mount have in common: everything that would change something is refused.
 *
 * Invariant: a tree answers only for its own ids; `CidFileSystem` sends each request to the tree of its id.
 * Why EROFS and not EPERM: it is what programs know from read-only media, and what they report best.
 */
import { constants } from 'node:os'
import { CidfsError } from '../core/errors.js'
import type { MaybePromise } from '../core/maybe-promise.js'
import type {
  AttributeChanges,
  Attributes,
  Context,
  DirectorySink,
  Entry,
  Fh,
  FileSystem,
  Ino,
  NegativeEntry,
  Opened,
  ReadResult,
} from './file-system.js'

export type TreeOperations = Omit<FileSystem, 'start' | 'statfs' | 'reopen'> &
  Required<Pick<FileSystem, 'reopen'>>

/** Nothing in it ever changes. */
export const FOREVER_MS = 365 * 24 * 3600 * 1000

export const S_IFMT = 0o170000
export const S_IFDIR = 0o040000
export const S_IFREG = 0o100000
export const S_IFLNK = 0o120000

const OPEN_FOR_WRITING = 0o3

/** Whether open(2) flags ask for writing. */
export function wantsWriting(flags: number): boolean {
  return (flags & OPEN_FOR_WRITING) !== 0
}

/** DT_* of dirent.h. */
export function direntType(mode: number): number {
  return (mode & S_IFMT) >> 12
}

export const DT_UNKNOWN = 0
export const DT_DIR = direntType(S_IFDIR)
export const DT_REG = direntType(S_IFREG)
export const DT_LNK = direntType(S_IFLNK)

const EPOCH = { seconds: 0, nanoseconds: 0 }

/** Attributes of a node of the user who runs the daemon, with all times at the epoch. */
export function plainAttributes(ino: Ino, mode: number, sizeBytes: number): Attributes {
  return {
    ino,
    sizeBytes,
    blocks: Math.ceil(sizeBytes / 512),
    atime: EPOCH,
    mtime: EPOCH,
    ctime: EPOCH,
    mode,
    nlink: 1,
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
    rdev: 0,
    blksize: 1024 * 1024,
  }
}

export function foreverEntry(attributes: Attributes): Entry {
  return { attributes, entryTtlMs: FOREVER_MS, attributesTtlMs: FOREVER_MS }
}

export abstract class ReadOnlyTree implements TreeOperations {
  abstract lookup(parent: Ino, name: Uint8Array, ctx: Context): MaybePromise<Entry | NegativeEntry>
  abstract getattr(
    ino: Ino,
    fh: Fh | undefined,
    ctx: Context,
  ): MaybePromise<{ attributes: Attributes; ttlMs: number }>
  abstract readdir(
    ino: Ino,
    fh: Fh,
    offset: number,
    plus: boolean,
    sink: DirectorySink,
    ctx: Context,
  ): MaybePromise<void>

  forget(_ino: Ino, _count: number): void {}

  setattr(
    _ino: Ino,
    _changes: AttributeChanges,
    _ctx: Context,
  ): MaybePromise<{ attributes: Attributes; ttlMs: number }> {
    throw readOnly()
  }

  readlink(_ino: Ino, _ctx: Context): MaybePromise<Uint8Array> {
    throw new CidfsError('INVALID', 'not a symbolic link')
  }

  mknod(_parent: Ino, _name: Uint8Array, _mode: number, _rdev: number, _ctx: Context): MaybePromise<Entry> {
    throw readOnly()
  }

  mkdir(_parent: Ino, _name: Uint8Array, _mode: number, _ctx: Context): MaybePromise<Entry> {
    throw readOnly()
  }

  symlink(_parent: Ino, _name: Uint8Array, _target: Uint8Array, _ctx: Context): MaybePromise<Entry> {
    throw readOnly()
  }

  link(_ino: Ino, _parent: Ino, _name: Uint8Array, _ctx: Context): MaybePromise<Entry> {
    throw readOnly()
  }

  unlink(_parent: Ino, _name: Uint8Array, _ctx: Context): MaybePromise<void> {
    throw readOnly()
  }

  rmdir(_parent: Ino, _name: Uint8Array, _ctx: Context): MaybePromise<void> {
    throw readOnly()
  }

  rename(
    _parent: Ino,
    _name: Uint8Array,
    _newParent: Ino,
    _newName: Uint8Array,
    _flags: number,
    _ctx: Context,
  ): MaybePromise<void> {
    throw readOnly()
  }

  open(_ino: Ino, flags: number, _ctx: Context): MaybePromise<Opened> {
    if (wantsWriting(flags)) throw readOnly()
    throw new CidfsError('IS_DIRECTORY', 'is a directory')
  }

  create(
    _parent: Ino,
    _name: Uint8Array,
    _mode: number,
    _flags: number,
    _ctx: Context,
  ): MaybePromise<{ entry: Entry; opened: Opened }> {
    throw readOnly()
  }

  read(_ino: Ino, _fh: Fh, _offset: number, _sizeBytes: number, _ctx: Context): MaybePromise<ReadResult> {
    throw new CidfsError('IS_DIRECTORY', 'is a directory')
  }

  write(
    _ino: Ino,
    _fh: Fh,
    _offset: number,
    _data: Uint8Array,
    _flags: number,
    _ctx: Context,
  ): MaybePromise<number> {
    throw readOnly()
  }

  reopen(_ino: Ino, _flags: number, _passthrough: number | undefined): Fh {
    return 0
  }

  flush(_ino: Ino, _fh: Fh, _ctx: Context): MaybePromise<void> {}
  release(_ino: Ino, _fh: Fh, _flags: number): MaybePromise<void> {}
  fsync(_ino: Ino, _fh: Fh, _dataOnly: boolean, _ctx: Context): MaybePromise<void> {}

  fallocate(
    _ino: Ino,
    _fh: Fh,
    _offset: number,
    _length: number,
    _mode: number,
    _ctx: Context,
  ): MaybePromise<void> {
    throw readOnly()
  }

  /** One run of data: SEEK_DATA is where one is, SEEK_HOLE the end. */
  lseek(ino: Ino, fh: Fh, offset: number, whence: number, ctx: Context): MaybePromise<number> {
    const found = this.getattr(ino, fh, ctx)
    const seek = (answer: { attributes: Attributes }): number =>
      seekData(offset, whence, answer.attributes.sizeBytes)
    return found instanceof Promise ? found.then(seek) : seek(found)
  }

  copyFileRange(
    _inIno: Ino,
    _inFh: Fh,
    _inOffset: number,
    _outIno: Ino,
    _outFh: Fh,
    _outOffset: number,
    _length: number,
    _ctx: Context,
  ): MaybePromise<number> {
    throw new CidfsError('NOT_SUPPORTED', 'the kernel copies by reading and writing')
  }

  opendir(_ino: Ino, _flags: number, _ctx: Context): MaybePromise<Opened> {
    return { fh: 0 }
  }

  releasedir(_ino: Ino, _fh: Fh): MaybePromise<void> {}
  fsyncdir(_ino: Ino, _fh: Fh, _dataOnly: boolean, _ctx: Context): MaybePromise<void> {}

  getxattr(_ino: Ino, _name: string, _ctx: Context): MaybePromise<Uint8Array> {
    throw new CidfsError('NO_ATTRIBUTE', 'no such attribute')
  }

  listxattr(_ino: Ino, _ctx: Context): MaybePromise<string[]> {
    return []
  }

  setxattr(_ino: Ino, _name: string, _value: Uint8Array, _flags: number, _ctx: Context): MaybePromise<void> {
    throw readOnly()
  }

  removexattr(_ino: Ino, _name: string, _ctx: Context): MaybePromise<void> {
    throw readOnly()
  }
}

export function readOnly(): CidfsError {
  return new CidfsError('READ_ONLY', 'only staging/ and pins/ can be written')
}

const SEEK_DATA = 3

/** lseek(2) in a file without holes. */
export function seekData(offset: number, whence: number, sizeBytes: number): number {
  if (offset < 0 || offset >= sizeBytes) {
    throw Object.assign(new Error('no data behind the end'), { errno: -constants.errno.ENXIO })
  }
  return whence === SEEK_DATA ? offset : sizeBytes
}
