/**
 * Attributes in the form that the package passes on.
 *
 * Invariant: every number fits. Inode numbers have 32 bits there and ours 53, so they are folded: the same file has
 * the same one always, and two files of a mount hardly ever share one. Times are milliseconds since 1970.
 */
import type { Attributes, Ino, StatFs, Time } from '../fs/file-system.js'
import type { StatWords } from './package.js'

const TWO_32 = 2 ** 32
const WORDS = 18

/** Never 0, which readdir(3) takes for an empty slot. */
export function foldIno(ino: Ino): number {
  return ((ino % TWO_32) ^ Math.floor(ino / TWO_32)) >>> 0 || TWO_32 - 1
}

export function statWords(a: Attributes): StatWords {
  const words = new Uint32Array(WORDS)
  words[0] = a.mode
  words[1] = a.uid
  words[2] = a.gid
  put(words, 3, a.sizeBytes)
  words[6] = a.nlink
  words[7] = foldIno(a.ino)
  words[8] = a.rdev
  words[9] = a.blksize
  put(words, 10, a.blocks)
  put(words, 12, milliseconds(a.atime))
  put(words, 14, milliseconds(a.mtime))
  put(words, 16, milliseconds(a.ctime))
  return words
}

/** What a listing tells of an entry: `d_ino` and `d_type`. */
export function entryWords(ino: Ino, type: number): StatWords {
  const words = new Uint32Array(WORDS)
  words[0] = type << 12
  words[7] = foldIno(ino)
  return words
}

function put(words: Uint32Array, at: number, value: number): void {
  words[at] = value % TWO_32
  words[at + 1] = Math.floor(value / TWO_32)
}

/** The addon divides them as unsigned numbers: what lies before 1970 would be in the far future. */
function milliseconds({ seconds, nanoseconds }: Time): number {
  return Math.max(0, seconds * 1000 + Math.floor(nanoseconds / 1e6))
}

/** Counts have 32 bits too: of a larger disk, blocks are told in larger units. */
export function statfsWords(s: StatFs): Record<string, number> {
  let unit = 1
  while (s.blocks / unit >= TWO_32) unit *= 2
  const scaled = (blocks: number) => Math.floor(blocks / unit)
  return {
    bsize: s.blockSizeBytes * unit,
    frsize: s.blockSizeBytes * unit,
    blocks: scaled(s.blocks),
    bfree: scaled(s.blocksFree),
    bavail: scaled(s.blocksAvailable),
    files: Math.min(s.files, TWO_32 - 1),
    ffree: Math.min(s.filesFree, TWO_32 - 1),
    favail: Math.min(s.filesFree, TWO_32 - 1),
    namemax: s.nameMaxBytes,
  }
}
