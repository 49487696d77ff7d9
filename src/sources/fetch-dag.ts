/**
 * A whole DAG, made local: for pins and for `prefetch`.
 *
 * Invariant: each block is looked at once however often it is linked, at most `concurrency` are asked for at a
 * time, and the event loop runs every few milliseconds. A block that cannot be had stops none of the others, but
 * many in a row end the attempt: nobody has this DAG now. Doing it again costs only what is still missing.
 * Why nodes before leaves: then it is known early how many blocks there are, and progress means something.
 */
import { binaryString, type CID, CODEC_RAW } from '../core/cid.js'
import { codeOf, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { isPromise, type MaybePromise } from '../core/maybe-promise.js'
import { Pacer } from '../store/pacer.js'
import type { Links } from '../store/walk.js'
import type { Missed } from './batch.js'
import type { BlockService, ReadOptions } from './block-service.js'

const log = logger('sources:fetch-dag')

const CONCURRENCY = 64
/** So many misses without an arrival in between, and the attempt is over. */
const GIVE_UP_AFTER = 64
/** Leaves that may wait while nodes are read; with more of them, they go first. Bounds the memory. */
const MAX_WAITING_LEAVES = 100_000

export interface DagProgress {
  /** Blocks that are held here. */
  done: number
  /** Blocks known of; grows while nodes arrive. */
  known: number
}

export interface DagResult extends DagProgress {
  /** Blocks that could not be had; what lies below them is not known. */
  missed: number
  firstMissed: Missed | undefined
}

export interface FetchDagOptions {
  signal?: AbortSignal | undefined
  /** Blocks on their way at the same time. */
  concurrency?: number
  /** After each block that is held. */
  onProgress?: (progress: DagProgress) => void
}

/** What is needed of the block service. */
export type DagBlocks = Pick<BlockService, 'get' | 'ensure'>

/**
 * Sees to it that every block under `root` is held here, those already held included in the counts. A node that
 * cannot be decoded is a block without links.
 * @throws CidfsError `INTERRUPTED` when the signal aborts; what was on its way is cancelled.
 */
export function fetchDag(
  blocks: DagBlocks,
  root: CID,
  links: Links,
  options: FetchDagOptions = {},
): Promise<DagResult> {
  return new Fetch(blocks, links, options).run(root)
}

class Fetch {
  readonly #blocks: DagBlocks
  readonly #links: Links
  readonly #options: FetchDagOptions
  readonly #read: ReadOptions
  readonly #pacer: Pacer
  readonly #seen = new Set<string>()
  readonly #nodes: CID[] = []
  readonly #leaves: CID[] = []
  readonly #result: DagResult = { done: 0, known: 0, missed: 0, firstMissed: undefined }
  #running = 0
  #missesInARow = 0
  #wake: () => void = () => {}

  constructor(blocks: DagBlocks, links: Links, options: FetchDagOptions) {
    this.#blocks = blocks
    this.#links = links
    this.#options = options
    this.#read = { priority: 'read-ahead', signal: options.signal, mustKeep: true }
    this.#pacer = new Pacer(options.signal)
  }

  async run(root: CID): Promise<DagResult> {
    const { concurrency = CONCURRENCY } = this.#options
    this.#add([root])
    for (;;) {
      this.#pacer.check()
      while (this.#running < concurrency) {
        const cid = this.#take()
        if (cid === undefined) break
        this.#start(cid)
        if (this.#pacer.due) await this.#pacer.pause()
      }
      if (this.#running === 0) break
      await new Promise<void>(resolve => (this.#wake = resolve))
    }
    this.#pacer.check()
    return this.#result
  }

  /** Codec and all: a block may be linked both as raw and as a node, and then has links to follow. */
  #add(cids: readonly CID[]): void {
    for (let i = cids.length - 1; i >= 0; i--) {
      const cid = cids[i] as CID
      const key = `${cid.code}:${binaryString(cid.multihash.bytes)}`
      if (this.#seen.has(key)) continue
      this.#seen.add(key)
      this.#result.known++
      if (cid.code === CODEC_RAW) this.#leaves.push(cid)
      else this.#nodes.push(cid)
    }
  }

  #take(): CID | undefined {
    if (this.#missesInARow >= GIVE_UP_AFTER) return undefined
    const leafFirst = this.#nodes.length === 0 || this.#leaves.length > MAX_WAITING_LEAVES
    return leafFirst ? this.#leaves.pop() : this.#nodes.pop()
  }

  #start(cid: CID): void {
    try {
      const arrival = this.#get(cid)
      if (isPromise(arrival)) this.#await(cid, arrival)
      else this.#arrived(cid, arrival)
    } catch (err) {
      this.#missed(cid, err)
    }
  }

  #await(cid: CID, arrival: Promise<Uint8Array | undefined>): void {
    this.#running++
    void arrival
      .then(bytes => this.#fetched(cid, bytes))
      .catch((err: unknown) => this.#missed(cid, err))
      .finally(() => {
        this.#running--
        this.#wake()
      })
  }

  /** Leaves are not read: that they are there is enough. */
  #get(cid: CID): MaybePromise<Uint8Array | undefined> {
    if (cid.code !== CODEC_RAW) return this.#blocks.get(cid, this.#read)
    const held = this.#blocks.ensure(cid, this.#read)
    return isPromise(held) ? held.then(() => undefined) : undefined
  }

  #fetched(cid: CID, bytes: Uint8Array | undefined): void {
    this.#missesInARow = 0
    this.#arrived(cid, bytes)
  }

  #arrived(cid: CID, bytes: Uint8Array | undefined): void {
    if (bytes !== undefined) this.#add(this.#linksOf(cid, bytes))
    this.#result.done++
    this.#options.onProgress?.(this.#result)
  }

  #linksOf(cid: CID, bytes: Uint8Array): readonly CID[] {
    try {
      return this.#links(cid, bytes)
    } catch (err) {
      const code = codeOf(err)
      if (code !== 'MALFORMED_DAG' && code !== 'UNSUPPORTED_CODEC') throw err
      log('%s is followed no further: %s', cid, messageOf(err))
      return []
    }
  }

  #missed(cid: CID, error: unknown): void {
    this.#missesInARow++
    this.#result.missed++
    this.#result.firstMissed ??= { cid, error }
  }
}
