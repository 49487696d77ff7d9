/** System calls on the files of working objects, made until all is done. */
import * as fs from 'node:fs'
import { CidfsError } from '../core/errors.js'
import { native, SEEK_HOLE } from '../core/native.js'

/** Writes all of `data`. */
export function writeFully(fd: number, data: Uint8Array, offset: number): void {
  for (let done = 0; done < data.length; )
    done += fs.writeSync(fd, data, done, data.length - done, offset + done)
}

/** Bytes of a range that the file has no blocks for, at most: writing there takes that much space. */
export function unallocated(fd: number, offset: number, length: number): number {
  const { size, blocks } = fs.fstatSync(fd)
  const behind = offset + length - Math.max(offset, size)
  if (blocks * 512 >= size || offset >= size) return Math.max(0, Math.min(length, behind))
  const hole = native.lseek(fd, offset, SEEK_HOLE)
  return Math.max(0, offset + length - Math.max(offset, hole))
}

/** As much of `data` as the disk takes. @throws what the disk says when it takes nothing. */
export function writeMost(fd: number, data: Uint8Array, offset: number): number {
  let written = 0
  try {
    while (written < data.length)
      written += fs.writeSync(fd, data, written, data.length - written, offset + written)
  } catch (err) {
    if (written === 0) throw err
  }
  return written
}

/** Node takes a position that is no exact integer for none, and writes wherever it wrote last. */
export function checkSize(sizeBytes: number): void {
  if (Number.isSafeInteger(sizeBytes)) return
  throw new CidfsError('FILE_TOO_LARGE', `a file of ${sizeBytes} bytes is too large`)
}
