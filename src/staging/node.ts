/**
 * What is known of one file, directory or symlink of `staging/`.
 *
 * Invariant: a node is found by its id alone, and everything about it is either in this record (in LMDB) or,
 * for content that is not published yet, in the working object that the record names. `dirty` is true exactly
 * when `cid` is not the CID of the present content.
 * Why: the kernel holds node ids across a restart of the daemon; a new daemon answers from the records.
 */
import { CID } from '../core/cid.js'

export type NodeType = 'file' | 'directory' | 'symlink'

/** Seconds and nanoseconds since the epoch. */
export interface Timestamp {
  seconds: number
  nanoseconds: number
}

export interface StagingNode {
  ino: number
  type: NodeType
  /** Directory that holds the node; 0 for the root of the tree and for what is unlinked but still open. */
  parent: number
  name: Uint8Array
  /** Permission bits, at most 07777. */
  mode: number
  uid: number
  gid: number
  atime: Timestamp
  mtime: Timestamp
  ctime: Timestamp
  /** Bytes of content (files) or of the target (symlinks). */
  sizeBytes: number
  target?: Uint8Array
  /** How many of a directory's entries are directories: its link count is two more. */
  subdirectories: number
  /** Container id of the working object: the content while it is not published. */
  object?: number
  /** Slot of the nursery, in place of an object. */
  slot?: number
  /** The last published CID, of an earlier content while `dirty`. */
  cid?: Uint8Array
  /** Bytes of the whole DAG under `cid`, as parents record it. */
  tsize?: number
  dirty: boolean
  /** CIDs of entries of the root that it has replaced: pinned for it until its present content is. */
  replaced?: Uint8Array[]
  /** Grows with each change of content: a publication that finds another number than it began with is void. */
  generation: number
}

/** First id of staged nodes; below it are the fixed nodes of the mount. */
export const STAGING_ROOT_INO = 16

/** The present time; milliseconds are as fine as the clock of JavaScript goes. */
export function now(): Timestamp {
  const ms = Date.now()
  const seconds = Math.floor(ms / 1000)
  return { seconds, nanoseconds: (ms - seconds * 1000) * 1_000_000 }
}

/** The CID of a node's present content; undefined while it has none. */
export function currentCid(node: StagingNode): CID | undefined {
  return node.dirty ? undefined : lastCid(node)
}

/** The CID that was published last, whatever happened since. */
export function lastCid(node: StagingNode): CID | undefined {
  return node.cid === undefined ? undefined : CID.decode(node.cid)
}

/** Whether a file has content that is not published, or a place for it. */
export function hasPlace({ object, slot }: StagingNode): boolean {
  return object !== undefined || slot !== undefined
}

const S_ISUID = 0o4000
const S_ISGID = 0o2000
const S_IXGRP = 0o010

/** Permission bits as the kernel leaves them after a write or a change of owner. */
export function withoutSuid(mode: number): number {
  const cleared = mode & ~S_ISUID
  return (cleared & S_IXGRP) !== 0 ? cleared & ~S_ISGID : cleared
}
