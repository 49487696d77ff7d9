/**
 * From a root and the segments of a path to what lies there.
 *
 * Invariant: symbolic links are not followed (that is the kernel's part), and only the blocks on the way are
 * got.
 */
import type { BlockReader, GetOptions } from '../core/blocks.js'
import { type CID, CODEC_DAG_PB } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { type MaybePromise, then } from '../core/maybe-promise.js'
import { Directory, type DirLink } from './directory.js'
import { type Inspected, inspect } from './inspect.js'
import { getBlock } from './node.js'

export interface ResolveOptions extends GetOptions {
  /** Where directories come from; the place to keep them. They are opened anew when absent. */
  openDirectory?: (cid: CID, options?: GetOptions) => MaybePromise<Directory>
}

export interface Resolved {
  cid: CID
  /** undefined for the root itself. */
  tsize: number | undefined
  bytes: Uint8Array
  inspected: Inspected
}

/** A link, without its block. */
export interface Located {
  cid: CID
  tsize: number | undefined
}

/**
 * The link at `segments` below `root`; the block it names is not got.
 * @throws CidfsError `NOT_FOUND`, `NOT_DIRECTORY`, `MALFORMED_DAG`, and what `BlockReader.get` throws.
 */
export function locate(
  root: CID,
  segments: readonly Uint8Array[],
  blocks: BlockReader,
  options: ResolveOptions = {},
): MaybePromise<Located> {
  return walk({ cid: root, tsize: undefined }, segments, 0, blocks, options)
}

/**
 * What lies at `segments` below `root`.
 * @throws CidfsError as `locate`.
 */
export function resolve(
  root: CID,
  segments: readonly Uint8Array[],
  blocks: BlockReader,
  options: ResolveOptions = {},
): MaybePromise<Resolved> {
  return then(locate(root, segments, blocks, options), ({ cid, tsize }) =>
    then(getBlock(blocks, cid, options), bytes => ({ cid, tsize, bytes, inspected: inspect(cid, bytes) })),
  )
}

function walk(
  at: Located,
  segments: readonly Uint8Array[],
  depth: number,
  blocks: BlockReader,
  options: ResolveOptions,
): MaybePromise<Located> {
  const name = segments[depth]
  if (name === undefined) return at
  return then(directoryAt(at.cid, segments, depth, blocks, options), directory =>
    then(directory.find(name, options), (link: DirLink | undefined) => {
      if (link === undefined) throw pathError('NOT_FOUND', segments, depth + 1, at.cid)
      return walk({ cid: link.cid, tsize: link.tsize }, segments, depth + 1, blocks, options)
    }),
  )
}

function directoryAt(
  cid: CID,
  segments: readonly Uint8Array[],
  depth: number,
  blocks: BlockReader,
  options: ResolveOptions,
): MaybePromise<Directory> {
  if (cid.code !== CODEC_DAG_PB) throw pathError('NOT_DIRECTORY', segments, depth, cid)
  if (options.openDirectory !== undefined) return options.openDirectory(cid, options)
  return then(getBlock(blocks, cid, options), bytes => Directory.open(cid, bytes, blocks))
}

function pathError(
  code: 'NOT_FOUND' | 'NOT_DIRECTORY',
  segments: readonly Uint8Array[],
  depth: number,
  cid: CID,
): CidfsError {
  const path = segments.slice(0, depth).map(text).join('/')
  const reason = code === 'NOT_FOUND' ? 'no such entry' : 'not a directory'
  return new CidfsError(code, `${reason}: ${path === '' ? cid : path}`, { cid: cid.toString(), path })
}

function text(segment: Uint8Array): string {
  return Buffer.from(segment).toString()
}
