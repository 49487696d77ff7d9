/** Blocks in memory, for tests of the layer that is given blocks. */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ReadableStorage } from 'ipfs-unixfs-exporter'
import type { WritableStorage } from 'ipfs-unixfs-importer'
import type { BlockReader, GetOptions } from '../../src/core/blocks.js'
import { type CID, CODEC_DAG_PB, cidOf, isIdentity, keyOf } from '../../src/core/cid.js'
import { CidfsError } from '../../src/core/errors.js'
import { isPromise, type MaybePromise } from '../../src/core/maybe-promise.js'
import { type EncodableLink, encodePbNode } from '../../src/unixfs/pb-node.js'
import { encodeUnixfsData, type UnixfsData } from '../../src/unixfs/unixfs-data.js'

/** A reader over a Map, found by multihash. `later` makes every answer a promise. */
export class MemoryBlocks implements BlockReader {
  readonly map = new Map<string, Uint8Array>()
  /** CIDs asked for, in order. */
  readonly asked: CID[] = []
  later = false
  underWay = 0
  mostUnderWay = 0

  put = (cid: CID, bytes: Uint8Array): CID => {
    this.map.set(keyOf(cid), bytes)
    return cid
  }

  delete(cid: CID): void {
    this.map.delete(keyOf(cid))
  }

  has(cid: CID): boolean {
    return this.map.has(keyOf(cid))
  }

  bytesOf(cid: CID): Uint8Array {
    const bytes = this.map.get(keyOf(cid))
    if (bytes === undefined) throw new CidfsError('UNREACHABLE', `${cid} is not here`, { cid: `${cid}` })
    return bytes
  }

  get(cid: CID, _options?: GetOptions): MaybePromise<Uint8Array> {
    this.asked.push(cid)
    return this.later ? this.#getLater(cid) : this.bytesOf(cid)
  }

  async #getLater(cid: CID): Promise<Uint8Array> {
    this.mostUnderWay = Math.max(this.mostUnderWay, ++this.underWay)
    await new Promise(resolve => setImmediate(resolve))
    this.underWay--
    return this.bytesOf(cid)
  }

  /** Puts a dag-pb node. */
  node(data: Partial<UnixfsData> & Pick<UnixfsData, 'type'>, links: EncodableLink[] = []): CID {
    const bytes = encodePbNode(links, encodeUnixfsData({ blocksizes: [], ...data }))
    return this.put(cidOf(CODEC_DAG_PB, bytes), bytes)
  }

  /** The same blocks as the stock importer and exporter see them. */
  get store(): WritableStorage & ReadableStorage {
    return {
      put: (cid: CID, bytes: Uint8Array) => this.put(cid, new Uint8Array(bytes)),
      get: (cid: CID) => [isIdentity(cid) ? cid.multihash.digest : this.bytesOf(cid)],
    } as unknown as WritableStorage & ReadableStorage
  }
}

export function utf8(text: string): Uint8Array {
  return Buffer.from(text)
}

export function link(cid: CID, name = '', tsize = 0): EncodableLink {
  return { cid, name: utf8(name), tsize }
}

/** The value, which must be there without waiting. */
export function atOnce<T>(value: MaybePromise<T>): T {
  if (isPromise(value)) throw new Error('a promise where everything is local')
  return value
}

/** The code of the error `fn` throws; undefined when it throws none. Any other error is thrown on. */
export function codeThrown(fn: () => unknown): string | undefined {
  try {
    fn()
    return undefined
  } catch (err) {
    if (err instanceof CidfsError) return err.code
    throw err
  }
}

/** As `codeThrown`, of a promise or a value. */
export async function codeRejected(fn: () => unknown): Promise<string | undefined> {
  try {
    await fn()
    return undefined
  } catch (err) {
    if (err instanceof CidfsError) return err.code
    throw err
  }
}

/** Bytes that do not repeat, the same each time. */
export function pattern(length: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4))
  let state = 1
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    words[i] = state
  }
  return new Uint8Array(words.buffer, 0, length)
}

/** The directory with package.json above this file. */
export function repositoryRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(directory, 'package.json'))) {
    const parent = dirname(directory)
    if (parent === directory) throw new Error('no package.json above the tests')
    directory = parent
  }
  return directory
}
