/** When an object of the store is a whole file, and when it only looks like one. */
import { appendFileSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { type CID, CODEC_RAW, cidOf } from '../../src/core/cid.js'
import { WholeObjects } from '../../src/fs/whole-object.js'
import type { Store } from '../../src/store/store.js'
import { FileTable } from '../../src/unixfs/file-table.js'
import { buildFile } from '../../src/unixfs/import-file.js'
import { CHUNK_BYTES } from '../../src/unixfs/profile.js'
import { openStore } from '../store/support.js'

/** Chunks that differ by their first byte. */
function chunk(first: number, sizeBytes = CHUNK_BYTES): Uint8Array {
  const bytes = new Uint8Array(sizeBytes)
  bytes[0] = first
  return bytes
}

/** Publishes chunks as one sealed object; its root and the object's id. */
async function publish(store: Store, chunks: Uint8Array[]): Promise<{ cid: CID; object: number }> {
  const { container, path } = store.createObject()
  writeFileSync(path, Buffer.concat(chunks))
  const cids = chunks.map(bytes => cidOf(CODEC_RAW, bytes))
  const digests = new Uint8Array(Buffer.concat(cids.map(cid => cid.multihash.digest)))
  const sizeBytes = chunks.reduce((sum, { length }) => sum + length, 0)
  const { cid } = await buildFile(digests, sizeBytes, (cid, bytes) => void store.put(cid, bytes))
  let offset = 0
  const leaves = chunks.map(({ length }, i) => ({
    cid: cids[i]!,
    offset: (offset += length) - length,
    length,
  }))
  store.sealObject(container, leaves)
  return { cid, object: container }
}

function tableOf(store: Store, cid: CID): FileTable {
  return FileTable.open(cid, store.get(cid)!)
}

/** Whether a descriptor is offered at all. */
function offered(whole: WholeObjects, object: number): boolean {
  let fd: number | undefined
  whole.passthrough(object).offer(found => {
    fd = found
    return 'taken'
  })
  return fd !== undefined
}

t.test('a published file is its object', async t => {
  const store = await openStore(t)
  const whole = new WholeObjects(store)
  const { cid, object } = await publish(store, [chunk(1), chunk(2), chunk(3, 77)])
  t.equal(await whole.ofFile(tableOf(store, cid)), object)
  t.ok(offered(whole, object))
})

t.test('a file of one block is its object', async t => {
  const store = await openStore(t)
  const whole = new WholeObjects(store)
  const { cid, object } = await publish(store, [chunk(1, 70_000)])
  t.equal(cid.code, CODEC_RAW)
  t.equal(whole.ofBlock(cid), object)
})

t.test('an object that shares only the first block and the size is another file', async t => {
  const store = await openStore(t)
  const whole = new WholeObjects(store)
  const first = await publish(store, [chunk(1), chunk(2)])
  const second = await publish(store, [chunk(1), chunk(3)])
  t.equal(await whole.ofFile(tableOf(store, second.cid)), second.object)
  const found = await whole.ofFile(tableOf(store, first.cid))
  t.equal(found, undefined, 'its first block is read from the other object now')
})

t.test('a file whose blocks repeat, or lie in a pack, has no object of its own', async t => {
  const store = await openStore(t)
  const whole = new WholeObjects(store)
  const repeated = await publish(store, [chunk(1), chunk(1), chunk(2)])
  t.equal(await whole.ofFile(tableOf(store, repeated.cid)), undefined)
  const packed = chunk(9, 5000)
  store.put(cidOf(CODEC_RAW, packed), packed)
  t.equal(whole.ofBlock(cidOf(CODEC_RAW, packed)), undefined)
  t.equal(whole.ofBlock(cidOf(CODEC_RAW, chunk(10, 10))), undefined, 'not held at all')
})

t.test('the start of a longer file is not that file', async t => {
  const store = await openStore(t)
  const whole = new WholeObjects(store)
  await publish(store, [chunk(1), chunk(2)])
  t.equal(whole.ofBlock(cidOf(CODEC_RAW, chunk(1))), undefined)
})

t.test('an object that was made longer behind our back is not offered', async t => {
  const store = await openStore(t)
  const whole = new WholeObjects(store)
  const { object } = await publish(store, [chunk(1, 70_000)])
  appendFileSync(store.objectPath(object), 'x')
  t.notOk(offered(whole, object))
})

t.test('once a kernel takes no files, nobody looks for any', async t => {
  const store = await openStore(t)
  const whole = new WholeObjects(store)
  const { cid, object } = await publish(store, [chunk(1), chunk(2)])
  whole.passthrough(object).offer(() => 'unsupported')
  t.equal(await whole.ofFile(tableOf(store, cid)), undefined)
})
