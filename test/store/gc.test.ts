import * as fs from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { CID } from '../../src/core/cid.js'
import { fsck } from '../../src/store/fsck.js'
import { gc } from '../../src/store/gc.js'
import type { Block } from '../../src/store/packs.js'
import { Store } from '../../src/store/store.js'
import { completeness } from '../../src/store/walk.js'
import { tempDir } from '../support/temp.js'
import { links, openStore, packFiles, putTree, QUIET, rawBlock } from './support.js'

const SMALL_PACKS = { ...QUIET, packMaxBytes: 20_000 }

function held(store: Store, blocks: Block[]): number {
  return blocks.filter(({ cid, bytes }) => Buffer.compare(store.get(cid) ?? Buffer.alloc(0), bytes) === 0)
    .length
}

/** A sealed object of `count` leaves. */
function putObject(
  store: Store,
  name: string,
  count: number,
): { container: number; path: string; blocks: Block[] } {
  const { container, path } = store.createObject()
  const blocks = Array.from({ length: count }, (_, i) => rawBlock(`${name}-${i}`, 1000))
  fs.writeFileSync(path, Buffer.concat(blocks.map(({ bytes }) => bytes)))
  store.sealObject(
    container,
    blocks.map(({ cid }, i) => ({ cid, offset: i * 1000, length: 1000 })),
  )
  return { container, path, blocks }
}

t.test('what is pinned stays, the rest goes with its files, also over a reopen', async t => {
  const dir = join(await tempDir(t), 'state')
  const store = await Store.open(dir, SMALL_PACKS)
  const kept = putTree(store, 'kept', 30, 1000)
  const dropped = putTree(store, 'dropped', 100, 1000)
  const keptObject = putObject(store, 'ko', 3)
  const droppedObject = putObject(store, 'do', 3)
  store.pins.add(kept.root, 'me')
  store.pins.add(keptObject.blocks[1]?.cid as CID, 'me')
  const before = store.usage()
  const result = await gc(store, { links })
  t.equal(held(store, kept.blocks), 31)
  t.equal(held(store, keptObject.blocks), 3, 'a sealed object with one wanted leaf stays whole')
  t.equal(dropped.blocks.filter(({ cid }) => store.has(cid)).length < 20, true)
  t.equal(held(store, droppedObject.blocks), 0)
  t.notOk(fs.existsSync(droppedObject.path))
  t.equal(result.objects, 1)
  const after = store.usage()
  t.equal(
    before.packs.bytes + before.objects.bytes - after.packs.bytes - after.objects.bytes,
    result.freedBytes,
  )
  t.equal(packFiles(store).length, after.packs.count)
  await store.close()
  const again = await openStore(t, SMALL_PACKS, dir)
  t.equal(held(again, kept.blocks), 31)
  t.same((await fsck(again)).bad, [])
})

t.test('wanted blocks of packs that are mostly dead are carried forward', async t => {
  const store = await openStore(t, SMALL_PACKS)
  const wanted: Block[] = []
  for (let i = 0; i < 200; i++) {
    const block = rawBlock(i, 1000)
    store.put(block.cid, block.bytes)
    if (i % 10 !== 0) continue
    store.pins.add(block.cid, 'me')
    wanted.push(block)
  }
  const result = await gc(store, { links })
  t.equal(held(store, wanted), 20)
  t.equal(result.copiedBytes, 20_000)
  t.equal(result.liveBytes, 20_000)
  t.ok(packFiles(store).length <= 3, `${packFiles(store).length} packs are left`)
  t.equal(store.usage().blocks, 20, 'the index is tidy')
  const again = await gc(store, { links })
  t.equal(again.copiedBytes, 0, 'nothing is left to do')
  t.equal(held(store, wanted), 20)
})

t.test('what is carried forward from a large pack is what was in it', async t => {
  const store = await openStore(t, QUIET)
  const wanted: Block[] = []
  for (let i = 0; i < 240; i++) {
    const block = rawBlock(i, i % 4 === 0 ? 500 : 64 * 1024) // several windows of the reader in all
    store.put(block.cid, block.bytes)
    if (i % 4 !== 0) continue
    wanted.push(block)
    store.pins.add(block.cid, 'me')
  }
  t.equal((await gc(store, { links })).packs, 1)
  t.equal(held(store, wanted), wanted.length)
  t.same((await fsck(store)).bad, [])
})

t.test('roots and containers that the caller names stay', async t => {
  const store = await openStore(t, SMALL_PACKS)
  const tree = putTree(store, 'tree', 10, 1000)
  const object = putObject(store, 'o', 2)
  const other = putObject(store, 'p', 2)
  const open = store.createObject()
  fs.writeFileSync(open.path, 'being written')
  await gc(store, { links, roots: [tree.root], keepContainers: [object.container] })
  t.equal(held(store, tree.blocks), 11)
  t.equal(held(store, object.blocks), 2)
  t.equal(held(store, other.blocks), 0)
  t.ok(fs.existsSync(open.path), 'an object that is not sealed is none of its business')
})

t.test('what is pinned or put again while it runs stays', async t => {
  const store = await openStore(t, SMALL_PACKS)
  const late = putTree(store, 'late', 40, 1000)
  const again = putTree(store, 'again', 40, 1000)
  const marker = putTree(store, 'marker', 30, 10)
  const fresh = rawBlock('fresh', 1000)
  store.pins.add(marker.root, 'me')
  let calls = 0
  // in the middle of the mark
  const meddling: typeof links = (cid, bytes) => {
    if (++calls === 1) {
      store.pins.add(late.root, 'me')
      store.putMany(again.blocks)
      store.put(fresh.cid, fresh.bytes)
    }
    return links(cid, bytes)
  }
  await gc(store, { links: meddling })
  t.ok(calls > 1)
  t.equal(held(store, late.blocks), 41)
  t.equal(held(store, again.blocks), 41)
  t.equal(held(store, [fresh]), 1)
})

t.test('what is pinned or put again while packs are rewritten stays', async t => {
  const store = await openStore(t, SMALL_PACKS)
  const blocks = Array.from({ length: 200 }, (_, i) => rawBlock(i, 1000))
  store.putMany(blocks)
  for (const { cid } of blocks.filter((_, i) => i % 10 === 0)) store.pins.add(cid, 'me')
  const collecting = gc(store, { links })
  const wanted = blocks.filter((_, i) => i % 10 < 2)
  for (let running = true; running; ) {
    for (const { cid, bytes } of wanted) store.put(cid, bytes)
    running = await Promise.race([
      collecting.then(() => false),
      new Promise<boolean>(r => setImmediate(() => r(true))),
    ])
  }
  t.equal(held(store, wanted), 40)
})

t.test('one run at a time', async t => {
  const store = await openStore(t, SMALL_PACKS)
  const first = gc(store, { links })
  await t.rejects(gc(store, { links }), { code: 'BUSY' })
  await first
  await gc(store, { links })
})

t.test('it stops when enough is freed', async t => {
  const store = await openStore(t, SMALL_PACKS)
  putTree(store, 'a', 200, 1000)
  const before = packFiles(store).length
  const result = await gc(store, { links, freeBytes: 30_000 })
  t.ok(result.freedBytes >= 30_000 && result.freedBytes < 90_000, `${result.freedBytes} bytes freed`)
  t.ok(packFiles(store).length < before && packFiles(store).length > 2)
})

t.test('an interrupted run leaves a whole store', async t => {
  const store = await openStore(t, SMALL_PACKS)
  const kept = putTree(store, 'kept', 20, 1000)
  putTree(store, 'dropped', 500, 1000)
  store.pins.add(kept.root, 'me')
  const abort = new AbortController()
  const run = gc(store, { links, signal: abort.signal, onProgress: () => abort.abort() })
  await run.then(
    () => t.pass(),
    err => t.equal(err.code, 'INTERRUPTED'),
  )
  t.equal(held(store, kept.blocks), 21)
  await gc(store, { links })
  t.equal(held(store, kept.blocks), 21)
})

t.test('a crash at any step of it loses nothing that is wanted', async t => {
  const store = await openStore(t, SMALL_PACKS)
  const wanted: Block[] = []
  for (let i = 0; i < 200; i++) {
    const block = rawBlock(i, 1000)
    store.put(block.cid, block.bytes)
    if (i % 15 === 0) wanted.push(block)
  }
  for (const { cid } of wanted) store.pins.add(cid, 'me')
  const root = await tempDir(t)
  let copies = 0
  const onProgress = () => fs.cpSync(store.path, join(root, `${copies++}`), { recursive: true })
  await store.flush()
  onProgress()
  await gc(store, { links, onProgress })
  t.ok(copies > 3)
  for (let i = 0; i < copies; i++) {
    for (const bootId of [undefined, 'another boot']) {
      const dir = join(root, `${i}-${bootId}`)
      fs.cpSync(join(root, `${i}`), dir, { recursive: true })
      const crashed = await Store.open(dir, bootId === undefined ? QUIET : { ...QUIET, bootId })
      t.equal(held(crashed, wanted), wanted.length)
      await crashed.close()
    }
  }
})

t.test('a pack whose wanted blocks cannot all be read is not removed', async t => {
  const store = await openStore(t, SMALL_PACKS)
  const blocks = Array.from({ length: 15 }, (_, i) => rawBlock(i, 1000))
  for (const { cid, bytes } of blocks) store.put(cid, bytes)
  for (const { cid } of [blocks[0], blocks[14]] as Block[]) store.pins.add(cid, 'me')
  const fd = fs.openSync(packFiles(store)[0] as string, 'r+')
  const hole = store.locate(blocks[7]?.cid as CID)?.offset as number
  fs.writeSync(fd, Buffer.alloc(100), 0, 100, hole - 50)
  fs.closeSync(fd)
  await gc(store, { links })
  t.equal(held(store, [blocks[0], blocks[14]] as Block[]), 2)
})

t.test('roots that are not whole any more are not listed any more', async t => {
  const store = await openStore(t, SMALL_PACKS)
  const gone = putTree(store, 'gone', 40, 1000)
  const kept = putTree(store, 'kept', 5, 1000)
  for (const { root } of [gone, kept]) store.roots.markHeld(root, true)
  store.pins.add(kept.root, 'me')
  await gc(store, { links })
  t.notOk((await completeness(store, gone.root, links)).held)
  t.same(
    [...store.roots.list()].map(({ cid }) => cid.toString()),
    [kept.root.toString()],
  )
})
