/**
 * Thread that reads a range of a file and returns the SHA-256 of each of its chunks.
 *
 * Invariant: it only reads, from a descriptor that whoever sent the request keeps open until the answer.
 * Why: SHA-256 is the largest cost of publishing, and the main thread has the kernel to answer.
 */
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { parentPort } from 'node:worker_threads'

export interface HashRequest {
  id: number
  fd: number
  offset: number
  length: number
  chunkBytes: number
}

export type HashAnswer = { id: number; digests: Uint8Array<ArrayBuffer> } | { id: number; error: string }

const DIGEST_BYTES = 32

let buffer = Buffer.allocUnsafe(0)

function hashRange({ fd, offset, length, chunkBytes }: HashRequest): Uint8Array<ArrayBuffer> {
  if (buffer.length < chunkBytes) buffer = Buffer.allocUnsafe(chunkBytes)
  const digests = new Uint8Array(Math.ceil(length / chunkBytes) * DIGEST_BYTES)
  for (let at = 0, index = 0; at < length; at += chunkBytes, index++) {
    const chunk = buffer.subarray(0, Math.min(chunkBytes, length - at))
    readFully(fd, chunk, offset + at)
    digests.set(createHash('sha256').update(chunk).digest(), index * DIGEST_BYTES)
  }
  return digests
}

function readFully(fd: number, into: Buffer, offset: number): void {
  for (let done = 0; done < into.length; ) {
    const count = fs.readSync(fd, into, done, into.length - done, offset + done)
    if (count === 0) throw new Error('the file became shorter while it was read')
    done += count
  }
}

parentPort?.on('message', (request: HashRequest) => {
  try {
    const digests = hashRange(request)
    const answer: HashAnswer = { id: request.id, digests }
    parentPort?.postMessage(answer, [digests.buffer])
  } catch (err) {
    const answer: HashAnswer = { id: request.id, error: err instanceof Error ? err.message : String(err) }
    parentPort?.postMessage(answer)
  }
})
