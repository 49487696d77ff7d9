/** Reads that are answered from ranges of files, from the page cache and from the disk. */
import { createHash, randomBytes } from 'node:crypto'
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { FileRange } from '../../src/core/blocks.js'
import { mounted, python, run, sh } from './fixture.js'
import { MemoryFileSystem } from './memory-file-system.js'

t.setTimeout(60_000)

const SIZE = 8 * 1024 * 1024 + 12_345

/** A file on disk, and a file system that shows it in pieces of odd sizes. */
function piecewise(t: Test, pieceBytes: number) {
  const base = mkdtempSync(join(tmpdir(), 'cidfs-ranges-'))
  const path = join(base, 'store')
  const content = randomBytes(SIZE)
  writeFileSync(path, content)
  const fd = openSync(path, 'r')
  t.teardown(() => {
    closeSync(fd)
    rmSync(base, { recursive: true })
  })
  const fs = new MemoryFileSystem()
  const state = { held: 0, released: 0 }
  const release = () => {
    state.held--
    state.released++
  }
  fs.addFile('f', {
    sizeBytes: SIZE,
    reader(offset, sizeBytes) {
      state.held++
      return { ranges: pieces(fd, offset, Math.min(sizeBytes, SIZE - offset), pieceBytes), release }
    },
  })
  return { fs, state, path, content, fd }
}

/** Every other piece twice as long, in descending order of nothing: neighbours must not always be merged. */
function pieces(fd: number, offset: number, length: number, pieceBytes: number): FileRange[] {
  const ranges: FileRange[] = []
  for (let at = offset; at < offset + length; ) {
    const size = Math.min(pieceBytes, offset + length - at)
    ranges.push({ fd, offset: at, length: size }, { fd, offset: 0, length: 0 })
    at += size
  }
  return ranges
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

const evict = (path: string) =>
  python(`import os
f = os.open('${path}', os.O_RDONLY); os.fsync(f); os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)`)

for (const pieceBytes of [1 << 20, 99_991, 1000]) {
  t.test(`pieces of ${pieceBytes} bytes are read whole, hot and cold, at any alignment`, async t => {
    const { fs, state, path, content } = piecewise(t, pieceBytes)
    const { dir, session } = await mounted(t, fs)
    const expected = sha256(content)
    t.equal((await sh(`sha256sum < ${dir}/f`)).slice(0, 64), expected, 'hot')
    await evict(path)
    await evict(join(dir, 'f'))
    t.equal((await sh(`sha256sum < ${dir}/f`)).slice(0, 64), expected, 'cold')
    await evict(path)
    const [offset, length] = [1_048_575 * 3 + 1, 777_777]
    const read = await run('python3', [
      '-c',
      `import os, sys
fd = os.open('${dir}/f', os.O_RDONLY | os.O_DIRECT)
sys.stdout.buffer.write(os.pread(fd, ${length}, ${offset}))`,
    ])
    const slice = content.subarray(offset, offset + length).toString('latin1')
    t.ok(read.stdout === slice, 'a direct read that is aligned to nothing')
    t.ok(await session.drain(1000))
    t.same({ held: state.held, all: state.released === fs.readSizes.length }, { held: 0, all: true })
  })
}

t.test('readers in parallel get their own bytes from a cold file', async t => {
  const { fs, state, path, content } = piecewise(t, 1 << 20)
  const { dir, session } = await mounted(t, fs)
  await evict(path)
  const sums = await Promise.all(
    Array.from({ length: 8 }, () => sh(`dd if=${dir}/f bs=64K iflag=direct status=none | sha256sum`)),
  )
  t.ok(sums.every(sum => sum.slice(0, 64) === sha256(content)))
  t.ok(await session.drain(1000))
  t.equal(state.held, 0)
})

t.test('a file shorter than promised is EIO, never a short read', async t => {
  const base = mkdtempSync(join(tmpdir(), 'cidfs-ranges-'))
  const path = join(base, 'short')
  writeFileSync(path, randomBytes(100))
  const fd = openSync(path, 'r')
  t.teardown(() => {
    closeSync(fd)
    rmSync(base, { recursive: true })
  })
  const fs = new MemoryFileSystem()
  let held = 0
  const reader = (fd: number, length: number) => () => {
    held++
    return { ranges: [{ fd, offset: 50, length }], release: () => void held-- }
  }
  fs.addFile('short', { sizeBytes: 100, reader: reader(fd, 51) })
  fs.addFile('closed', { sizeBytes: 100, reader: reader(9999, 50) })
  fs.addFile('huge', { sizeBytes: 100, reader: reader(fd, 2 << 20) })
  fs.addFile('empty', { sizeBytes: 100, reader: () => ({ ranges: [], release: () => void held-- }) })
  const { dir, session } = await mounted(t, fs)
  for (const name of ['short', 'closed', 'huge']) {
    t.match(await run('cat', [join(dir, name)]), { status: 1, stderr: /Input\/output error/ }, name)
  }
  held++
  t.equal((await run('cat', [join(dir, 'empty')])).status, 0)
  t.ok(session.stats().READ!.errors >= 3)
  t.ok(await session.drain(1000))
  t.equal(held, 0, 'released also on failure')
})
