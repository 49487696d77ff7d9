/** Working copies of published files. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type CID, CODEC_RAW, cidOf } from '../../src/core/cid.js'
import type { CidfsError } from '../../src/core/errors.js'
import { contentCopier } from '../../src/staging/copy-content.js'
import type { Store } from '../../src/store/store.js'
import { openStore } from '../store/support.js'
import { tempDir } from '../support/temp.js'
import { importedFile } from '../unixfs/importer.js'
import { MemoryBlocks, pattern } from '../unixfs/support.js'
import { content, Stage } from './support.js'

const MIB = 1024 * 1024

async function copyOf(t: Test, cid: CID, store: Store, blocks: MemoryBlocks): Promise<Buffer> {
  const path = join(await tempDir(t), 'copy')
  await contentCopier(store, { get: cid => store.get(cid) ?? blocks.bytesOf(cid) })(cid, path)
  return readFileSync(path)
}

t.test('content in the store and content that has to be fetched are copied alike', async t => {
  const data = pattern(3 * MIB + 17)
  const blocks = new MemoryBlocks()
  const { cid } = await importedFile(data, blocks, { chunkBytes: 256 * 1024, maxLinks: 4 })
  const store = await openStore(t)
  t.equal(Buffer.compare(await copyOf(t, cid, store, blocks), data), 0, 'nothing is held')
  const half = [...blocks.map.values()].filter((_, i) => i % 2 === 0)
  for (const block of half) store.put(cidOf(CODEC_RAW, block), block)
  t.equal(Buffer.compare(await copyOf(t, cid, store, blocks), data), 0, 'half of it is')
})

t.test('bytes inside nodes, empty files and single blocks are copied', async t => {
  const blocks = new MemoryBlocks()
  const store = await openStore(t)
  const inline = blocks.node({ type: 'file', data: Buffer.from('inline'), filesize: 6 })
  t.equal((await copyOf(t, inline, store, blocks)).toString(), 'inline')
  for (const size of [0, 1, 1000]) {
    const bytes = pattern(size)
    const cid = blocks.put(cidOf(CODEC_RAW, bytes), bytes)
    t.equal(Buffer.compare(await copyOf(t, cid, store, blocks), bytes), 0, `${size}`)
  }
})

t.test('a sealed object is copied while its file stays as it is', async t => {
  const stage = await Stage.open(t)
  const data = content(5 * MIB + 3)
  const cid = await stage.cid(await stage.write('file', data))
  t.equal(Buffer.compare(await copyOf(t, cid, stage.store, new MemoryBlocks()), data), 0)
  t.equal(Buffer.compare(await stage.readCid(cid), data), 0)
})

t.test('a block that cannot be had fails the copy', async t => {
  const blocks = new MemoryBlocks()
  const { cid } = await importedFile(pattern(2 * MIB), blocks, { chunkBytes: MIB, maxLinks: 4 })
  const store = await openStore(t)
  const leaf = cidOf(CODEC_RAW, pattern(2 * MIB).subarray(MIB))
  blocks.delete(leaf)
  await t.rejects(copyOf(t, cid, store, blocks), { code: 'UNREACHABLE' } satisfies Partial<CidfsError>)
})

t.test('an existing file is never overwritten', async t => {
  const stage = await Stage.open(t)
  const cid = await stage.cid(await stage.write('file', 'abc'))
  const copy = contentCopier(stage.store, { get: () => Buffer.from('abc') })
  const path = join(await tempDir(t), 'copy')
  await copy(cid, path)
  await t.rejects(copy(cid, path), { code: 'EEXIST' })
  t.ok(existsSync(path))
})
