/** From closed files to CIDs: batches, races with writers, failures. */
import { existsSync } from 'node:fs'
import t, { type Test } from 'tap'
import { CODEC_RAW, cidOf } from '../../src/core/cid.js'
import { CidfsError } from '../../src/core/errors.js'
import type { HashPool } from '../../src/staging/hash-pool.js'
import { currentCid } from '../../src/staging/node.js'
import { Publisher, type PublisherParts } from '../../src/staging/publisher.js'
import { descriptorsBelow } from '../store/support.js'
import { until } from '../support/until.js'
import { importedFile } from '../unixfs/importer.js'
import { MemoryBlocks } from '../unixfs/support.js'
import { bytes, content, ROOT, Stage } from './support.js'

const MIB = 1024 * 1024

/** A hash pool that waits for the test before it begins. */
class GatedHashes {
  begun = 0
  fails: Error | undefined
  release: () => void = () => {}
  #gate = new Promise<void>(resolve => (this.release = resolve))

  constructor(private readonly inner: Pick<HashPool, 'hashFile'>) {}

  async hashFile(fd: number, sizeBytes: number, chunkBytes: number): Promise<Uint8Array> {
    this.begun++
    await this.#gate
    if (this.fails !== undefined) throw this.fails
    return this.inner.hashFile(fd, sizeBytes, chunkBytes)
  }
}

/** A publisher of the test's own over an idle stage. */
async function publisherOver(
  t: Test,
  stage: Stage,
  parts: Partial<PublisherParts> = {},
): Promise<{ publisher: Publisher; hashes: GatedHashes }> {
  const { HashPool } = await import('../../src/staging/hash-pool.js')
  const pool = new HashPool(1)
  const hashes = new GatedHashes(pool)
  const { names, contents, queue, local } = stage.staging
  const publisher = new Publisher({
    store: stage.store,
    names,
    contents,
    queue,
    hashes: hashes as unknown as HashPool,
    local,
    onPublished: () => {},
    ...parts,
  })
  t.teardown(async () => {
    hashes.release()
    await publisher.stop()
    await pool.close()
  })
  publisher.start()
  return { publisher, hashes }
}

t.test('small, large, empty files and symlinks get the CIDs of the importer', async t => {
  const stage = await Stage.open(t)
  for (const size of [0, 1, 65_536, 65_537, MIB, MIB + 1, 3 * MIB]) {
    const data = content(size, size + 1)
    const expected = await importedFile(data, new MemoryBlocks(), { chunkBytes: MIB, maxLinks: 1024 })
    const ino = await stage.write(`f${size}`, data)
    t.equal(`${await stage.cid(ino)}`, `${expected.cid}`, `${size} bytes`)
    t.equal(stage.node(ino).tsize, expected.tsize, `${size}: tsize`)
  }
  const empty = stage.staging.createFile(ROOT, bytes('mknod'), 0o644, { uid: 0, gid: 0 }).ino
  t.same(await stage.cid(empty), cidOf(CODEC_RAW, new Uint8Array(0)), 'created and never opened')
})

t.test('a large file stays one file, sealed; a small one goes to a pack and its file away', async t => {
  const stage = await Stage.open(t, { idle: true })
  const large = await stage.write('large', content(2 * MIB))
  const small = await stage.write('small', content(1000))
  const path = stage.store.objectPath(stage.node(large).object!)
  const object = stage.node(small).object!
  stage.staging.start()
  const cid = await stage.cid(large)
  await stage.cid(small)
  t.ok(existsSync(path))
  t.match(stage.store.usage().objects, { count: 1, bytes: 2 * MIB })
  await until('the working object is gone', () => !stage.objectExists(object))
  t.equal(Buffer.compare(await stage.readCid(cid), content(2 * MIB)), 0)
})

t.test('content that is held already is kept once', async t => {
  const stage = await Stage.open(t)
  const first = await stage.cid(await stage.write('first', content(2 * MIB)))
  const before = stage.store.usage()
  const second = await stage.cid(await stage.write('second', content(2 * MIB)))
  t.same(second, first)
  await until('the second object is gone', () => stage.store.unsealedObjects().length === 0)
  t.same(stage.store.usage().objects, before.objects)
  t.equal(Buffer.compare(await stage.readCid(second), content(2 * MIB)), 0)
})

t.test('many small files take few transactions and few flushes', async t => {
  const stage = await Stage.open(t, { idle: true })
  const dir = stage.mkdir('dir')
  const inos: number[] = []
  for (let i = 0; i < 500; i++) inos.push(await stage.write(`f${i}`, content(500, i), dir))
  stage.staging.contents.saveAll()
  let flushes = 0
  const flush = stage.store.flush.bind(stage.store)
  stage.store.flush = () => {
    flushes++
    return flush()
  }
  stage.staging.start()
  await stage.cid(dir)
  t.ok(inos.every(ino => currentCid(stage.node(ino)) !== undefined))
  t.ok(flushes <= 10, `${flushes} flushes`)
})

t.test('content that changes while it is hashed is published as it is in the end', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = await stage.write('file', content(2 * MIB))
  const { hashes } = await publisherOver(t, stage)
  await until('hashing has begun', () => hashes.begun === 1)
  t.equal(stage.state(ino), 'publishing')
  await stage.rewrite(ino, 'changed', 100)
  hashes.release()
  const changed = Buffer.from(content(2 * MIB))
  changed.write('changed', 100)
  const cid = await stage.cid(ino)
  t.equal(Buffer.compare(await stage.readCid(cid), changed), 0)
  t.equal(hashes.begun, 2)
})

t.test('a file opened for writing while it is hashed is published after its close', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = await stage.write('file', content(MIB + 1))
  const { hashes } = await publisherOver(t, stage)
  await until('hashing has begun', () => hashes.begun === 1)
  stage.staging.open(ino, true, false)
  hashes.release()
  await until('hashing has ended', () => !stage.staging.queue.get(ino)!.running)
  t.equal(stage.state(ino), 'writing')
  t.equal(currentCid(stage.node(ino)), undefined)
  stage.staging.close(ino, true)
  t.equal(Buffer.compare(await stage.readCid(await stage.cid(ino)), content(MIB + 1)), 0)
})

t.test('a file removed while it is hashed leaves nothing behind', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = await stage.write('file', content(MIB + 1))
  const object = stage.node(ino).object!
  const { hashes, publisher } = await publisherOver(t, stage)
  await until('hashing has begun', () => hashes.begun === 1)
  stage.staging.unlink(ROOT, bytes('file'))
  stage.staging.purge(ino)
  hashes.release()
  await publisher.stop()
  t.equal(stage.staging.names.find(ino), undefined)
  t.notOk(stage.objectExists(object))
  t.same([...stage.staging.queue.jobs()], [])
  t.equal(descriptorsBelow(`${stage.dir}/objects`), 0)
})

t.test('a file renamed while it is hashed is published under its new name', async t => {
  const stage = await Stage.open(t, { idle: true })
  const dir = stage.mkdir('dir')
  const ino = await stage.write('file', content(MIB + 1))
  const { hashes } = await publisherOver(t, stage)
  await until('hashing has begun', () => hashes.begun === 1)
  stage.staging.rename(ROOT, bytes('file'), dir, bytes('moved'), true)
  hashes.release()
  await stage.cid(dir)
  t.equal(stage.staging.names.pathOf(stage.node(ino)), 'dir/moved')
})

t.test('a failure is told, and tried again until it works', async t => {
  const stage = await Stage.open(t, { idle: true })
  const dir = stage.mkdir('dir')
  const ino = await stage.write('file', content(MIB + 1), dir)
  const { hashes } = await publisherOver(t, stage)
  hashes.fails = new CidfsError('IO', 'the disk is on fire')
  hashes.release()
  await until('it has failed', () => stage.state(ino) === 'failed')
  t.match(stage.staging.publicationOf(stage.node(ino)), { tries: 1, error: 'the disk is on fire' })
  t.equal(stage.state(dir), 'queued', 'its directory waits')
  hashes.fails = undefined
  await stage.cid(dir)
  t.equal(stage.state(ino), 'pinned')
  t.equal(stage.staging.publicationOf(stage.node(ino)).error, undefined)
})

t.test('a commit that fails loses neither files nor their place in the queue', async t => {
  const stage = await Stage.open(t, { idle: true })
  const dir = stage.mkdir('dir')
  const inos = [
    await stage.write('a', content(10), dir),
    await stage.write('b', content(100), dir),
    await stage.write('c', content(2 * MIB), dir),
  ]
  const reader = inos[1]!
  stage.staging.open(reader, false, false) // its node is held, so rolled back in place
  let failures = 0
  const { hashes } = await publisherOver(t, stage, {
    onPublished: node => {
      if (failures < 2 && node.type === 'file' && node.ino !== inos[0]) {
        failures++
        throw new CidfsError('NO_SPACE', 'no space for the index')
      }
    },
  })
  hashes.release()
  await until('both kinds have failed', () => failures === 2)
  t.match(stage.staging.publicationOf(stage.node(reader)), {
    state: 'failed',
    error: 'no space for the index',
  })
  t.ok(stage.node(reader).dirty)
  t.equal(stage.node(reader).sizeBytes, 100)
  t.equal(Buffer.compare(await stage.read(reader), content(100)), 0, 'it can be read as before')
  await stage.cid(dir)
  for (const [i, size] of [10, 100, 2 * MIB].entries()) {
    const cid = currentCid(stage.node(inos[i]!))!
    t.equal(Buffer.compare(await stage.readCid(cid), content(size)), 0)
  }
  stage.staging.close(reader, false)
})

t.test('a file that cannot be read fails alone', async t => {
  const stage = await Stage.open(t, { idle: true })
  const bad = await stage.write('bad', 'abc')
  const good = await stage.write('good', 'def')
  const { rmSync } = await import('node:fs')
  rmSync(stage.store.objectPath(stage.node(bad).object!))
  await publisherOver(t, stage)
  await stage.cid(good)
  await until('it has failed', () => stage.state(bad) === 'failed')
  t.match(stage.staging.publicationOf(stage.node(bad)).error, /ENOENT/)
})

t.test('stopping waits for what is under way, and takes up nothing more', async t => {
  const stage = await Stage.open(t, { idle: true })
  const inos = [await stage.write('a', content(MIB + 1)), await stage.write('b', content(MIB + 2))]
  const third = await stage.write('c', content(MIB + 3))
  const { publisher, hashes } = await publisherOver(t, stage)
  await until('two are under way', () => hashes.begun === 2)
  let stopped = false
  const stopping = publisher.stop().then(() => (stopped = true))
  await new Promise(resolve => setImmediate(resolve))
  t.notOk(stopped)
  hashes.release()
  await stopping
  t.ok(inos.every(ino => currentCid(stage.node(ino)) !== undefined))
  t.equal(stage.state(third), 'queued')
})

t.test('what was queued when the program died is published by the next one', async t => {
  const stage = await Stage.open(t, { idle: true })
  const dir = stage.mkdir('dir')
  await stage.write('large', content(MIB + 1), dir)
  await stage.write('small', 'abc', dir)
  const before = await stage.write('done', 'xyz')
  await stage.crash()
  const after = await Stage.open(t, { dir: stage.dir })
  const cid = await after.cid(dir)
  t.ok(after.store.has(cid))
  t.ok(after.store.pins.has(cid))
  t.ok(after.store.pins.has(await after.cid(before)))
})
