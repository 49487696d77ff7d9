/** What `stat` shows of an immutable node: what UnixFS records, and plain defaults where it records nothing. */
import { type CID, CODEC_DAG_PB } from '../core/cid.js'
import type { Inspected } from '../unixfs/inspect.js'
import type { Attributes, Ino } from './file-system.js'
import { DT_REG, DT_UNKNOWN, plainAttributes, S_IFDIR, S_IFLNK, S_IFREG } from './tree.js'

const FILE_MODE = 0o444
const DIRECTORY_MODE = 0o555
const SYMLINK_MODE = 0o777

export function isDirectory({ kind }: Inspected): boolean {
  return kind === 'directory' || kind === 'hamt'
}

export function immutableAttributes(ino: Ino, inspected: Inspected): Attributes {
  const attributes = plainAttributes(ino, modeOf(inspected), sizeOf(inspected))
  const mtime = 'mtime' in inspected ? inspected.mtime : undefined
  return mtime === undefined ? attributes : { ...attributes, mtime, ctime: mtime, atime: mtime }
}

function sizeOf(inspected: Inspected): number {
  if (inspected.kind === 'symlink') return inspected.target.length
  return 'sizeBytes' in inspected ? inspected.sizeBytes : 0
}

function modeOf(inspected: Inspected): number {
  const recorded = 'mode' in inspected ? inspected.mode : undefined
  if (inspected.kind === 'symlink') return S_IFLNK | SYMLINK_MODE
  if (isDirectory(inspected)) return S_IFDIR | (recorded ?? DIRECTORY_MODE)
  return S_IFREG | (recorded ?? FILE_MODE)
}

/** DT_* of a child whose root block is not held: only dag-pb can be anything else than a file. */
export function linkType(cid: CID): number {
  return cid.code === CODEC_DAG_PB ? DT_UNKNOWN : DT_REG
}
