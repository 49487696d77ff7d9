/** The bytes of staged files: written, cut, copied on write, and where they lie. */
import { readFileSync, statSync } from 'node:fs'
import t from 'tap'
import type { CopyContent } from '../../src/staging/copy-content.js'
import { descriptorsBelow } from '../store/support.js'
import { until } from '../support/until.js'
import { codeRejected, codeThrown } from '../unixfs/support.js'
import { bytes, content, PUNCH_HOLE, ROOT, Stage } from './support.js'

const MIB = 1024 * 1024

t.test('what was written is read back, in and behind the middle', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = stage.create('file')
  const { contents } = stage.staging
  t.equal(await contents.write(ino, 0, bytes('hello world'), false), 11)
  t.equal(await contents.write(ino, 6, bytes('WORLD!'), false), 6)
  t.same(Buffer.from(await stage.read(ino)).toString(), 'hello WORLD!')
  t.equal(stage.node(ino).sizeBytes, 12)
  stage.staging.close(ino, true)
})

t.test('an append goes to the end, whatever offset the kernel thinks', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = await stage.write('file', 'one')
  stage.staging.open(ino, true, false)
  await stage.staging.contents.write(ino, 0, bytes(' two'), true)
  await stage.staging.contents.write(ino, 1, bytes(' three'), true)
  stage.staging.close(ino, true)
  t.same(Buffer.from(await stage.read(ino)).toString(), 'one two three')
})

t.test('a hole reads as zeros, and seeks find it', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = stage.create('file')
  await stage.staging.contents.write(ino, 4 * MIB, bytes('end'), false)
  t.equal(stage.node(ino).sizeBytes, 4 * MIB + 3)
  const found = await stage.read(ino)
  t.ok(found.subarray(0, 4 * MIB).every(byte => byte === 0))
  t.equal(stage.staging.contents.seek(ino, 0, 3), 4 * MIB, 'SEEK_DATA')
  t.equal(stage.staging.contents.seek(ino, 0, 4), 0, 'SEEK_HOLE')
  await stage.staging.contents.fallocate(ino, 4 * MIB, 4096, PUNCH_HOLE)
  t.same([...(await stage.read(ino)).subarray(4 * MIB)], [0, 0, 0], 'a punched hole too')
  stage.staging.close(ino, true)
})

t.test('truncate cuts and grows, with or without an open', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = await stage.write('file', '0123456789')
  await stage.staging.setAttributes(ino, { sizeBytes: 4 })
  t.same(Buffer.from(await stage.read(ino)).toString(), '0123')
  await stage.staging.setAttributes(ino, { sizeBytes: 6 })
  t.same([...(await stage.read(ino))], [48, 49, 50, 51, 0, 0])
  t.equal(stage.store.unsealedObjects().length, 1)
})

t.test('a size that no disk has is refused, and nothing stays held', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = await stage.write('file', 'abc')
  t.throws(() => stage.staging.setAttributes(ino, { sizeBytes: 2 ** 52 }), { code: 'EFBIG' })
  t.same(Buffer.from(await stage.read(ino)).toString(), 'abc')
  t.notOk(stage.staging.contents.isOpen(ino))
  t.equal(descriptorsBelow(`${stage.dir}/objects`), 0)
})

t.test('writing to a published file leaves what is under its CID as it was', async t => {
  for (const size of [3, 100_000, 3 * MIB + 5]) {
    const stage = await Stage.open(t)
    const data = content(size)
    const ino = await stage.write('file', data)
    const first = await stage.cid(ino)
    t.equal(stage.node(ino).object, undefined, `${size}: nothing is kept twice`)
    await stage.rewrite(ino, 'XYZ', 1)
    const changed = Buffer.concat([data.subarray(0, 1), bytes('XYZ'), data.subarray(4)])
    t.equal(Buffer.compare(await stage.read(ino), changed), 0, `${size}: the new content is complete`)
    const second = await stage.cid(ino)
    t.notOk(first.equals(second))
    t.equal(Buffer.compare(await stage.readCid(first), data), 0, `${size}: the old CID has the old bytes`)
    t.equal(Buffer.compare(await stage.readCid(second), changed), 0)
  }
})

t.test('truncating a published file to nothing copies nothing', async t => {
  const copied: string[] = []
  const copyContent: CopyContent = async cid => void copied.push(cid.toString())
  const stage = await Stage.open(t, { copyContent })
  const ino = await stage.write('file', content(200_000))
  await stage.cid(ino)
  await stage.rewrite(ino, 'new', 0, true)
  t.same(Buffer.from(await stage.read(ino)).toString(), 'new')
  t.same(copied, [])
})

t.test('writes that come during the copy wait for it and keep their order', async t => {
  const stage = await Stage.open(t)
  const data = content(9 * MIB)
  const ino = await stage.write('file', data)
  const cid = await stage.cid(ino)
  stage.staging.open(ino, true, false)
  const { contents } = stage.staging
  const buffer = Buffer.from('first')
  const pending = [contents.write(ino, 0, buffer, false)]
  buffer.fill(0) // the transport uses it for the next request
  pending.push(contents.write(ino, 3, bytes('second'), false))
  t.equal(stage.state(ino), 'writing')
  t.same(await Promise.all(pending), [5, 6])
  stage.staging.close(ino, true)
  const changed = Buffer.concat([bytes('firsecond'), data.subarray(9)])
  t.equal(Buffer.compare(await stage.read(ino), changed), 0)
  t.equal(Buffer.compare(await stage.readCid(cid), data), 0)
})

t.test('a file emptied while its copy is made stays empty', async t => {
  let release = (): void => {}
  const gate = new Promise<void>(resolve => (release = resolve))
  const copyContent: CopyContent = async (_, path) => {
    await gate
    const { writeFile } = await import('node:fs/promises')
    await writeFile(path, 'old content that is gone')
  }
  const stage = await Stage.open(t, { copyContent })
  const ino = await stage.write('file', content(1000))
  await stage.cid(ino)
  stage.staging.open(ino, true, false)
  const writing = stage.staging.contents.write(ino, 5, bytes('late'), false)
  stage.staging.open(ino, true, true)
  const rewriting = stage.staging.contents.write(ino, 0, bytes('new'), false)
  release()
  await Promise.all([writing, rewriting])
  t.equal(Buffer.from(await stage.read(ino)).toString('latin1'), 'new\0\0late')
  stage.staging.close(ino, true)
  stage.staging.close(ino, true)
  await until('the copy is dropped', () => stage.store.unsealedObjects().length <= 1)
})

t.test('a copy that fails fails the write, and keeps the file as it was', async t => {
  const copyContent: CopyContent = async () => {
    throw Object.assign(new Error('disk full'), { code: 'ENOSPC' })
  }
  const stage = await Stage.open(t, { copyContent })
  const data = content(1000)
  const ino = await stage.write('file', data)
  const cid = await stage.cid(ino)
  stage.staging.open(ino, true, false)
  await t.rejects(Promise.resolve(stage.staging.contents.write(ino, 0, bytes('x'), false)), /disk full/)
  stage.staging.close(ino, true)
  t.same(await stage.cid(ino), cid)
  t.equal(Buffer.compare(await stage.read(ino), data), 0)
  await until('no working object is left', () => stage.store.unsealedObjects().length === 0)
  await t.rejects(Promise.resolve(stage.staging.setAttributes(ino, { sizeBytes: 5 })), /disk full/)
  t.notOk(stage.staging.contents.isBeingWritten(ino))
  t.equal(stage.state(ino), 'pinned')
})

t.test('all opens share one descriptor, and the last one closes it', async t => {
  const stage = await Stage.open(t, { idle: true })
  const below = (): number => descriptorsBelow(`${stage.dir}/objects`)
  const ino = stage.create('file')
  const { contents } = stage.staging
  await contents.write(ino, 0, bytes('abc'), false)
  for (let i = 0; i < 10; i++) stage.staging.open(ino, i % 2 === 0, false)
  await contents.write(ino, 3, bytes('def'), false)
  t.equal(below(), 1)
  const reading = contents.read(ino, 0, 6)!
  for (let i = 0; i < 10; i++) stage.staging.close(ino, i % 2 === 0)
  stage.staging.close(ino, true)
  t.equal(below(), 1, 'a read that is under way keeps it')
  t.equal(readFileSync(`/proc/self/fd/${reading.range.fd}`, 'utf8'), 'abcdef')
  reading.release()
  t.equal(below(), 0)
})

t.test('a reader that has a file open keeps no descriptor on what publishing has replaced', async t => {
  const stage = await Stage.open(t)
  const ino = await stage.write('file', 'small')
  stage.staging.open(ino, false, false)
  stage.staging.contents.read(ino, 0, 5)?.release()
  await stage.cid(ino)
  t.equal(descriptorsBelow(`${stage.dir}/objects`), 0)
  t.equal(Buffer.from(await stage.read(ino)).toString(), 'small')
  stage.staging.close(ino, false)
})

t.test('fsync reaches bytes that somebody else wrote and closed', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = await stage.write('file', content(100_000))
  stage.staging.contents.saveAll()
  t.equal(descriptorsBelow(`${stage.dir}/objects`), 0)
  stage.staging.open(ino, false, false)
  const syncing = stage.staging.sync(ino)
  t.equal(descriptorsBelow(`${stage.dir}/objects`), 1, 'the file is opened for it')
  await syncing
  stage.staging.close(ino, false)
  t.equal(descriptorsBelow(`${stage.dir}/objects`), 0)
  await stage.staging.sync(ROOT) // of a directory: only names
})

t.test('directories and symlinks have no bytes', async t => {
  const stage = await Stage.open(t, { idle: true })
  const dir = stage.mkdir('dir')
  const link = stage.staging.createSymlink(ROOT, bytes('link'), bytes('x'), { uid: 0, gid: 0 }).ino
  t.equal(await codeRejected(() => stage.staging.contents.write(dir, 0, bytes('x'), false)), 'IS_DIRECTORY')
  t.equal(
    codeThrown(() => stage.staging.open(link, false, false)),
    'INVALID',
  )
  t.equal(
    codeThrown(() => stage.staging.open(4711, false, false)),
    'STALE',
  )
})

t.test('sizes and times on record follow within a moment, without a close', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = stage.create('file')
  await stage.staging.contents.write(ino, 0, content(5000), false)
  const database = stage.store.env.openDB<{ sizeBytes: number }, Buffer>({
    name: 'staging:nodes',
    keyEncoding: 'binary',
  })
  const key = Buffer.from([0, 0, 0, 0, 0, 0, ino])
  await until('the record has the size', () => database.get(key)?.sizeBytes === 5000)
  stage.staging.close(ino, true)
})

t.test('after a crash the size of a file is that of its working object', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = stage.create('file')
  await stage.staging.contents.write(ino, 0, content(70_000), false)
  const path = stage.store.objectPath(stage.node(ino).object!)
  await stage.crash()
  t.equal(statSync(path).size, 70_000)
  const after = await Stage.open(t, { dir: stage.dir })
  t.equal(after.node(ino).sizeBytes, 70_000)
  t.equal(Buffer.compare(await after.readCid(await after.cid(ino)), content(70_000)), 0)
})

t.test('working objects that nothing refers to are removed at the next start', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = await stage.write('kept', 'abc')
  const { container, path } = stage.store.createObject()
  const { writeFileSync } = await import('node:fs')
  writeFileSync(path, 'left by a crash')
  await stage.crash()
  const after = await Stage.open(t, { dir: stage.dir, idle: true })
  t.notOk(after.objectExists(container))
  t.ok(after.objectExists(after.node(ino).object!))
})
