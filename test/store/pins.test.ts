import t from 'tap'
import { CID, CODEC_DAG_PB } from '../../src/core/cid.js'
import { Store } from '../../src/store/store.js'
import { tempDir } from '../support/temp.js'
import { node, openStore, QUIET, rawBlock } from './support.js'

const names = (store: Store) => [...store.pins.list()].map(({ cid, owners }) => [cid.toString(), owners])

t.test('a pin is gone when its last owner goes', async t => {
  const { pins } = await openStore(t)
  const { cid } = rawBlock('a')
  t.notOk(pins.has(cid))
  pins.add(cid, 'one')
  pins.add(cid, 'two')
  pins.add(cid, 'two')
  t.same(pins.owners(cid), ['one', 'two'])
  t.ok(pins.remove(cid, 'two'))
  t.notOk(pins.remove(cid, 'two'), 'it had gone')
  t.ok(pins.has(cid))
  t.ok(pins.remove(cid, 'one'))
  t.notOk(pins.has(cid))
  t.same(pins.owners(cid), [])
})

t.test('pins survive a reopen and are listed once each, as they were given', async t => {
  const dir = await tempDir(t)
  const store = await Store.open(dir, QUIET)
  const v0 = node([rawBlock('a').cid]).cid.toV0()
  const others = Array.from({ length: 600 }, (_, i) => rawBlock(i).cid)
  store.pins.add(v0, 'ä owner with spaces')
  for (const cid of others) {
    store.pins.add(cid, 'first')
    store.pins.add(cid, 'second')
  }
  await store.close()
  const again = await openStore(t, QUIET, dir)
  const listed = names(again)
  t.equal(listed.length, 601)
  t.same(
    listed.find(([cid]) => cid === v0.toString()),
    [v0.toString(), ['ä owner with spaces']],
  )
  t.ok(listed.filter(([cid]) => cid !== v0.toString()).every(([, owners]) => owners?.length === 2))
})

t.test('versions name the same DAG, codecs do not', async t => {
  const { pins } = await openStore(t)
  const { cid } = node([], 'x')
  pins.add(cid.toV0(), 'me')
  t.ok(pins.has(cid))
  t.notOk(pins.has(CID.createV1(0x55, cid.multihash)))
  t.ok(pins.has(CID.createV1(CODEC_DAG_PB, cid.multihash)))
})

t.test('one owner is not taken for another that begins alike', async t => {
  const { pins } = await openStore(t)
  const { cid } = rawBlock('a')
  pins.add(cid, 'owner')
  t.notOk(pins.remove(cid, 'own'))
  t.notOk(pins.remove(cid, 'owner2'))
  t.ok(pins.has(cid))
})

t.test('an owner has a name of a sensible length', async t => {
  const { pins } = await openStore(t)
  const { cid } = rawBlock('a')
  t.throws(() => pins.add(cid, ''), { code: 'INVALID' })
  t.throws(() => pins.add(cid, 'x'.repeat(2000)), { code: 'INVALID' })
})

t.test('pins take part in a transaction', async t => {
  const store = await openStore(t)
  const [old, fresh] = [rawBlock('old').cid, rawBlock('new').cid]
  store.pins.add(old, 'file')
  const swap = (fail: boolean) =>
    store.transaction(() => {
      store.pins.add(fresh, 'file')
      store.pins.remove(old, 'file')
      t.ok(store.pins.has(fresh) && !store.pins.has(old), 'visible inside')
      if (fail) throw new Error('no')
    })
  t.throws(() => swap(true), /no/)
  t.same(names(store), [[old.toString(), ['file']]])
  t.ok(store.roots.isListed(old))
  t.notOk(store.roots.isListed(fresh))
  swap(false)
  t.same(names(store), [[fresh.toString(), ['file']]])
})
