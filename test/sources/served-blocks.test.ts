import { readFile } from 'node:fs/promises'
import t from 'tap'
import { type CID, cidOf } from '../../src/core/cid.js'
import { blockLocator } from '../../src/sources/served-blocks.js'
import type { Store } from '../../src/store/store.js'
import { links, openStore, putTree, rawBlock } from '../store/support.js'
import { until } from '../support/until.js'

type Serve = 'all' | 'pinned' | 'off'

function locator(store: Store, serve: Serve) {
  const { locate } = blockLocator(store, serve, links)
  return async (...cids: CID[]) => locate!({ cids: cids.map(cid => cid.bytes) }, new AbortController().signal)
}

t.test('a held block is where it says, in the file that it names', async t => {
  const store = await openStore(t)
  const block = rawBlock('a', 5_000)
  store.put(block.cid, block.bytes)
  const [place] = await locator(store, 'all')(block.cid)
  const file = await readFile(place!.path)
  t.same(Uint8Array.from(file.subarray(place!.offset, place!.offset + place!.length)), block.bytes)
})

t.test('what is not held, and what needs no store, is nowhere', async t => {
  const store = await openStore(t)
  const identity = cidOf(0x55, Uint8Array.of(1))
  t.same(await locator(store, 'all')(rawBlock('none').cid, identity), [null, null])
})

t.test('with "off" nothing is served, with "pinned" what pins reach', async t => {
  const store = await openStore(t)
  const { root, blocks } = putTree(store, 'tree', 3)
  const cached = rawBlock('cached')
  store.put(cached.cid, cached.bytes)
  store.pins.add(root, 'test')
  const cids = [...blocks.map(({ cid }) => cid), cached.cid]
  t.ok((await locator(store, 'off')(...cids)).every(place => place === null))
  const places = await locator(store, 'pinned')(...cids)
  t.same(places.map(Boolean), [...blocks.map(() => true), false])
})

t.test('what is pinned later is served when the pins are looked at again', async t => {
  const store = await openStore(t)
  const block = rawBlock('late')
  store.put(block.cid, block.bytes)
  const times = { maxAgeMs: 20 }
  const { locate } = blockLocator(store, 'pinned', links, times)
  const ask = async () => (await locate!({ cids: [block.cid.bytes] }, new AbortController().signal))[0]
  t.equal(await ask(), null)
  store.pins.add(block.cid, 'test')
  t.ok(await until('it is served', async () => (await ask()) !== null))
  store.pins.remove(block.cid, 'test')
  t.ok(await until('it is not any more', async () => (await ask()) === null))
})

t.test('a question with too many CIDs is cut', async t => {
  const store = await openStore(t)
  const { cid } = rawBlock('a')
  t.equal((await locator(store, 'all')(...Array.from({ length: 5_000 }, () => cid))).length, 1024)
})
