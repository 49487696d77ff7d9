/**
 * Builds directories.
 *
 * Invariant: the same entries, in whatever order, give the CID that Kubo gives with the same profile: links
 * sorted by the bytes of their names; sharded when the block of the plain directory would exceed the
 * threshold, by its exact encoded size.
 */
import { binaryString, CODEC_DAG_PB, cidOf } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import type { MaybePromise } from '../core/maybe-promise.js'
import type { Built, PutBlock } from './built.js'
import { isVisibleName } from './dir-link.js'
import { shardSteps } from './import-hamt.js'
import { type EncodableLink, encodePbNode, linkLength } from './pb-node.js'
import { HAMT_FANOUT, HAMT_THRESHOLD_BYTES } from './profile.js'
import { fieldLength } from './protobuf.js'
import { runSliced, type Steps } from './steps.js'
import { encodeUnixfsData } from './unixfs-data.js'

/** An entry to be: `tsize` as the builder of its content returned it. */
export type DirectoryEntry = EncodableLink

export interface DirectoryOptions {
  thresholdBytes?: number
  /** A power of two from 8 to 1024. */
  fanout?: number
}

const PLAIN_DATA = encodeUnixfsData({ type: 'directory', blocksizes: [] })

/**
 * The directory with these entries. At once when it takes no longer than a few milliseconds.
 * @throws CidfsError `INVALID` for names that are repeated or that no directory can show.
 */
export function buildDirectory(
  entries: readonly DirectoryEntry[],
  put: PutBlock,
  options: DirectoryOptions = {},
): MaybePromise<Built> {
  return runSliced(directorySteps(entries, put, options))
}

/** As `buildDirectory`, for `runNow` in a worker. */
export function* directorySteps(
  entries: readonly DirectoryEntry[],
  put: PutBlock,
  { thresholdBytes = HAMT_THRESHOLD_BYTES, fanout = HAMT_FANOUT }: DirectoryOptions = {},
): Steps<Built> {
  let sizeBytes = fieldLength(PLAIN_DATA.length)
  for (let i = 0; i < entries.length; i++) {
    const { cid, name, tsize } = entries[i]!
    if (!isVisibleName(name)) throw invalidName(name)
    sizeBytes += linkLength(cid.bytes.length, name.length, tsize)
    if (i % 1024 === 1023) yield
  }
  if (sizeBytes > thresholdBytes) return yield* shardSteps(entries, fanout, put)
  return plainDirectory(entries, put)
}

function plainDirectory(entries: readonly DirectoryEntry[], put: PutBlock): Built {
  const links = [...entries].sort((a, b) => Buffer.compare(a.name, b.name))
  for (let i = 1; i < links.length; i++) {
    if (Buffer.compare(links[i - 1]!.name, links[i]!.name) === 0) throw invalidName(links[i]!.name)
  }
  const bytes = encodePbNode(links, PLAIN_DATA)
  const cid = cidOf(CODEC_DAG_PB, bytes)
  put(cid, bytes)
  let tsize = bytes.length
  for (const link of links) tsize += link.tsize
  return { cid, tsize }
}

function invalidName(name: Uint8Array): CidfsError {
  return new CidfsError('INVALID', `name repeated or not allowed: ${JSON.stringify(binaryString(name))}`)
}
