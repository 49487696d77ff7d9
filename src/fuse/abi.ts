/**
 * Numbers of the FUSE kernel protocol, versions 7.31 to 7.45.
 *
 * Invariant: only what this program sends, understands or refuses by name is listed.
 * Reference: include/uapi/linux/fuse.h
 */

export const PROTOCOL_MAJOR = 7
/** Linux 5.4: the first with FUSE_EXPLICIT_INVAL_DATA and FUSE_MAX_PAGES in every kernel we care for. */
export const PROTOCOL_MINOR_MIN = 31
export const PROTOCOL_MINOR_MAX = 45

/** struct fuse_in_header and struct fuse_out_header. */
export const IN_HEADER_BYTES = 40
export const OUT_HEADER_BYTES = 16

/** Largest READ and WRITE: 256 pages of 4 KiB, the kernel's default limit. */
export const MAX_IO_BYTES = 1024 * 1024
export const MAX_PAGES = 256
/** The kernel refuses to read into less than a header, struct fuse_write_in and a full write. */
export const REQUEST_BUFFER_BYTES = MAX_IO_BYTES + 4096

export const OP = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52,
  COPY_FILE_RANGE_64: 53,
} as const

/** INIT flags, bits 0 to 31. */
export const INIT = {
  ATOMIC_O_TRUNC: 1 << 3,
  BIG_WRITES: 1 << 5,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  ASYNC_DIO: 1 << 15,
  PARALLEL_DIROPS: 1 << 18,
  MAX_PAGES: 1 << 22,
  CACHE_SYMLINKS: 1 << 23,
  EXPLICIT_INVAL_DATA: 1 << 25,
  HANDLE_KILLPRIV_V2: 1 << 28,
  INIT_EXT: 1 << 30,
} as const

/** INIT flags, bits 32 to 63, shifted down. */
export const INIT2 = {
  /** Bit 36: files that bypass the page cache can be mapped all the same. */
  DIRECT_IO_ALLOW_MMAP: 1 << 4,
  /** Bit 37: the kernel reads and writes a file of ours by itself (6.9). */
  PASSTHROUGH: 1 << 5,
  /** Bit 39: requests in flight can be sent again to a new daemon on the same connection. */
  HAS_RESEND: 1 << 7,
} as const

export const FOPEN = {
  DIRECT_IO: 1,
  KEEP_CACHE: 2,
  NONSEEKABLE: 4,
  CACHE_DIR: 8,
  NOFLUSH: 32,
  PASSTHROUGH: 128,
} as const

export const FATTR = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  FH: 1 << 6,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
  CTIME: 1 << 10,
  KILL_SUIDGID: 1 << 11,
} as const

export const GETATTR_FH = 1
export const FSYNC_FDATASYNC = 1
export const WRITE_KILL_SUIDGID = 1 << 2
export const OPEN_KILL_SUIDGID = 1 << 0

export const NOTIFY = { INVAL_INODE: 2, INVAL_ENTRY: 3, RESEND: 7 } as const
