/** A file of `staging/` that somebody has open, or whose attributes have run ahead of its record. */
import * as fs from 'node:fs'
import type { StagingNode, Timestamp } from './node.js'
import type { SharedFd } from './shared-fd.js'

export interface OpenContent {
  readonly node: StagingNode
  readers: number
  writers: number
  /** Descriptor of the working object `container`. */
  file: SharedFd | undefined
  container: number
  /** A working copy being made; writes wait for it. */
  copying: Promise<void> | undefined
  /** How the working object was found last; undefined: every write comes through the daemon. */
  passthrough: Stamp | undefined
}

export function openContent(node: StagingNode): OpenContent {
  return {
    node,
    readers: 0,
    writers: 0,
    file: undefined,
    container: -1,
    copying: undefined,
    passthrough: undefined,
  }
}

/** What tells whether a working object was written to. */
export interface Stamp {
  sizeBytes: number
  mtime: Timestamp
}

export function stampOf(fd: number): Stamp {
  return stampFrom(fs.fstatSync(fd, { bigint: true }))
}

export function stampFrom({ size, mtimeNs }: fs.BigIntStats): Stamp {
  const mtime = { seconds: Number(mtimeNs / 1_000_000_000n), nanoseconds: Number(mtimeNs % 1_000_000_000n) }
  return { sizeBytes: Number(size), mtime }
}

export function sameStamp(a: Stamp, b: Stamp): boolean {
  const sameTime = a.mtime.seconds === b.mtime.seconds && a.mtime.nanoseconds === b.mtime.nanoseconds
  return sameTime && a.sizeBytes === b.sizeBytes
}
