/**
 * The FUSE_INIT handshake: what we ask for, and what came of it.
 *
 * Invariant: only what the kernel offers is asked for, so one list of wishes serves every version.
 * Deliberately absent: WRITEBACK_CACHE (the kernel would own sizes and times, and `write` would report success for
 * what is not accepted yet), DONT_MASK (the kernel applies the umask itself), SPLICE_*, EXPORT_SUPPORT, and
 * POSIX_ACL: with it the kernel asks for the ACL at every permission check and takes the EOPNOTSUPP that `ls`
 * needs to hear (xattr-operations.ts) for the answer to that check, so nobody but the owner could open anything.
 *
 * ASYNC_READ is absent too: with it the kernel detaches reads from who waits for them, so a signal with a handler
 * (Ctrl-C in Python or dd) does nothing until the data has come, and no FUSE_INTERRUPT is ever sent. Without it a
 * read(2) ends with EINTR at once. Read-ahead then is part of the read that triggers it; throughput from local
 * files was measured to be the same, and what comes from the network is read ahead by the layers below.
 *
 * Reference: struct fuse_init_in, struct fuse_init_out
 */
import { CidfsError } from '../core/errors.js'
import {
  INIT,
  INIT2,
  MAX_IO_BYTES,
  MAX_PAGES,
  PROTOCOL_MAJOR,
  PROTOCOL_MINOR_MAX,
  PROTOCOL_MINOR_MIN,
} from './abi.js'
import type { Arguments } from './request.js'

/** What the kernel and we agreed upon. Plain data: a daemon that inherits the connection needs it. */
export interface Negotiated {
  minor: number
  /** INIT flags in force, bits 0 to 31. */
  flags: number
  /** Bits 32 to 63. */
  flags2: number
  maxReadaheadBytes: number
}

const WANTED = Object.values(INIT).reduce((all, flag) => all | flag, 0)
const WANTED2 = Object.values(INIT2).reduce((all, flag) => all | flag, 0)

/** Asynchronous requests (read-ahead, mostly) that the kernel keeps in flight. */
const MAX_BACKGROUND = 64
const CONGESTION_THRESHOLD = 48
const TIME_GRANULARITY_NS = 1
const MAX_READAHEAD_BYTES = 64 * 1024 * 1024
/** Files that are passed through must lie on a file system that lies on no other. */
const MAX_STACK_DEPTH = 1

/**
 * Reads FUSE_INIT; `passthrough` whether that is wanted.
 * @throws CidfsError `NOT_SUPPORTED` for a kernel before 5.4.
 */
export function negotiate(args: Arguments, passthrough = true): Negotiated {
  const [major, minor] = [args.u32(0), args.u32(4)]
  if (major !== PROTOCOL_MAJOR || minor < PROTOCOL_MINOR_MIN) {
    throw new CidfsError('NOT_SUPPORTED', `FUSE ${major}.${minor} is too old: Linux 5.4 or newer is needed`)
  }
  const offered = args.u32(12)
  const flags = offered & WANTED
  const extended = (flags & INIT.INIT_EXT) !== 0 && args.length >= 20
  return {
    minor: Math.min(minor, PROTOCOL_MINOR_MAX),
    flags,
    flags2: extended ? args.u32(16) & (passthrough ? WANTED2 : WANTED2 & ~INIT2.PASSTHROUGH) : 0,
    // Only a ceiling: the read-ahead in force is raised through sysfs, where that is permitted.
    maxReadaheadBytes: MAX_READAHEAD_BYTES,
  }
}

/** struct fuse_init_out (64) as words. */
export function initOut(n: Negotiated): Uint32Array {
  const out = new Uint32Array(16)
  out[0] = PROTOCOL_MAJOR
  out[1] = n.minor
  out[2] = n.maxReadaheadBytes
  out[3] = n.flags
  out[4] = MAX_BACKGROUND | (CONGESTION_THRESHOLD << 16)
  out[5] = MAX_IO_BYTES
  out[6] = TIME_GRANULARITY_NS
  out[7] = MAX_PAGES
  out[8] = n.flags2
  out[9] = (n.flags2 & INIT2.PASSTHROUGH) === 0 ? 0 : MAX_STACK_DEPTH
  return out
}
