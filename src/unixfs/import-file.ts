/**
 * Builds the tree of a file over leaves that were hashed elsewhere.
 *
 * Invariant: the same leaves give the CID that Kubo gives with the same profile: a balanced tree of dag-pb
 * nodes over raw leaves; a single leaf is the file itself, and an empty file is the empty raw block.
 */
import { CODEC_DAG_PB, CODEC_RAW, cidFromSha256, cidOf } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import type { MaybePromise } from '../core/maybe-promise.js'
import type { Built, PutBlock } from './built.js'
import { type EncodableLink, encodePbNode } from './pb-node.js'
import { CHUNK_BYTES, MAX_LINKS } from './profile.js'
import { runSliced, type Steps } from './steps.js'
import { encodeUnixfsData } from './unixfs-data.js'

export interface BuiltFile extends Built {
  sizeBytes: number
}

interface Child extends EncodableLink {
  sizeBytes: number
}

const NO_NAME = new Uint8Array(0)
const SHA256_BYTES = 32

/** Takes the leaves of a file in order, and puts each node once it is full. */
export class FileBuilder {
  readonly #put: PutBlock
  readonly #maxLinks: number
  /** Children without a parent yet, by height: leaves first. Never more than `maxLinks` each. */
  readonly #levels: Child[][] = [[]]
  #sizeBytes = 0

  constructor(put: PutBlock, maxLinks = MAX_LINKS) {
    this.#put = put
    this.#maxLinks = maxLinks
  }

  /** A raw leaf of `length` bytes (above 0) with this SHA-256 digest, which is copied. */
  add(digest: Uint8Array, length: number): void {
    this.#sizeBytes += length
    this.#append(0, {
      cid: cidFromSha256(CODEC_RAW, new Uint8Array(digest)),
      name: NO_NAME,
      tsize: length,
      sizeBytes: length,
    })
  }

  #append(height: number, child: Child): void {
    const level = (this.#levels[height] ??= [])
    if (level.length === this.#maxLinks) this.#close(height)
    this.#levels[height]!.push(child)
  }

  /** Makes the children at `height` those of one node, a level up. */
  #close(height: number): void {
    const children = this.#levels[height]!
    this.#levels[height] = []
    const blocksizes = children.map(child => child.sizeBytes)
    const sizeBytes = sum(blocksizes)
    const data = encodeUnixfsData({ type: 'file', filesize: sizeBytes, blocksizes })
    const bytes = encodePbNode(children, data)
    const cid = cidOf(CODEC_DAG_PB, bytes)
    this.#put(cid, bytes)
    const tsize = bytes.length + sum(children.map(child => child.tsize))
    this.#append(height + 1, { cid, name: NO_NAME, tsize, sizeBytes })
  }

  /** The file. Nothing may be added after it. */
  finish(): BuiltFile {
    if (this.#sizeBytes === 0) return this.#empty()
    for (let height = 0; ; height++) {
      const level = this.#levels[height]!
      const isTop = height === this.#levels.length - 1
      if (isTop && level.length === 1) return { ...rootOf(level[0]!), sizeBytes: this.#sizeBytes }
      this.#close(height)
    }
  }

  #empty(): BuiltFile {
    const cid = cidOf(CODEC_RAW, NO_NAME)
    this.#put(cid, NO_NAME)
    return { cid, tsize: 0, sizeBytes: 0 }
  }
}

function rootOf({ cid, tsize }: Child): Built {
  return { cid, tsize }
}

function sum(values: readonly number[]): number {
  let total = 0
  for (const value of values) total += value
  return total
}

export interface FileOptions {
  chunkBytes?: number
  maxLinks?: number
}

/**
 * The file of `sizeBytes` whose chunks have these SHA-256 digests, 32 bytes each, one behind the other. All
 * chunks have `chunkBytes` but the last. At once when it takes no longer than a few milliseconds.
 * @throws CidfsError `INVALID` when the number of digests is not that of the chunks.
 */
export function buildFile(
  digests: Uint8Array,
  sizeBytes: number,
  put: PutBlock,
  options: FileOptions = {},
): MaybePromise<BuiltFile> {
  return runSliced(fileSteps(digests, sizeBytes, put, options))
}

/** As `buildFile`, for `runNow` in a worker. */
export function* fileSteps(
  digests: Uint8Array,
  sizeBytes: number,
  put: PutBlock,
  { chunkBytes = CHUNK_BYTES, maxLinks = MAX_LINKS }: FileOptions = {},
): Steps<BuiltFile> {
  const count = Math.ceil(sizeBytes / chunkBytes)
  if (digests.length !== count * SHA256_BYTES) {
    throw new CidfsError('INVALID', `${digests.length / SHA256_BYTES} digests for ${count} chunks`)
  }
  const builder = new FileBuilder(put, maxLinks)
  for (let i = 0; i < count; i++) {
    const digest = digests.subarray(i * SHA256_BYTES, (i + 1) * SHA256_BYTES)
    builder.add(digest, Math.min(chunkBytes, sizeBytes - i * chunkBytes))
    if (i % 256 === 255) yield
  }
  return builder.finish()
}
