/**
 * Reads a CAR (version 1 or 2) into the store.
 *
 * Invariant: no block is stored that does not match its hash, and an error loses nothing that came before it.
 * The main thread is held up for one block or one small batch at a time.
 *
 * Specification: https://ipld.io/specs/transport/car/
 */
import { type CID, canVerify, isIdentity, verify } from '../core/cid.js'
import { CidfsError, codeOf } from '../core/errors.js'
import { ByteReader } from './byte-reader.js'
import {
  CARV2_HEADER_BYTES,
  CARV2_PRAGMA,
  decodeCarV2Header,
  decodeHeader,
  decodeSectionHead,
  decodeVarint,
  MAX_SECTION_HEAD_BYTES,
  type SectionHead,
} from './car-format.js'
import { Pacer } from './pacer.js'
import type { Block } from './packs.js'
import type { Store } from './store.js'

/** Room for tens of thousands of roots. */
const MAX_HEADER_BYTES = 2 * 1024 * 1024
const BATCH_BYTES = 1024 * 1024
const BATCH_BLOCKS = 256

export interface ImportProgress {
  /** Blocks and their bytes so far. */
  blocks: number
  bytes: number
  /** Bytes of the CAR read so far. */
  position: number
}

export interface ImportOptions {
  /** Called after each batch. */
  onProgress?: ((progress: ImportProgress) => void) | undefined
  signal?: AbortSignal | undefined
  /** Gets the containers in which the blocks are. */
  used?: Set<number> | undefined
}

export interface ImportResult {
  /** Of the header, in its order. */
  roots: CID[]
  /** Blocks in the CAR, held before or not, and their bytes. Identity CIDs do not count. */
  blocks: number
  bytes: number
}

/**
 * Imports a CAR. The roots are not pinned and nothing is flushed: both are the caller's.
 * @throws CidfsError `BAD_CAR` (malformed, truncated, or a block that does not match its hash),
 *   `UNSUPPORTED_HASH`, `INTERRUPTED`, `NO_SPACE`, `IO`; and what `source` throws. Blocks before stay.
 */
export async function importCar(
  store: Store,
  source: AsyncIterable<Uint8Array>,
  options: ImportOptions = {},
): Promise<ImportResult> {
  const reader = new ByteReader(source)
  try {
    const { roots, end } = await readHeaders(reader)
    const sections = new SectionImport(store, reader, end, options)
    await sections.run()
    return { roots, blocks: sections.blocks, bytes: sections.bytes }
  } finally {
    await reader.close()
  }
}

/** Roots, and the position behind the last section; undefined: the end of the file. */
async function readHeaders(reader: ByteReader): Promise<{ roots: CID[]; end: number | undefined }> {
  if (await isVersion2(reader)) {
    reader.skip(CARV2_PRAGMA.length)
    if (!(await reader.fill(CARV2_HEADER_BYTES))) throw truncated(reader)
    const { dataOffset, dataSize } = decodeCarV2Header(reader.take(CARV2_HEADER_BYTES))
    await skipTo(reader, dataOffset)
    return { roots: await readRoots(reader), end: dataOffset + dataSize }
  }
  return { roots: await readRoots(reader), end: undefined }
}

async function isVersion2(reader: ByteReader): Promise<boolean> {
  const enough = await reader.fill(CARV2_PRAGMA.length)
  return enough && CARV2_PRAGMA.every((byte, i) => reader.window[reader.at + i] === byte)
}

async function skipTo(reader: ByteReader, position: number): Promise<void> {
  while (reader.position < position) {
    if (!(await reader.fill(1))) throw truncated(reader)
    reader.skip(Math.min(reader.available, position - reader.position))
  }
}

async function readRoots(reader: ByteReader): Promise<CID[]> {
  await reader.fill(9)
  if (reader.available === 0) throw new CidfsError('BAD_CAR', 'not a CAR file: it has no header')
  const length = headerLength(reader)
  if (length === undefined) throw truncated(reader)
  if (!(await reader.fill(length))) throw truncated(reader)
  return decodeHeader(reader.take(length).slice())
}

/** With the varint in front; undefined when the bytes end in it. */
function headerLength(reader: ByteReader): number | undefined {
  try {
    const length = decodeVarint(reader.window, reader.at)
    if (length === undefined) return undefined
    if (length.value > 0 && length.value <= MAX_HEADER_BYTES) return length.length + length.value
  } catch (err) {
    if (codeOf(err) !== 'BAD_CAR') throw err
  }
  throw new CidfsError('BAD_CAR', 'not a CAR file: its header has an impossible length')
}

function truncated(reader: ByteReader): CidfsError {
  return new CidfsError(
    'BAD_CAR',
    `the CAR is truncated: it ends at byte ${reader.position + reader.available}`,
  )
}

class SectionImport {
  blocks = 0
  bytes = 0
  readonly #store: Store
  readonly #reader: ByteReader
  readonly #end: number | undefined
  readonly #options: ImportOptions
  readonly #pacer: Pacer
  #batch: Block[] = []
  #batchBytes = 0

  constructor(store: Store, reader: ByteReader, end: number | undefined, options: ImportOptions) {
    this.#store = store
    this.#reader = reader
    this.#end = end
    this.#options = options
    this.#pacer = new Pacer(options.signal)
    this.#pacer.check()
  }

  async run(): Promise<void> {
    try {
      while (await this.#more()) {
        await this.#section()
        if (this.#batchBytes >= BATCH_BYTES || this.#batch.length >= BATCH_BLOCKS) await this.#commit()
        if (this.#pacer.due) await this.#pacer.pause()
      }
    } finally {
      await this.#commit()
    }
  }

  async #more(): Promise<boolean> {
    const { position } = this.#reader
    if (this.#end !== undefined && position >= this.#end) {
      if (position > this.#end) throw this.#bad('a section reaches beyond the data of the CARv2')
      return false
    }
    if (await this.#reader.fill(1)) return true
    if (this.#end !== undefined) throw truncated(this.#reader)
    return false
  }

  async #section(): Promise<void> {
    const { cid, headLength, blockLength } = await this.#head()
    if (!isIdentity(cid) && !canVerify(cid)) {
      const hash = `0x${cid.multihash.code.toString(16)}`
      const what = `block ${cid} at byte ${this.#reader.position} has the unsupported hash function ${hash}`
      throw new CidfsError('UNSUPPORTED_HASH', what, { cid: cid.toString() })
    }
    if (!(await this.#reader.fill(headLength + blockLength))) throw truncated(this.#reader)
    const { window, at } = this.#reader
    const bytes = window.subarray(at + headLength, at + headLength + blockLength)
    if (!verify(cid, bytes)) throw this.#bad(`block ${cid} does not match its hash`, cid)
    this.#reader.skip(headLength + blockLength)
    if (isIdentity(cid)) return
    this.#batch.push({ cid, bytes })
    this.#batchBytes += blockLength
    this.blocks++
    this.bytes += blockLength
  }

  async #head(): Promise<SectionHead> {
    let head = this.#headAtHand()
    if (head !== undefined) return head
    // near the end of the CAR there is less than that, and it is enough
    await this.#reader.fill(MAX_SECTION_HEAD_BYTES)
    head = this.#headAtHand()
    if (head === undefined) throw truncated(this.#reader)
    return head
  }

  #headAtHand(): SectionHead | undefined {
    try {
      return decodeSectionHead(this.#reader.window, this.#reader.at)
    } catch (err) {
      if (codeOf(err) !== 'BAD_CAR') throw err
      throw this.#bad((err as CidfsError).message)
    }
  }

  #bad(what: string, cid?: CID): CidfsError {
    const message = `bad CAR at byte ${this.#reader.position}: ${what}`
    return new CidfsError('BAD_CAR', message, cid === undefined ? {} : { cid: cid.toString() })
  }

  async #commit(): Promise<void> {
    if (this.#batch.length === 0) return
    await this.#store.space.take(this.#batchBytes)
    const batch = this.#batch
    this.#batch = []
    this.#batchBytes = 0
    this.#store.putMany(batch, this.#options.used)
    this.#options.onProgress?.({ blocks: this.blocks, bytes: this.bytes, position: this.#reader.position })
  }
}
