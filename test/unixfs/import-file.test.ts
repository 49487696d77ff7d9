import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { isPromise } from '../../src/core/maybe-promise.js'
import type { Built } from '../../src/unixfs/built.js'
import { type BuiltFile, buildFile, FileBuilder, fileSteps } from '../../src/unixfs/import-file.js'
import { CHUNK_BYTES, MAX_LINKS } from '../../src/unixfs/profile.js'
import { runNow } from '../../src/unixfs/steps.js'
import { importedFile } from './importer.js'
import { Kubo, withoutKubo } from './kubo.js'
import { codeThrown, MemoryBlocks, pattern } from './support.js'

const MIB = 1024 * 1024

function digestsOf(content: Uint8Array, chunkBytes: number): Uint8Array {
  const digests: Uint8Array[] = []
  for (let at = 0; at < content.length; at += chunkBytes) {
    digests.push(
      createHash('sha256')
        .update(content.subarray(at, at + chunkBytes))
        .digest(),
    )
  }
  return Buffer.concat(digests)
}

function built(
  content: Uint8Array,
  chunkBytes: number,
  maxLinks: number,
  blocks = new MemoryBlocks(),
): BuiltFile {
  return runNow(
    fileSteps(digestsOf(content, chunkBytes), content.length, blocks.put, { chunkBytes, maxLinks }),
  )
}

t.test('same CID, Tsize and nodes as the importer, around every boundary of chunks and links', async t => {
  const cases: [chunkBytes: number, maxLinks: number, sizes: number[]][] = [
    [CHUNK_BYTES, MAX_LINKS, [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB]],
    [16, MAX_LINKS, [16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 16 * 1025, 16 * 2048, 16 * 2049]],
    [10, 3, [29, 30, 31, 89, 90, 91, 269, 270, 271, 279, 280, 281, 809, 810, 811, 5000]],
    [1, 2, [1, 2, 3, 4, 5, 8, 9, 16, 17, 31, 32, 33]],
  ]
  const content = pattern(3 * MIB)
  for (const [chunkBytes, maxLinks, sizes] of cases) {
    for (const size of sizes) {
      const blocks = new MemoryBlocks()
      const oracle = new MemoryBlocks()
      const ours = built(content.subarray(0, size), chunkBytes, maxLinks, blocks)
      const theirs = await importedFile(content.subarray(0, size), oracle, { chunkBytes, maxLinks })
      t.same(described(ours), described(theirs), `${size} bytes, chunks of ${chunkBytes}, ${maxLinks} links`)
      t.equal(ours.sizeBytes, size)
      for (const [key, bytes] of blocks.map) {
        if (Buffer.compare(bytes, oracle.map.get(key) ?? Buffer.of(0)) !== 0) t.fail('another node')
      }
    }
  }
})

function described({ cid, tsize }: Built): { cid: string; tsize: number } {
  return { cid: cid.toString(), tsize }
}

t.test('a builder takes leaves one by one and copies their digests', async t => {
  const content = pattern(100)
  const builder = new FileBuilder(() => {}, 3)
  const digest = new Uint8Array(32)
  for (let at = 0; at < 100; at += 10) {
    digest.set(
      createHash('sha256')
        .update(content.subarray(at, at + 10))
        .digest(),
    )
    builder.add(digest, 10)
  }
  t.same(described(builder.finish()), described(built(content, 10, 3)))
})

t.test('small files are built at once, large ones let the event loop turn', async t => {
  t.notOk(isPromise(buildFile(new Uint8Array(32 * 3), 3 * MIB, () => {})))
  const leaves = 300_000
  const result = buildFile(new Uint8Array(32 * leaves), leaves * MIB, () => {})
  t.ok(isPromise(result))
  const { sizeBytes, tsize } = await result
  t.equal(sizeBytes, leaves * MIB)
  t.ok(tsize > sizeBytes)
})

t.test('digests that do not fit the size are refused', async t => {
  t.equal(
    codeThrown(() => buildFile(new Uint8Array(32), MIB + 1, () => {})),
    'INVALID',
  )
  t.equal(
    codeThrown(() => buildFile(new Uint8Array(31), 1, () => {})),
    'INVALID',
  )
  t.equal(
    codeThrown(() => buildFile(new Uint8Array(32), 0, () => {})),
    'INVALID',
  )
})

t.test('same CIDs as Kubo', { skip: withoutKubo }, async t => {
  const kubo = new Kubo()
  t.teardown(() => kubo.remove())
  const content = pattern(3 * MIB)
  const path = join(kubo.directory, 'content')
  for (const size of [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB]) {
    writeFileSync(path, content.subarray(0, size))
    t.equal(kubo.add(path), built(content.subarray(0, size), MIB, MAX_LINKS).cid.toString(), `${size} bytes`)
  }
  for (const leaves of [1023, 1024, 1025, 2049]) {
    writeFileSync(path, content.subarray(0, leaves * 64))
    const ours = built(content.subarray(0, leaves * 64), 64, MAX_LINKS)
    t.equal(kubo.add(path, '--chunker=size-64'), ours.cid.toString(), `${leaves} leaves`)
  }
})
