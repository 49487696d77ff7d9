import * as fs from 'node:fs'
import t from 'tap'
import type { CID } from '../../src/core/cid.js'
import { fsck } from '../../src/store/fsck.js'
import type { Store } from '../../src/store/store.js'
import { openStore, packFiles, rawBlock } from './support.js'

const blocks = Array.from({ length: 600 }, (_, i) => rawBlock(i, 500))

function corrupt(store: Store, cid: CID): void {
  const { offset } = store.locate(cid) as { offset: number }
  const fd = fs.openSync(packFiles(store)[0] as string, 'r+')
  fs.writeSync(fd, Buffer.from('!'), 0, 1, offset + 10)
  fs.closeSync(fd)
}

t.test('a sound store is sound', async t => {
  const store = await openStore(t)
  store.putMany(blocks)
  const seen: number[] = []
  const result = await fsck(store, { onProgress: progress => seen.push(progress.blocks) })
  t.same(result, { blocks: 600, bytes: 300_000, bad: [] })
  t.equal(seen.at(-1), 600)
})

t.test('a block whose bytes changed is found, and removed when asked to', async t => {
  const store = await openStore(t)
  store.putMany(blocks)
  const victim = blocks[123]?.cid as CID
  corrupt(store, victim)
  const found = await fsck(store)
  t.equal(found.bad.length, 1)
  t.match(found.bad[0], { reason: 'mismatch', location: store.locate(victim) as object })
  t.same(found.bad[0]?.cid.multihash.bytes, victim.multihash.bytes)
  t.ok(store.has(victim), 'a look changes nothing')
  t.equal((await fsck(store, { repair: true })).bad.length, 1)
  t.notOk(store.has(victim))
  t.same((await fsck(store)).bad, [])
  store.put(victim, blocks[123]?.bytes as Uint8Array)
  t.same(store.get(victim), blocks[123]?.bytes)
})

t.test('blocks whose file is cut are missing', async t => {
  const store = await openStore(t)
  store.putMany(blocks)
  const last = blocks.at(-1)?.cid as CID
  fs.truncateSync(packFiles(store)[0] as string, (store.locate(last)?.offset as number) + 100)
  const result = await fsck(store, { repair: true })
  t.match(result.bad, [{ reason: 'missing' }])
  t.notOk(store.has(last))
})

t.test('it can be interrupted', async t => {
  const store = await openStore(t)
  store.putMany(Array.from({ length: 3000 }, (_, i) => rawBlock(i, 10_000)))
  const abort = new AbortController()
  setImmediate(() => abort.abort())
  await t.rejects(fsck(store, { signal: abort.signal }), { code: 'INTERRUPTED' })
})
