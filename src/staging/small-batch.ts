/**
 * Small files and symbolic links that are due: put into the store together, to be published in one transaction.
 *
 * Invariant: what is in `candidates` is in the store, though not on the disk yet; what could not be put there has
 * failed in the queue. The main thread is given back after each slice, and whatever becomes due meanwhile joins.
 */
import { promisify } from 'node:util'
import { type CID, CODEC_RAW, cidOf } from '../core/cid.js'
import { messageOf } from '../core/errors.js'
import type { Block } from '../store/packs.js'
import type { Leaf, Store } from '../store/store.js'
import { buildSymlink } from '../unixfs/import-symlink.js'
import type { Contents } from './contents.js'
import type { DirtyQueue, Job } from './dirty-queue.js'
import type { StagingNode } from './node.js'

/** Files up to this size go into a pack instead of staying files. */
const SMALL_BYTES = 64 * 1024
const SLICE_MS = 4
const BATCH_FILES = 2048

const nextTurn = promisify(setImmediate)

export interface Published {
  cid: CID
  tsize: number
}

/** A node that has a CID, if its content is still what it was. */
export interface Candidate {
  job: Job
  generation: number
  published: Published
  /** Leaves to be found in `copy` or the working object from now on; empty when it is not needed any more. */
  leaves: Leaf[]
  /** What is to be sealed in place of a working object that is passed through. */
  copy?: number | undefined
}

export function isSmall(node: StagingNode): boolean {
  return node.type === 'symlink' || (node.type === 'file' && node.sizeBytes <= SMALL_BYTES)
}

export interface SmallBatchParts {
  store: Store
  contents: Contents
  queue: DirtyQueue
  /** The node of a job that can be worked on now. */
  ready(job: Job): StagingNode | undefined
  isStopped(): boolean
}

export class SmallBatch {
  readonly candidates: Candidate[] = []
  /** Taken by mistake: they are not small. */
  readonly others: Job[] = []
  readonly #parts: SmallBatchParts
  /** Kept twice until the batch is published. */
  #bytes = 0

  constructor(parts: SmallBatchParts) {
    this.#parts = parts
  }

  /** Takes in `first` and what else is due, until nothing is or the batch is full. */
  async prepare(first: Job): Promise<void> {
    for (let job: Job | undefined = first; job !== undefined; ) {
      job = this.#prepareSlice(job)
      if (job !== undefined) await nextTurn()
    }
  }

  /** Until the slice is over; returns the job to go on with. */
  #prepareSlice(first: Job): Job | undefined {
    const before = this.candidates.length
    const blocks: Block[] = []
    const next = this.#take(performance.now() + SLICE_MS, first, blocks)
    try {
      this.#parts.store.putMany(blocks)
    } catch {
      this.candidates.push(...this.#putSingly(this.candidates.splice(before), blocks))
    }
    return next
  }

  #take(until: number, first: Job, blocks: Block[]): Job | undefined {
    const { queue } = this.#parts
    for (let job: Job | undefined = first; job !== undefined; job = queue.take()) {
      const node = this.#parts.ready(job)
      if (node !== undefined && isSmall(node)) this.#add(job, node, blocks)
      else if (node !== undefined) this.others.push(job)
      this.#bytes += node?.sizeBytes ?? 0
      if (this.#isFull()) return undefined
      if (performance.now() > until) return queue.take()
    }
    return undefined
  }

  #isFull(): boolean {
    const { store, isStopped } = this.#parts
    if (isStopped() || this.others.length > 0) return true
    return this.candidates.length >= BATCH_FILES || this.#bytes >= store.space.batchBytes
  }

  #add(job: Job, node: StagingNode, blocks: Block[]): void {
    try {
      const published = node.type === 'symlink' ? symlinkOf(node, blocks) : this.#fileOf(node, blocks)
      this.candidates.push({ job, generation: node.generation, published, leaves: [] })
    } catch (err) {
      this.#parts.queue.failed(job.ino, messageOf(err))
    }
  }

  #fileOf(node: StagingNode, blocks: Block[]): Published {
    const bytes = this.#parts.contents.bytes(node)
    const cid = cidOf(CODEC_RAW, bytes)
    blocks.push({ cid, bytes })
    return { cid, tsize: bytes.length }
  }

  /** Not all fit: what does is published. Each candidate has one block. */
  #putSingly(candidates: Candidate[], blocks: Block[]): Candidate[] {
    return candidates.filter(({ job }, i) => {
      try {
        this.#parts.store.putMany([blocks[i]!])
        return true
      } catch (err) {
        this.#parts.queue.failed(job.ino, messageOf(err))
        return false
      }
    })
  }
}

function symlinkOf({ target }: StagingNode, blocks: Block[]): Published {
  return buildSymlink(target ?? new Uint8Array(0), (cid, bytes) => void blocks.push({ cid, bytes }))
}
