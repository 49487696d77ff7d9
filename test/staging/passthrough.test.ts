/** Working objects that somebody else writes to: the kernel, here played by writes to the descriptor it was given. */
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  futimesSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { until } from '../support/until.js'
import { content, Stage } from './support.js'

const LARGE = 300_000

/** What the kernel gets with an open, if anything; it takes it. */
function passthrough(stage: Stage, ino: number): number | undefined {
  let taken: number | undefined
  stage.staging.contents.offer(ino, fd => {
    taken = fd
    return 'taken'
  })
  return taken
}

/** A new file that is open for writing by passthrough. */
function create(stage: Stage, name: string): { ino: number; fd: number } {
  const ino = stage.create(name)
  return { ino, fd: passthrough(stage, ino)! }
}

function published(stage: Stage, ino: number): Promise<true> {
  return until('published', () => !stage.node(ino).dirty)
}

/** Sizes of the files of all objects. */
function objects(stage: Stage): number[] {
  const entries = readdirSync(join(stage.dir, 'objects'), { recursive: true, withFileTypes: true })
  return entries
    .filter(entry => entry.isFile())
    .map(entry => readFileSync(join(entry.parentPath, entry.name)).length)
}

t.test('what the kernel writes is known when it is asked for, and when the file is closed', async t => {
  const stage = await Stage.open(t, { idle: true })
  const { ino, fd } = create(stage, 'f')
  writeSync(fd, 'hello')
  t.ok(stage.staging.contents.learn(ino))
  t.equal(stage.node(ino).sizeBytes, 5)
  const { generation } = stage.node(ino)
  writeSync(fd, ' world')
  stage.staging.close(ino, true)
  t.equal(stage.node(ino).sizeBytes, 11)
  t.ok(stage.node(ino).generation > generation)
  t.notOk(stage.staging.contents.learn(ino), 'over')
  t.same(Buffer.from(await stage.read(ino)).toString(), 'hello world')
})

t.test('a write that shows neither in size nor in time still makes another content', async t => {
  const stage = await Stage.open(t, { idle: true })
  const { ino, fd } = create(stage, 'f')
  writeSync(fd, 'one')
  stage.staging.contents.learn(ino)
  const { generation } = stage.node(ino)
  stage.staging.close(ino, true)
  t.ok(stage.node(ino).generation > generation)
})

t.test('the size of a file that was synced while the kernel wrote to it survives a crash', async t => {
  const stage = await Stage.open(t, { idle: true })
  const { ino, fd } = create(stage, 'f')
  writeSync(fd, 'kept')
  await stage.staging.sync(ino)
  await stage.crash()
  const again = await Stage.open(t, { idle: true, dir: stage.dir })
  t.same(Buffer.from(await again.read(ino)).toString(), 'kept')
  t.ok(again.node(ino).dirty)
})

t.test('times that are set hold until the next write', async t => {
  const stage = await Stage.open(t, { idle: true })
  const { ino, fd } = create(stage, 'f')
  const mtime = { seconds: 7, nanoseconds: 8 }
  writeSync(fd, 'x')
  await stage.staging.setAttributes(ino, { mtime })
  stage.staging.contents.learn(ino)
  t.same(stage.node(ino).mtime, mtime)
  await stage.staging.setAttributes(ino, { mtime, sizeBytes: 100 })
  stage.staging.contents.learn(ino)
  t.same(stage.node(ino).mtime, mtime, 'also when they are set with the size')
  t.equal(fstatSync(fd).size, 100)
  futimesSync(fd, 0, 1234) // as a write would
  stage.staging.contents.learn(ino)
  t.same(stage.node(ino).mtime, { seconds: 1234, nanoseconds: 0 })
  stage.staging.close(ino, true)
})

t.test('only a file that has a working object when its first open, a writer, comes is offered', async t => {
  const stage = await Stage.open(t)
  const ino = await stage.write('f', content(LARGE))
  stage.staging.open(ino, false, false)
  t.equal(passthrough(stage, ino), undefined, 'a reader')
  stage.staging.open(ino, true, false)
  t.equal(passthrough(stage, ino), undefined, 'a writer beside a reader')
  stage.staging.close(ino, true)
  stage.staging.close(ino, false)
  await published(stage, ino)
  stage.staging.open(ino, true, false)
  t.equal(
    passthrough(stage, ino),
    undefined,
    'a published file is copied when it is written to, not when opened',
  )
  stage.staging.close(ino, true)
  stage.staging.open(ino, true, true)
  t.not(passthrough(stage, ino), undefined, 'emptied: there is nothing to copy')
  stage.staging.open(ino, false, false)
  t.not(passthrough(stage, ino), undefined, 'a reader beside that writer')
  stage.staging.close(ino, false)
  stage.staging.close(ino, true)
})

t.test('what the kernel refuses comes by write, and is offered to it again with the next open', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = stage.create('f')
  t.ok(stage.staging.contents.offer(ino, () => 'refused'))
  t.notOk(stage.staging.contents.isPassedThrough(ino))
  await stage.staging.contents.write(ino, 0, Buffer.from('abc'), false)
  t.equal(stage.node(ino).sizeBytes, 3)
  stage.staging.close(ino, true)
  stage.staging.open(ino, true, false)
  t.not(passthrough(stage, ino), undefined)
  stage.staging.close(ino, true)
})

t.test('a kernel that cannot is not asked again', async t => {
  const stage = await Stage.open(t, { idle: true })
  const [one, two] = [stage.create('one'), stage.create('two')]
  t.ok(stage.staging.contents.offer(one, () => 'unsupported'))
  t.equal(passthrough(stage, two), undefined)
  for (const ino of [one, two]) stage.staging.close(ino, true)
})

for (const sizeBytes of [10, LARGE]) {
  t.test(`${sizeBytes} bytes that somebody still reads are published, and written on`, async t => {
    const stage = await Stage.open(t)
    const { ino, fd } = create(stage, 'log')
    writeSync(fd, content(sizeBytes))
    stage.staging.open(ino, false, false)
    t.equal(passthrough(stage, ino), fd, 'one object for all opens')
    stage.staging.close(ino, true)
    await published(stage, ino)
    const first = stage.node(ino).cid
    t.equal(stage.node(ino).object, undefined)
    stage.staging.open(ino, true, false)
    t.equal(passthrough(stage, ino), fd, 'the kernel has its opens there')
    t.ok(stage.node(ino).dirty)
    writeSync(fd, 'more', sizeBytes)
    stage.staging.close(ino, true)
    await published(stage, ino)
    t.not(Buffer.compare(stage.node(ino).cid!, first!), 0)
    t.equal(stage.node(ino).sizeBytes, sizeBytes + 4)
    t.equal(fstatSync(fd).size, sizeBytes + 4, 'the reader has it too')
    stage.staging.close(ino, false)
    const kept = sizeBytes === LARGE ? [LARGE, LARGE + 4] : []
    await stage.store.flush()
    await until('the original is gone', () => objects(stage).length === kept.length)
    t.same(objects(stage).sort(), kept.sort(), 'each content once')
    t.same(Buffer.from(await stage.read(ino)).subarray(0, sizeBytes), Buffer.from(content(sizeBytes)))
  })
}

t.test('a file that is truncated while it is read after publishing keeps its published content', async t => {
  const stage = await Stage.open(t)
  const { ino, fd } = create(stage, 'f')
  writeSync(fd, content(LARGE))
  stage.staging.open(ino, false, false)
  stage.staging.close(ino, true)
  await published(stage, ino)
  await stage.staging.setAttributes(ino, { sizeBytes: 4 })
  t.equal(fstatSync(fd).size, 4, 'the reader sees it')
  await published(stage, ino)
  stage.staging.close(ino, false)
  t.same(Buffer.from(await stage.read(ino)), Buffer.from(content(LARGE).subarray(0, 4)))
  await stage.store.flush()
  await until('only the published content is left', () => objects(stage).join() === String(LARGE))
})

t.test('an object that is gone with its unlinked file leaves nothing behind', async t => {
  const stage = await Stage.open(t)
  const { ino, fd } = create(stage, 'f')
  writeSync(fd, content(LARGE))
  const path = stage.store.objectPath(stage.node(ino).object!)
  stage.staging.unlink(stage.node(ino).parent, Buffer.from('f'))
  ftruncateSync(fd, 5)
  t.ok(stage.staging.contents.learn(ino))
  stage.staging.close(ino, true)
  stage.staging.purge(ino)
  await stage.store.flush()
  await until('the object is gone', () => !existsSync(path))
  t.same(stage.store.unsealedObjects(), [])
})

t.test('a program that outlives the daemon cannot change what the next one publishes', async t => {
  const stage = await Stage.open(t, { idle: true })
  const data = content(LARGE)
  const ino = await stage.write('f', data)
  const outlived = openSync(stage.store.objectPath(stage.node(ino).object!), 'r+')
  t.teardown(() => closeSync(outlived))
  await stage.crash()
  const next = await Stage.open(t, { dir: stage.dir })
  const cid = await next.cid(ino)
  writeSync(outlived, Buffer.from('overwritten'), 0, 11, 1000)
  t.same(await next.readCid(cid), data)
  await until('only the copy is left', async () => {
    await next.store.flush()
    return objects(next).length === 1
  })
})

t.test('what nobody has open any more is not copied by the next daemon', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = await stage.write('f', content(LARGE))
  const path = stage.store.objectPath(stage.node(ino).object!)
  const before = statSync(path).ino
  const reader = openSync(path, 'r')
  t.teardown(() => closeSync(reader))
  await stage.crash()
  const next = await Stage.open(t, { dir: stage.dir })
  await next.cid(ino)
  t.same(objects(next), [LARGE])
  t.equal(statSync(path).ino, before, 'its file is the object')
})

t.test('where a limit is to be kept, the kernel writes nothing by itself', async t => {
  const space = { maxBytes: 64 * 1024 * 1024 }
  const stage = await Stage.open(t, { idle: true, space })
  const ino = stage.create('f')
  t.equal(passthrough(stage, ino), undefined)
  stage.staging.close(ino, true)
})
