import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import type { MultihashDigest } from 'multiformats'
import t from 'tap'
import { CID, CODEC_RAW, cidOf, Digest, HASH_IDENTITY } from '../../src/core/cid.js'
import { codeOf } from '../../src/core/errors.js'
import { Store } from '../../src/store/store.js'
import { tempDir } from '../support/temp.js'
import { descriptorsBelow, openStore, packFiles, QUIET, rawBlock } from './support.js'

t.test('a block that was put is found, located and read, also after a reopen', async t => {
  const dir = join(await tempDir(t), 'state')
  const first = await Store.open(dir, QUIET)
  const blocks = [rawBlock('a'), rawBlock('b', 10_000), rawBlock('empty', 0)]
  for (const { cid, bytes } of blocks) t.ok(first.put(cid, bytes))
  t.notOk(first.has(rawBlock('c').cid))
  t.equal(first.get(rawBlock('c').cid), undefined)
  for (const { cid, bytes } of blocks) t.same(first.get(cid), bytes)
  await first.close()
  const second = await openStore(t, QUIET, dir)
  for (const { cid, bytes } of blocks) {
    t.ok(second.has(cid))
    t.same(second.get(cid), bytes)
    t.equal(second.locate(cid)?.length, bytes.length)
  }
})

t.test('a block is found by its multihash, whatever codec or version the CID has', async t => {
  const store = await openStore(t)
  const { cid, bytes } = rawBlock('x')
  store.put(CID.createV0(cid.multihash as MultihashDigest<18>), bytes)
  t.ok(store.has(cid))
  t.ok(store.has(CID.createV1(0x71, cid.multihash)))
})

t.test('identity CIDs are answered from the digest and never stored', async t => {
  const store = await openStore(t)
  const cid = CID.createV1(CODEC_RAW, Digest.create(HASH_IDENTITY, Buffer.from('hi')))
  t.equal(store.put(cid, Buffer.from('hi')), undefined)
  store.putMany([{ cid, bytes: Buffer.from('hi') }])
  t.ok(store.has(cid))
  t.equal(Buffer.from(store.get(cid) as Uint8Array).toString(), 'hi')
  t.equal(store.usage().blocks, 0)
})

t.test('a block is stored once', async t => {
  const store = await openStore(t)
  const a = rawBlock('a')
  const b = rawBlock('b')
  const location = store.put(a.cid, a.bytes)
  store.putMany([a, b, b, a])
  t.same(store.put(a.cid, a.bytes), location)
  t.same(store.locate(a.cid), location)
  t.equal(store.usage().blocks, 2)
  const size = fs.statSync(packFiles(store)[0] as string).size
  store.putMany([a, b])
  t.equal(fs.statSync(packFiles(store)[0] as string).size, size)
})

t.test('any thread may read a block by pread from an acquired descriptor', async t => {
  const store = await openStore(t)
  const { cid, bytes } = rawBlock('a', 5000)
  const location = store.put(cid, bytes) as NonNullable<ReturnType<Store['put']>>
  const fd = store.acquire(location.container)
  const read = Buffer.alloc(location.length)
  fs.readSync(fd, read, 0, read.length, location.offset)
  store.release(location.container)
  t.same(new Uint8Array(read), bytes)
  t.throws(() => store.acquire(999), { code: 'IO' })
})

t.test('a transaction that throws leaves nothing in the index', async t => {
  const store = await openStore(t)
  const a = rawBlock('a')
  t.throws(() => {
    store.transaction(() => {
      store.put(a.cid, a.bytes)
      store.pins.add(a.cid, 'me')
      store.env.putSync('mine', 1)
      t.ok(store.has(a.cid), 'it is visible inside')
      throw new Error('no')
    })
  }, /no/)
  t.notOk(store.has(a.cid))
  t.notOk(store.pins.has(a.cid))
  t.equal(store.env.get('mine'), undefined)
  store.put(a.cid, a.bytes)
  t.same(store.get(a.cid), a.bytes)
})

t.test('a transaction cannot be asynchronous', async t => {
  const store = await openStore(t)
  t.throws(() => store.transaction(async () => {}), { code: 'INVALID' })
  const { cid, bytes } = rawBlock('a')
  store.put(cid, bytes)
  t.ok(store.has(cid))
})

t.test('a pack that reached its size is closed and a new one begun', async t => {
  const dir = join(await tempDir(t), 'state')
  const store = await Store.open(dir, { ...QUIET, packMaxBytes: 10_000 })
  const blocks = Array.from({ length: 100 }, (_, i) => rawBlock(i, 1000))
  for (const { cid, bytes } of blocks.slice(0, 50)) store.put(cid, bytes)
  store.putMany(blocks.slice(50))
  t.equal(packFiles(store).length, 10)
  for (const file of packFiles(store)) t.ok(fs.statSync(file).size < 12_000)
  await store.close()
  const again = await openStore(t, QUIET, dir)
  for (const { cid, bytes } of blocks) t.same(again.get(cid), bytes)
})

t.test('descriptors are bounded by the cache plus those in use', async t => {
  const store = await openStore(t, { ...QUIET, packMaxBytes: 2000, maxDescriptors: 4 })
  const blocks = Array.from({ length: 30 }, (_, i) => rawBlock(i, 2000))
  store.putMany(blocks)
  const containers = blocks.map(({ cid }) => store.locate(cid)?.container as number)
  t.equal(new Set(containers).size, 30)
  const packs = join(store.path, 'packs')
  const writing = descriptorsBelow(packs)
  for (const { cid } of blocks) store.get(cid)
  t.equal(descriptorsBelow(packs) - writing, 4)
  const held = containers.slice(0, 10).map(container => store.acquire(container))
  for (const { cid } of blocks) store.get(cid)
  t.equal(descriptorsBelow(packs) - writing, 14)
  for (const fd of held) t.ok(fs.fstatSync(fd).size > 0, 'an acquired descriptor stays open')
  for (const container of containers.slice(0, 10)) store.release(container)
  for (const { cid } of blocks) store.get(cid)
  t.equal(descriptorsBelow(packs) - writing, 4)
  t.throws(() => store.release(containers[0] as number), /released more often/)
  await store.close()
  t.equal(descriptorsBelow(store.path), 0, 'nothing stays open after close')
})

t.test('a descriptor acquired before close stays open until it is released', async t => {
  const store = await openStore(t)
  const { cid, bytes } = rawBlock('a')
  const location = store.put(cid, bytes)
  const fd = store.acquire(location?.container as number)
  await store.close()
  t.ok(fs.fstatSync(fd).size > 0)
  store.release(location?.container as number)
  t.throws(() => fs.fstatSync(fd), { code: 'EBADF' })
})

t.test('two stores on one directory: the second is told who has it', async t => {
  const store = await openStore(t)
  await t.rejects(Store.open(store.path), {
    code: 'STATE_IN_USE',
    message: new RegExp(`${store.path} is in use by process ${process.pid}`),
  })
  const { cid, bytes } = rawBlock('a')
  store.put(cid, bytes)
  t.ok(store.has(cid), 'the first goes on')
  await store.close()
  await openStore(t, QUIET, store.path)
})

t.test('a newer version is refused and nothing is changed', async t => {
  const dir = await tempDir(t)
  fs.writeFileSync(join(dir, 'version'), '{"version":7}')
  await t.rejects(Store.open(dir), {
    code: 'STATE_VERSION',
    message: /state version 7, this cidfs knows version 1: use a newer cidfs/,
  })
  t.same(fs.readdirSync(dir), ['version'])
  t.equal(fs.readFileSync(join(dir, 'version'), 'utf8'), '{"version":7}')
})

t.test('everything in the state directory is for its owner only', async t => {
  const store = await openStore(t)
  const { cid, bytes } = rawBlock('a')
  store.put(cid, bytes)
  const { path } = store.createObject()
  const others = execFileSync('find', [store.path, '-perm', '/077'], { encoding: 'utf8' })
  t.equal(others, '')
  t.ok(path.startsWith(store.path))
})

t.test('damage is named clearly', async t => {
  const cases: [name: string, damage: (dir: string) => void, message: RegExp][] = [
    ['the version is garbage', dir => fs.writeFileSync(join(dir, 'version'), 'x'), /does not tell a version/],
    ['the version is missing', dir => fs.rmSync(join(dir, 'version')), /no file 'version'/],
    ['the index is missing', dir => fs.rmSync(join(dir, 'index.lmdb')), /index.lmdb is damaged/],
    ['the index is empty', dir => fs.truncateSync(join(dir, 'index.lmdb')), /index.lmdb is damaged/],
    ['the index is cut', dir => fs.truncateSync(join(dir, 'index.lmdb'), 20_000), /index.lmdb is damaged/],
    [
      'the index is garbage',
      dir => fs.writeFileSync(join(dir, 'index.lmdb'), Buffer.alloc(1_000_000, 7)),
      /index.lmdb is damaged/,
    ],
  ]
  for (const [name, damage, message] of cases) {
    const dir = join(await tempDir(t), 'state')
    const store = await Store.open(dir, QUIET)
    store.putMany(Array.from({ length: 1000 }, (_, i) => rawBlock(i)))
    await store.close()
    damage(dir)
    await t.rejects(Store.open(dir), { code: 'STORE_DAMAGED', message }, name)
    await t.rejects(Store.open(dir), { code: 'STORE_DAMAGED' }, `${name}: the lock was given back`)
  }
})

t.test('blocks whose file is missing or short are not held any more, the others are', async t => {
  const dir = join(await tempDir(t), 'state')
  const blocks = Array.from({ length: 30 }, (_, i) => rawBlock(i, 1000))
  const store = await Store.open(dir, { ...QUIET, packMaxBytes: 5000 })
  for (const { cid, bytes } of blocks) store.put(cid, bytes)
  const [first, second] = [0, 1].map(i => blocks.filter(b => store.locate(b.cid)?.container === i + 1))
  fs.rmSync(join(dir, 'packs', '1.car'))
  fs.truncateSync(join(dir, 'packs', '2.car'), 2500)
  for (const { cid } of first ?? []) t.equal(store.get(cid), undefined)
  for (const { cid } of first ?? []) t.notOk(store.has(cid))
  const readable = (second ?? []).filter(({ cid }) => store.get(cid) !== undefined)
  t.equal(readable.length, 2)
  t.equal((second ?? []).filter(({ cid }) => store.has(cid)).length, 2)
  const lost = first?.[0] as (typeof blocks)[0]
  store.put(lost.cid, lost.bytes)
  t.same(store.get(lost.cid), lost.bytes, 'it can be put again')
  await store.close()
  const again = await openStore(t, QUIET, dir)
  t.equal(blocks.filter(({ cid }) => again.get(cid) !== undefined).length, 30 - 5 - 3 + 1)
})

const needsRoot = process.getuid?.() === 0 ? false : 'needs root to mount a small tmpfs'

t.test('a full disk is NO_SPACE, and what was kept before stays readable', { skip: needsRoot }, async t => {
  const dir = await tempDir(t)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', dir])
  t.teardown(() => execFileSync('umount', [dir]))
  const store = await Store.open(dir, QUIET)
  t.teardown(() => store.close().catch(() => {}))
  const blocks = Array.from({ length: 40 }, (_, i) => rawBlock(i, 1_048_576))
  let kept = 0
  t.throws(
    () => {
      for (; kept < blocks.length; kept++)
        store.put(blocks[kept]?.cid as CID, blocks[kept]?.bytes as Uint8Array)
    },
    { code: 'NO_SPACE' },
  )
  t.ok(kept > 5 && kept < 16, `${kept} blocks fitted`)
  const intact = (from: Store) =>
    blocks.filter(b => Buffer.compare(from.get(b.cid) ?? Buffer.alloc(0), b.bytes) === 0)
  t.equal(intact(store).length, kept)
  t.throws(() => store.putMany(blocks.slice(kept)), { code: 'NO_SPACE' })
  t.equal(intact(store).length, kept)
  t.equal(blocks.filter(({ cid }) => store.has(cid)).length, kept)
  await store.close().catch(err => t.equal(codeOf(err), 'NO_SPACE'))
  const again = await Store.open(dir, QUIET)
  t.teardown(() => again.close().catch(() => {}))
  t.equal(intact(again).length, kept)
})

t.test('flushes may overlap and all resolve', async t => {
  const store = await openStore(t)
  const flushes: Promise<void>[] = []
  for (let i = 0; i < 20; i++) {
    const { cid, bytes } = rawBlock(i)
    store.put(cid, bytes)
    flushes.push(store.flush())
    if (i % 5 === 0) await new Promise(resolve => setImmediate(resolve))
  }
  await Promise.all(flushes)
  t.same(store.containers.unsynced(), [])
})

t.test('usage tells packs, objects, index and blocks', async t => {
  const store = await openStore(t)
  store.putMany([rawBlock('a', 1000), rawBlock('b', 1000)])
  const { container, path } = store.createObject()
  fs.writeFileSync(path, Buffer.alloc(500, 1))
  t.equal(store.usage().objects.count, 0)
  const cid = cidOf(CODEC_RAW, Buffer.alloc(500, 1))
  store.sealObject(container, [{ cid, offset: 0, length: 500 }])
  const usage = store.usage()
  t.same(usage.objects, { count: 1, bytes: 500 })
  t.equal(usage.packs.count, 1)
  t.ok(usage.packs.bytes > 2000 && usage.packs.bytes < 2200)
  t.equal(usage.blocks, 3)
  t.ok(usage.indexBytes > 0)
})
