/**
 * Hashes files on all cores.
 *
 * Invariant: a file is cut at chunk boundaries into pieces that any worker may take; the digests come back in
 * the order of the chunks. A worker that dies fails the pieces it had; the next piece starts a new one.
 * Why pieces of 8 MiB: small enough that one file keeps every core busy, large enough that a message costs
 * nothing beside them.
 */
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { CidfsError, messageOf } from '../core/errors.js'
import type { HashAnswer, HashRequest } from './hash-worker.js'

const PIECE_BYTES = 8 * 1024 * 1024
const MAX_WORKERS = 8
const IDLE_MS = 60_000
const DIGEST_BYTES = 32

interface Piece {
  request: HashRequest
  resolve(digests: Uint8Array): void
  reject(err: Error): void
}

interface Thread {
  worker: Worker
  piece: Piece | undefined
}

export class HashPool {
  readonly #size: number
  readonly #threads = new Set<Thread>()
  readonly #waiting: Piece[] = []
  #nextId = 1
  #idleTimer: NodeJS.Timeout | undefined

  constructor(size = Math.min(MAX_WORKERS, availableParallelism())) {
    this.#size = size
  }

  /**
   * SHA-256 of each chunk of bytes `[0, sizeBytes)` of an open file: 32 bytes a chunk, one after the other.
   * The descriptor must stay open until the promise settles.
   * @throws CidfsError `IO` when the file cannot be read or a worker died.
   */
  async hashFile(fd: number, sizeBytes: number, chunkBytes: number): Promise<Uint8Array> {
    const pieceBytes = Math.max(chunkBytes, PIECE_BYTES - (PIECE_BYTES % chunkBytes))
    const pieces: Promise<Uint8Array>[] = []
    for (let offset = 0; offset < sizeBytes; offset += pieceBytes) {
      pieces.push(this.#submit(fd, offset, Math.min(pieceBytes, sizeBytes - offset), chunkBytes))
    }
    const settled = await Promise.allSettled(pieces)
    const digests = new Uint8Array(Math.ceil(sizeBytes / chunkBytes) * DIGEST_BYTES)
    let at = 0
    for (const result of settled) {
      if (result.status === 'rejected')
        throw new CidfsError('IO', messageOf(result.reason), { cause: result.reason })
      digests.set(result.value, at)
      at += result.value.length
    }
    return digests
  }

  /** Pieces that wait or are being hashed fail. */
  async close(): Promise<void> {
    clearTimeout(this.#idleTimer)
    for (const piece of this.#waiting.splice(0)) piece.reject(new Error('the hash workers have been stopped'))
    await Promise.all([...this.#threads].map(thread => thread.worker.terminate()))
  }

  #submit(fd: number, offset: number, length: number, chunkBytes: number): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ request: { id: this.#nextId++, fd, offset, length, chunkBytes }, resolve, reject })
      this.#dispatch()
    })
  }

  #dispatch(): void {
    clearTimeout(this.#idleTimer)
    while (this.#waiting.length > 0) {
      const thread = this.#idleThread()
      if (thread === undefined) return
      thread.piece = this.#waiting.shift()
      thread.worker.postMessage(thread.piece?.request)
    }
    this.#idleTimer = setTimeout(() => this.#dismiss(), IDLE_MS)
    this.#idleTimer.unref()
  }

  #idleThread(): Thread | undefined {
    for (const thread of this.#threads) if (thread.piece === undefined) return thread
    return this.#threads.size < this.#size ? this.#start() : undefined
  }

  #start(): Thread {
    const worker = new Worker(new URL('./hash-worker.js', import.meta.url))
    const thread: Thread = { worker, piece: undefined }
    worker.unref()
    worker.on('message', (answer: HashAnswer) => this.#answered(thread, answer))
    worker.on('error', err => this.#lost(thread, err))
    worker.on('exit', () => this.#lost(thread, new Error('the hash worker ended')))
    this.#threads.add(thread)
    return thread
  }

  #answered(thread: Thread, answer: HashAnswer): void {
    const piece = thread.piece
    thread.piece = undefined
    if ('digests' in answer) piece?.resolve(answer.digests)
    else piece?.reject(new Error(answer.error))
    this.#dispatch()
  }

  #lost(thread: Thread, err: unknown): void {
    if (!this.#threads.delete(thread)) return
    thread.piece?.reject(err instanceof Error ? err : new Error(String(err)))
    if (this.#waiting.length > 0) this.#dispatch()
  }

  /** Idle workers cost memory for nothing. */
  #dismiss(): void {
    for (const thread of this.#threads) {
      if (thread.piece !== undefined) continue
      this.#threads.delete(thread) // it gets no piece while it ends
      void thread.worker.terminate()
    }
  }
}
