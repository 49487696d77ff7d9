/**
 * What is read, listed and published.
 *
 * Invariant: bytes are random, and `renew` changes every block of a file, so that nobody can publish by finding
 * that he has it already. Everything is on the disk before it is measured.
 */
import { randomFillSync } from 'node:crypto'
import { closeSync, fsyncSync, mkdirSync, openSync, readdirSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { runOk } from '../../test/support/run.js'

export const MIB = 2 ** 20
const FILE_BYTES = 1024

export interface Sizes {
  /** Of the large file. */
  bigBytes: number
  /** Of the directory that is listed. */
  entries: number
  /** Of the directory of small files that is copied. */
  files: number
  randomReads: number
}

export const FULL: Sizes = { bigBytes: 256 * MIB, entries: 10_000, files: 2000, randomReads: 400 }
export const QUICK: Sizes = { bigBytes: 64 * MIB, entries: 2000, files: 500, randomReads: 100 }

/** A file of random bytes; returns its path. */
export async function makeBig(path: string, sizeBytes: number): Promise<string> {
  const chunk = Buffer.alloc(MIB)
  const fd = openSync(path, 'w')
  for (let at = 0; at < sizeBytes; at += MIB) {
    writeSync(fd, randomFillSync(chunk))
    if (at % (16 * MIB) === 0) await breathe()
  }
  fsyncSync(fd)
  closeSync(fd)
  return path
}

/** New bytes at the start of every chunk of 1 MiB. */
export function renewBig(path: string, sizeBytes: number): void {
  const start = Buffer.alloc(64)
  const fd = openSync(path, 'r+')
  for (let at = 0; at < sizeBytes; at += MIB) writeSync(fd, randomFillSync(start), 0, start.length, at)
  fsyncSync(fd)
  closeSync(fd)
}

/** Files of 1 KiB; where they exist already, with new bytes. Returns the path. */
export async function makeDirectory(path: string, count: number): Promise<string> {
  const bytes = Buffer.alloc(FILE_BYTES)
  mkdirSync(path, { recursive: true })
  for (let i = 0; i < count; i++) {
    writeFileSync(join(path, `file-${String(i).padStart(5, '0')}.bin`), randomFillSync(bytes))
    if (i % 500 === 0) await breathe()
  }
  if (readdirSync(path).length !== count) throw new Error(`${path} does not hold ${count} files`)
  await runOk('sync', ['--file-system', path])
  return path
}

/** Lets Ctrl-C through. */
function breathe(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}
