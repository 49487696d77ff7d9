/** Which ranges answer a read, and what is fetched for it. */
import t, { type Test } from 'tap'
import { type CID, CODEC_RAW } from '../../src/core/cid.js'
import { isPromise } from '../../src/core/maybe-promise.js'
import { ContentReader } from '../../src/fs/content-reader.js'
import { FileTable } from '../../src/unixfs/file-table.js'
import { descriptorsBelow } from '../store/support.js'
import { importedFile } from '../unixfs/importer.js'
import { codeRejected, MemoryBlocks, pattern } from '../unixfs/support.js'
import { bytesOf, World } from './support.js'

const CHUNK = 1000
const SIZE = 10 * CHUNK + 123

interface Fixture {
  world: World
  reader: ContentReader
  table: FileTable
  data: Uint8Array
  leaves: CID[]
}

/** A file of eleven leaves under nodes of three, of which the network has everything. */
async function open(t: Test): Promise<Fixture> {
  const world = await World.open(t)
  const data = pattern(SIZE)
  const memory = new MemoryBlocks()
  const { cid } = await importedFile(data, memory, { chunkBytes: CHUNK, maxLinks: 3 })
  for (const [key, bytes] of memory.map) world.network.blocks.set(key, bytes)
  const leaves = Array.from({ length: 11 }, (_, i) =>
    world.dag.raw(data.subarray(i * CHUNK, (i + 1) * CHUNK)),
  )
  const table = FileTable.open(cid, await world.blocks.get(cid))
  return { world, reader: new ContentReader(world.store, world.blocks), table, data, leaves }
}

t.test('any range is answered with its bytes, cut at the end of the file', async t => {
  const { reader, table, data } = await open(t)
  const ranges = [
    [0, 1],
    [0, SIZE],
    [999, 2],
    [1000, 1000],
    [1500, 3000],
    [SIZE - 1, 100],
    [SIZE, 10],
    [SIZE + 5000, 10],
    [0, 10 * SIZE],
    [3, 0],
  ] as const
  for (const [offset, length] of ranges) {
    const found = bytesOf(await reader.readFile(table, offset, length, {}))
    t.equal(Buffer.compare(found, data.subarray(offset, offset + length)), 0, `[${offset}, +${length})`)
  }
})

t.test('only the blocks that overlap the range are fetched', async t => {
  const { world, reader, table, leaves } = await open(t)
  await reader.readFile(table, 2500, 1000, {}).valueOf()
  const fetched = leaves.map(cid => world.network.count(cid))
  t.same(fetched, [0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0])
})

t.test('what is held is answered at once, as ranges that lie together where they lie together', async t => {
  const { world, reader, table, data } = await open(t)
  bytesOf(await reader.readFile(table, 0, SIZE, {}))
  const requests = world.network.requests.length
  const answer = reader.readFile(table, 0, SIZE, {})
  t.notOk(isPromise(answer))
  t.notOk(answer instanceof Uint8Array)
  t.equal(Buffer.compare(bytesOf(await answer), data), 0)
  t.equal(world.network.requests.length, requests)
})

t.test('a published file is answered as one range of one file', async t => {
  const world = await World.open(t)
  const data = pattern(3_000_000)
  const ino = await world.stage('file', data)
  const { waitUntilPublished } = await import('../../src/staging/waiter.js')
  await waitUntilPublished(world.staging, [ino], () => {}, new AbortController().signal)
  const { cid } = world.staging.names.get(ino)
  const { CID } = await import('../../src/core/cid.js')
  const table = FileTable.open(CID.decode(cid!), await world.blocks.get(CID.decode(cid!)))
  const answer = await new ContentReader(world.store, world.blocks).readFile(table, 10, 2_999_000, {})
  if (answer instanceof Uint8Array) throw new Error('bytes instead of ranges')
  t.equal(answer.ranges.length, 1)
  t.equal(Buffer.compare(bytesOf(answer), data.subarray(10, 2_999_010)), 0)
})

t.test('a block that cannot be had fails the reads that need it, and holds nothing open', async t => {
  const { world, reader, table, leaves } = await open(t)
  world.network.remove(leaves[5]!)
  t.equal(await codeRejected(() => reader.readFile(table, 4000, 3000, {})), 'UNREACHABLE')
  t.equal(bytesOf(await reader.readFile(table, 0, 5000, {})).length, 5000)
  t.equal(bytesOf(await reader.readFile(table, 6000, 9999, {})).length, SIZE - 6000)
  await world.close(true)
  t.equal(descriptorsBelow(world.dir), 0)
})

t.test('a leaf that is longer or shorter than its parent says is not read', async t => {
  for (const wrong of [3, 5]) {
    const world = await World.open(t)
    const leaf = world.dag.raw(Buffer.alloc(wrong, 'x'))
    const { cid } = world.dag.file([
      { cid: world.dag.raw(Buffer.from('good')), sizeBytes: 4 },
      { cid: leaf, sizeBytes: 4 },
    ])
    const reader = new ContentReader(world.store, world.blocks)
    const table = FileTable.open(cid, await world.blocks.get(cid))
    for (let i = 0; i < 2; i++) {
      t.equal(await codeRejected(() => reader.readFile(table, 0, 8, {})), 'MALFORMED_DAG', `${wrong} bytes`)
    }
    t.equal(bytesOf(await reader.readFile(table, 0, 4, {})).toString(), 'good')
  }
})

t.test('inline data and leaves mix', async t => {
  const world = await World.open(t)
  const { cid } = world.dag.file(
    [{ cid: world.dag.raw(Buffer.from(' and a leaf')), sizeBytes: 11 }],
    Buffer.from('inline'),
  )
  const reader = new ContentReader(world.store, world.blocks)
  const table = FileTable.open(cid, await world.blocks.get(cid))
  for (let i = 0; i < 2; i++) {
    t.equal(bytesOf(await reader.readFile(table, 0, 100, {})).toString(), 'inline and a leaf')
    t.equal(bytesOf(await reader.readFile(table, 4, 4, {})).toString(), 'ne a')
  }
})

t.test('a single block is read by its own size', async t => {
  const world = await World.open(t)
  const cid = world.dag.raw(Buffer.from('0123456789'))
  const reader = new ContentReader(world.store, world.blocks)
  for (let i = 0; i < 2; i++) {
    t.equal(bytesOf(await reader.readBlock(cid, 3, 4, {})).toString(), '3456', i === 0 ? 'fetched' : 'held')
    t.equal(bytesOf(await reader.readBlock(cid, 8, 100, {})).toString(), '89')
    t.equal(bytesOf(await reader.readBlock(cid, 10, 1, {})).length, 0)
    t.equal(bytesOf(await reader.readBlock(cid, 1000, 1, {})).length, 0)
  }
  const empty = world.dag.put(CODEC_RAW, new Uint8Array(0))
  t.equal(bytesOf(await reader.readBlock(empty, 0, 10, {})).length, 0)
})

t.test('every answer gives back the containers it holds', async t => {
  const { world, reader, table } = await open(t)
  for (let i = 0; i < 50; i++) bytesOf(await reader.readFile(table, i * 100, 5000, {}))
  const unread = await reader.readFile(table, 0, SIZE, {})
  if (unread instanceof Uint8Array) throw new Error('bytes instead of ranges')
  await world.close(true)
  t.ok(descriptorsBelow(world.dir) > 0, 'a read that is under way')
  unread.release()
  t.equal(descriptorsBelow(world.dir), 0)
})
