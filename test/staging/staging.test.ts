/** Names, content, queue and pins kept in step. */
import t from 'tap'
import { cidOf } from '../../src/core/cid.js'
import { currentCid } from '../../src/staging/node.js'
import { descriptorsBelow } from '../store/support.js'
import { until } from '../support/until.js'
import { imported } from '../unixfs/importer.js'
import { codeThrown, MemoryBlocks } from '../unixfs/support.js'
import { bytes, content, OWNER, ROOT, Stage } from './support.js'

t.test('what is pinned are the entries of the root, each for its own node', async t => {
  const stage = await Stage.open(t)
  const dir = stage.mkdir('dir')
  const inner = await stage.write('inner', 'inner', dir)
  const top = await stage.write('top', 'top')
  const { pins } = stage.store
  t.same(pins.owners(await stage.cid(top)), [`staging:${top}`])
  t.same(pins.owners(await stage.cid(dir)), [`staging:${dir}`])
  t.notOk(pins.has(await stage.cid(inner)), 'it is under the pin of its directory')
  const twin = await stage.write('twin', 'top')
  t.same(pins.owners(await stage.cid(twin)), [`staging:${top}`, `staging:${twin}`])
  stage.staging.unlink(ROOT, bytes('top'))
  t.same(pins.owners(await stage.cid(twin)), [`staging:${twin}`])
})

t.test('overwriting pins the new content before the old is unpinned', async t => {
  const stage = await Stage.open(t)
  const ino = await stage.write('file', 'old')
  const { pins } = stage.store
  const old = await stage.cid(ino)
  stage.staging.open(ino, true, true)
  await stage.staging.contents.write(ino, 0, bytes('new'), false)
  t.ok(pins.has(old), 'while it is written')
  stage.staging.close(ino, true)
  t.ok(pins.has(old), 'while it is queued')
  const fresh = await stage.cid(ino)
  t.ok(pins.has(fresh))
  t.notOk(pins.has(old))
})

t.test('a temporary file renamed over a published one takes its pin until it has its own', async t => {
  const stage = await Stage.open(t)
  const { pins } = stage.store
  const old = await stage.cid(await stage.write('file', 'old'))
  const temporary = stage.create('.file.tmp')
  await stage.staging.contents.write(temporary, 0, bytes('new'), false)
  stage.staging.rename(ROOT, bytes('.file.tmp'), ROOT, bytes('file'), true)
  t.ok(pins.has(old))
  t.equal(currentCid(stage.node(temporary)), undefined, 'nobody takes the old CID for its own')
  t.equal(Buffer.from(await stage.read(temporary)).toString(), 'new')
  stage.staging.close(temporary, true)
  t.ok(pins.has(await stage.cid(temporary)))
  t.notOk(pins.has(old))
  t.same(stage.list(), ['file'])
})

t.test('pins follow what moves into the root and out of it', async t => {
  const stage = await Stage.open(t)
  const { pins } = stage.store
  const dir = stage.mkdir('dir')
  const ino = await stage.write('file', 'content', dir)
  const cid = await stage.cid(ino)
  await stage.cid(dir)
  stage.staging.rename(dir, bytes('file'), ROOT, bytes('file'), true)
  t.ok(pins.has(cid), 'at once: it has its CID already')
  await stage.cid(dir)
  stage.staging.rename(ROOT, bytes('file'), dir, bytes('file'), true)
  t.notOk(pins.has(cid))
  const both = await stage.cid(dir)
  const other = await stage.write('other', 'other')
  const otherCid = await stage.cid(other)
  stage.staging.exchange(dir, bytes('file'), ROOT, bytes('other'))
  t.ok(pins.has(cid))
  t.notOk(pins.has(otherCid))
  t.not(`${await stage.cid(dir)}`, `${both}`)
})

t.test('a directory has the CID of the importer, and another one when anything below changes', async t => {
  const stage = await Stage.open(t)
  const dir = stage.mkdir('dir')
  const sub = stage.mkdir('sub', dir)
  const file = await stage.write('a', 'aaa', sub)
  stage.staging.createSymlink(dir, bytes('link'), bytes('sub/a'), OWNER)
  const expected = async (text: string, name: string): Promise<string> => {
    const source = [{ path: `dir/sub/${name}`, content: bytes(text) }]
    const blocks = new MemoryBlocks()
    const { cid, tsize } = await imported(source, blocks, { wrapWithDirectory: true })
    return `${cid} ${tsize}`
  }
  const seen = new Set<string>([`${await stage.cid(dir)}`])
  const subOnly = async (): Promise<string> => {
    const cid = await stage.cid(sub)
    await stage.cid(dir)
    return `${cid}`
  }
  const first = await subOnly()
  await stage.rewrite(file, 'bbb')
  t.not(await subOnly(), first)
  seen.add(`${await stage.cid(dir)}`)
  stage.staging.rename(sub, bytes('a'), sub, bytes('b'), true)
  await until('the rename is published', () => stage.state(dir) === 'pinned')
  seen.add(`${await stage.cid(dir)}`)
  stage.staging.unlink(dir, bytes('link'))
  seen.add(`${await stage.cid(dir)}`)
  t.equal(seen.size, 4, 'content, name and removal each changed it')
  const root = (await stage.staging.cidOf(ROOT))!
  t.equal(`${root} ${stage.node(dir).tsize! + stage.store.get(root)!.length}`, await expected('bbb', 'b'))
})

t.test('the root has a CID of its own once everything in it has', async t => {
  const stage = await Stage.open(t, { idle: true })
  const empty = await stage.staging.cidOf(ROOT)
  t.ok(empty && stage.store.has(empty))
  const ino = await stage.write('file', 'abc')
  t.equal(await stage.staging.cidOf(ROOT), undefined)
  stage.staging.start()
  await stage.cid(ino)
  const one = (await stage.staging.cidOf(ROOT))!
  t.notOk(one.equals(empty!))
  t.equal(await stage.staging.cidOf(ROOT), one, 'made once')
  stage.staging.unlink(ROOT, bytes('file'))
  t.same(await stage.staging.cidOf(ROOT), empty)
})

t.test('rename refuses what rename(2) refuses, and changes nothing then', async t => {
  const stage = await Stage.open(t, { idle: true })
  const { staging } = stage
  const a = stage.mkdir('a')
  stage.mkdir('full')
  await stage.write('x', 'x', stage.lookup('full')!.ino)
  await stage.write('file', 'f')
  const refused = (from: string, to: string, replace = true, into = ROOT): string | undefined =>
    codeThrown(() => staging.rename(ROOT, bytes(from), into, bytes(to), replace))
  t.equal(refused('none', 'other'), 'NOT_FOUND')
  t.equal(refused('file', 'a'), 'IS_DIRECTORY')
  t.equal(refused('a', 'file'), 'NOT_DIRECTORY')
  t.equal(refused('a', 'full'), 'NOT_EMPTY')
  t.equal(refused('file', 'full', false), 'EXISTS')
  t.equal(refused('a', 'inside', true, a), 'INVALID')
  t.equal(
    codeThrown(() => staging.exchange(ROOT, bytes('a'), a, bytes('none'))),
    'NOT_FOUND',
  )
  t.same(stage.list(), ['a', 'full', 'file'])
  staging.rename(ROOT, bytes('file'), ROOT, bytes('file'), true)
  staging.rename(ROOT, bytes('full'), ROOT, bytes('a'), true)
  t.same(stage.list(), ['a', 'file'], 'an empty directory may be replaced')
})

t.test('removal refuses what unlink(2) and rmdir(2) refuse', async t => {
  const stage = await Stage.open(t, { idle: true })
  const dir = stage.mkdir('dir')
  await stage.write('x', 'x', dir)
  await stage.write('file', 'x')
  const code = (method: 'unlink' | 'rmdir', name: string): string | undefined =>
    codeThrown(() => stage.staging[method](ROOT, bytes(name)))
  t.equal(code('unlink', 'dir'), 'IS_DIRECTORY')
  t.equal(code('rmdir', 'file'), 'NOT_DIRECTORY')
  t.equal(code('rmdir', 'dir'), 'NOT_EMPTY')
  t.equal(code('unlink', 'none'), 'NOT_FOUND')
})

t.test('an open file outlives its name, and its bytes go with the last handle', async t => {
  const stage = await Stage.open(t)
  const ino = await stage.write('file', content(1000))
  await stage.cid(ino)
  stage.staging.open(ino, true, false)
  stage.staging.unlink(ROOT, bytes('file'))
  await stage.staging.contents.write(ino, 0, bytes('still'), false)
  const { object } = stage.node(ino)
  t.equal(Buffer.from((await stage.read(ino)).subarray(0, 5)).toString(), 'still')
  t.same([...stage.staging.queue.jobs()], [], 'nothing without a name is published')
  stage.staging.close(ino, true)
  stage.staging.purge(ino)
  t.notOk(stage.objectExists(object!))
  t.equal(stage.staging.names.find(ino), undefined)
  await until(
    'the first object, copied into a pack, is gone',
    () => stage.store.unsealedObjects().length === 0,
  )
  t.equal(descriptorsBelow(`${stage.dir}/objects`), 0)
})

t.test('what was unlinked while open is gone after a crash, unless the mount goes on', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = stage.create('file')
  await stage.staging.contents.write(ino, 0, content(5000), false)
  stage.staging.unlink(ROOT, bytes('file'))
  await stage.crash()
  const resumed = await Stage.open(t, { dir: stage.dir, resume: true, idle: true })
  t.equal(Buffer.compare(await resumed.read(ino), content(5000)), 0)
  await resumed.crash()
  const fresh = await Stage.open(t, { dir: stage.dir })
  t.equal(fresh.staging.names.find(ino), undefined)
  t.same(fresh.store.unsealedObjects(), [])
})

t.test('the end of a node is one transaction: a crash in between costs no start', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = await stage.write('file', 'abc')
  stage.staging.unlink(ROOT, bytes('file'))
  const remove = stage.staging.names.remove.bind(stage.staging.names)
  stage.staging.names.remove = () => {
    throw new Error('killed')
  }
  t.throws(() => stage.staging.purge(ino), /killed/)
  stage.staging.names.remove = remove
  await stage.crash()
  const after = await Stage.open(t, { dir: stage.dir })
  t.equal(after.staging.names.find(ino), undefined)
})

t.test('opening to truncate publishes the empty file, even without writing', async t => {
  for (const forWriting of [true, false]) {
    const stage = await Stage.open(t)
    const ino = await stage.write('file', content(100))
    await stage.cid(ino)
    stage.staging.open(ino, forWriting, true)
    stage.staging.close(ino, forWriting)
    t.same(await stage.cid(ino), cidOf(0x55, new Uint8Array(0)), `forWriting ${forWriting}`)
  }
})

t.test('opening for writing and writing nothing changes nothing', async t => {
  const stage = await Stage.open(t)
  const ino = await stage.write('file', content(100))
  const cid = await stage.cid(ino)
  stage.staging.open(ino, true, false)
  t.equal(stage.state(ino), 'writing')
  t.same(currentCid(stage.node(ino)), cid)
  stage.staging.close(ino, true)
  t.equal(stage.state(ino), 'pinned')
})

t.test('attributes change without a new CID', async t => {
  const stage = await Stage.open(t)
  const ino = await stage.write('file', content(100))
  const cid = await stage.cid(ino)
  const mtime = { seconds: 1, nanoseconds: 2 }
  await stage.staging.setAttributes(ino, { mode: 0o600, uid: 5, mtime })
  t.match(stage.node(ino), { mode: 0o600, uid: 5, mtime })
  t.same(currentCid(stage.node(ino)), cid)
})

t.test('the states a file goes through are told', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = stage.create('file')
  t.equal(stage.state(ino), 'writing')
  stage.staging.close(ino, true)
  t.equal(stage.state(ino), 'queued')
  stage.staging.start()
  await stage.cid(ino)
  t.equal(stage.state(ino), 'pinned')
})
