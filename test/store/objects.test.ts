import * as fs from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { CODEC_RAW, cidOf } from '../../src/core/cid.js'
import { type Leaf, Store } from '../../src/store/store.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'
import { openStore, QUIET, rawBlock } from './support.js'

const CHUNK = 1000

/** A file of `count` different chunks in a new object of the store. */
function writeObject(
  store: Store,
  name: string,
  count: number,
): { container: number; path: string; leaves: Leaf[] } {
  const { container, path } = store.createObject()
  const chunks = Array.from({ length: count }, (_, i) => rawBlock(`${name}-${i}`, CHUNK))
  fs.writeFileSync(path, Buffer.concat(chunks.map(({ bytes }) => bytes)))
  return { container, path, leaves: chunks.map(({ cid }, i) => ({ cid, offset: i * CHUNK, length: CHUNK })) }
}

t.test('the leaves of a sealed object are blocks, read from the file itself', async t => {
  const dir = join(await tempDir(t), 'state')
  const store = await Store.open(dir, QUIET)
  const { container, path, leaves } = writeObject(store, 'f', 5)
  t.notOk(store.has(leaves[0]?.cid as Leaf['cid']), 'not before it is sealed')
  t.same(store.sealObject(container, leaves), { added: 5 })
  t.same(store.locate(leaves[3]?.cid as Leaf['cid']), { container, offset: 3 * CHUNK, length: CHUNK })
  t.equal(store.objectPath(container), path)
  await store.close()
  const again = await openStore(t, QUIET, dir)
  for (const [i, { cid }] of leaves.entries()) t.same(again.get(cid), rawBlock(`f-${i}`, CHUNK).bytes)
  t.same(again.unsealedObjects(), [])
})

t.test('a leaf that is held elsewhere is read from the newest object, so that the other can go', async t => {
  const store = await openStore(t)
  const first = writeObject(store, 'same', 3)
  const second = writeObject(store, 'same', 3)
  t.same(store.sealObject(first.container, first.leaves), { added: 3 })
  t.same(store.sealObject(second.container, second.leaves), { added: 0 })
  t.equal(store.locate(first.leaves[0]?.cid as Leaf['cid'])?.container, second.container)
})

t.test('sealing twice is sealing once', async t => {
  const store = await openStore(t)
  const { container, leaves } = writeObject(store, 'f', 3)
  store.sealObject(container, leaves)
  t.same(store.sealObject(container, leaves), { added: 0 })
})

t.test('an object shorter than its leaves cannot be sealed', async t => {
  const store = await openStore(t)
  const { container, path, leaves } = writeObject(store, 'f', 3)
  fs.truncateSync(path, 2 * CHUNK)
  t.throws(() => store.sealObject(container, leaves), { code: 'INVALID' })
  for (const { cid } of leaves) t.notOk(store.has(cid))
  t.same(store.unsealedObjects(), [container])
  t.throws(() => store.sealObject(99, leaves), { code: 'INVALID' })
})

t.test('a seal in a transaction that fails is taken back', async t => {
  const store = await openStore(t)
  const { container, leaves } = writeObject(store, 'f', 3)
  t.throws(() => {
    store.transaction(() => {
      store.sealObject(container, leaves)
      throw new Error('no')
    })
  }, /no/)
  t.same(store.unsealedObjects(), [container])
  for (const { cid } of leaves) t.notOk(store.has(cid))
  t.same(store.sealObject(container, leaves), { added: 3 })
})

t.test('objects that were not sealed are known after a reopen and can be dropped', async t => {
  const dir = join(await tempDir(t), 'state')
  const store = await Store.open(dir, QUIET)
  const sealed = writeObject(store, 's', 1)
  const open = writeObject(store, 'o', 1)
  const never = store.createObject()
  store.sealObject(sealed.container, sealed.leaves)
  await store.close()
  const again = await openStore(t, QUIET, dir)
  t.same(again.unsealedObjects(), [open.container, never.container])
  again.dropObject(open.container)
  again.dropObject(never.container)
  t.same(again.unsealedObjects(), [])
  t.ok(fs.existsSync(open.path), 'after a power failure the index may refer to it')
  await again.flush()
  await until('it is removed', () => !fs.existsSync(open.path))
  t.throws(() => again.dropObject(sealed.container), { code: 'INVALID' })
  t.ok(again.has(sealed.leaves[0]?.cid as Leaf['cid']))
})

t.test('the block of an empty file outlives its object', async t => {
  const store = await openStore(t)
  const { container, path } = store.createObject()
  fs.writeFileSync(path, '')
  const cid = cidOf(CODEC_RAW, new Uint8Array(0))
  t.same(store.sealObject(container, [{ cid, offset: 0, length: 0 }]), { added: 1 })
  fs.rmSync(path)
  t.same(store.get(cid), new Uint8Array(0))
})

t.test('an object whose file vanished is not held any more', async t => {
  const store = await openStore(t)
  const { container, path, leaves } = writeObject(store, 'f', 2)
  store.sealObject(container, leaves)
  fs.rmSync(path)
  t.equal(store.get(leaves[0]?.cid as Leaf['cid']), undefined)
  t.notOk(store.has(leaves[1]?.cid as Leaf['cid']))
})

t.test('an object dropped in a transaction that fails stays', async t => {
  const store = await openStore(t)
  const { container, path } = writeObject(store, 'o', 1)
  const drop = (): void =>
    store.transaction(() => {
      store.dropObject(container)
      throw new Error('no')
    })
  t.throws(drop, { message: 'no' })
  await store.flush()
  t.same(store.unsealedObjects(), [container])
  t.ok(fs.existsSync(path))
})
