import t from 'tap'
import { Store } from '../../src/store/store.js'
import { tempDir } from '../support/temp.js'
import { node, openStore, QUIET, rawBlock } from './support.js'

const listed = (store: Store, after = 0) => [...store.roots.list(after)].map(({ cid }) => cid.toString())

t.test('a root is listed when it is pinned or held, not when it was only asked for', async t => {
  const store = await openStore(t)
  const [a, b, c] = [rawBlock('a').cid, rawBlock('b').cid, rawBlock('c').cid]
  for (const cid of [a, b, c]) store.roots.note(cid)
  t.same(listed(store), [])
  store.roots.markHeld(b, true)
  store.pins.add(a, 'me')
  t.same(listed(store), [a, b].map(String))
  store.roots.markHeld(a, true)
  store.pins.remove(a, 'me')
  t.same(listed(store), [a, b].map(String), 'still held')
  store.roots.markHeld(a, false)
  t.same(listed(store), [b.toString()])
  t.ok(store.roots.isListed(b))
  t.notOk(store.roots.isListed(c))
})

t.test('a listing goes on behind a cookie, which no change of other roots moves', async t => {
  const store = await openStore(t)
  const cids = Array.from({ length: 600 }, (_, i) => rawBlock(i).cid)
  for (const cid of cids) store.roots.markHeld(cid, true)
  const all = [...store.roots.list()]
  t.same(
    all.map(({ cid }) => cid.toString()),
    cids.map(String),
    'in the order of noting',
  )
  t.ok(all.every(({ seq }, i) => i === 0 || seq > (all[i - 1]?.seq ?? 0)))
  const half = all[299]
  for (const cid of cids.slice(100, 300)) store.roots.markHeld(cid, false)
  store.roots.markHeld(rawBlock('late').cid, true)
  t.same(listed(store, half?.seq), [...cids.slice(300), rawBlock('late').cid].map(String))
})

t.test('numbers are never used again, also after a reopen', async t => {
  const dir = await tempDir(t)
  const store = await Store.open(dir, QUIET)
  store.roots.markHeld(rawBlock('a').cid, true)
  const [first] = [...store.roots.list()]
  store.roots.markHeld(rawBlock('a').cid, false)
  await store.close()
  const again = await openStore(t, QUIET, dir)
  again.roots.markHeld(rawBlock('a').cid, true)
  const [second] = [...again.roots.list()]
  t.ok((second?.seq ?? 0) > (first?.seq ?? 0))
})

t.test('a root is listed as it was first spelled', async t => {
  const store = await openStore(t)
  const { cid } = node([], 'x')
  store.roots.note(cid.toV0())
  store.roots.markHeld(cid, true)
  store.pins.add(cid, 'me')
  t.same(listed(store), [cid.toV0().toString()])
})
