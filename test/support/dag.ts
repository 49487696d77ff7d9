/**
 * DAGs for tests, put where a test wants them: by the stock importer, or node by node to have what no importer
 * makes.
 */
import { createHash } from 'node:crypto'
import { blake2b } from '@noble/hashes/blake2.js'
import { type ImportCandidate, type ImporterOptions, importer } from 'ipfs-unixfs-importer'
import { CID, CODEC_DAG_PB, CODEC_RAW, Digest } from '../../src/core/cid.js'
import { type EncodableLink, encodePbNode } from '../../src/unixfs/pb-node.js'
import { encodeUnixfsData, type UnixfsData } from '../../src/unixfs/unixfs-data.js'

/** Multicodec number and function of the hashes that are supported. */
const HASHES = {
  identity: [0x00, (bytes: Uint8Array) => bytes],
  'sha2-256': [0x12, (bytes: Uint8Array) => createHash('sha256').update(bytes).digest()],
  'sha2-512': [0x13, (bytes: Uint8Array) => createHash('sha512').update(bytes).digest()],
  'blake2b-256': [0xb220, (bytes: Uint8Array) => blake2b(bytes, { dkLen: 32 })],
} as const

export type HashName = keyof typeof HASHES

export class Dag {
  /** In the order in which they were put. */
  readonly cids: CID[] = []

  /** `sink` is given every block, identity CIDs excepted. */
  constructor(private readonly sink: { add(cid: CID, bytes: Uint8Array): unknown }) {}

  put(codec: number, bytes: Uint8Array, hash: HashName = 'sha2-256'): CID {
    const [code, digest] = HASHES[hash]
    return this.keep(CID.createV1(codec, Digest.create(code, digest(bytes))), bytes)
  }

  raw(bytes: Uint8Array, hash?: HashName): CID {
    return this.put(CODEC_RAW, bytes, hash)
  }

  /** A dag-pb node. */
  node(data: Partial<UnixfsData> & Pick<UnixfsData, 'type'>, links: EncodableLink[] = [], hash?: HashName) {
    return this.put(CODEC_DAG_PB, encodePbNode(links, encodeUnixfsData({ blocksizes: [], ...data })), hash)
  }

  /** A file node whose block sizes and size are true. */
  file(parts: { cid: CID; sizeBytes: number }[], data?: Uint8Array): { cid: CID; sizeBytes: number } {
    const blocksizes = parts.map(part => part.sizeBytes)
    const sizeBytes = blocksizes.reduce((sum, size) => sum + size, data?.length ?? 0)
    const links = parts.map(part => link(part.cid, '', part.sizeBytes))
    const content = data === undefined ? {} : { data }
    return { cid: this.node({ type: 'file', blocksizes, filesize: sizeBytes, ...content }, links), sizeBytes }
  }

  /** A plain directory. */
  directory(entries: EncodableLink[]): CID {
    return this.node({ type: 'directory' }, entries)
  }

  /** The last thing the stock importer makes: the file, or the root of the tree. */
  async import(source: ImportCandidate[], options: ImporterOptions = {}): Promise<CID> {
    const put = (cid: CID, bytes: Uint8Array) => this.keep(CID.decode(cid.bytes), new Uint8Array(bytes))
    let last: CID | undefined
    const blocks = { put } as unknown as Parameters<typeof importer>[1]
    for await (const { cid } of importer(source, blocks, { profile: 'unixfs-v1-2025', ...options })) {
      last = CID.decode(cid.bytes)
    }
    if (last === undefined) throw new Error('nothing imported')
    return last
  }

  private keep(cid: CID, bytes: Uint8Array): CID {
    if (cid.multihash.code !== 0) {
      this.cids.push(cid)
      this.sink.add(cid, bytes)
    }
    return cid
  }
}

export function link(cid: CID, name: string | Uint8Array = '', tsize = 0): EncodableLink {
  return { cid, name: typeof name === 'string' ? Buffer.from(name) : name, tsize }
}

/** Bytes that do not repeat, the same each time. */
export function pattern(length: number, seed = 1): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4))
  let state = seed
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    words[i] = state ^ (state >>> 15)
  }
  return new Uint8Array(words.buffer, 0, length)
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
