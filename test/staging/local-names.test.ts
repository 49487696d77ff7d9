/** Names that stay local: not published, not in their directory's CID, not lost. */
import t from 'tap'
import { checkStaging } from '../../src/staging/check.js'
import { DEFAULT_LOCAL_NAMES } from '../../src/staging/local-names.js'
import { until } from '../support/until.js'
import { bytes, content, FakeBackend, ROOT, Stage } from './support.js'

const SIZES = [10, 200_000]

const state = (stage: Stage, ino: number): string => stage.staging.publicationOf(stage.node(ino)).state
const cid = (stage: Stage, ino: number) => stage.staging.publishedCid(stage.node(ino))
const isQueued = (stage: Stage, ino: number): boolean => stage.staging.queue.get(ino) !== undefined

async function published(stage: Stage, ino: number) {
  return until(`node ${ino} is pinned`, () => state(stage, ino) === 'pinned' && cid(stage, ino))
}

async function isSound(stage: Stage): Promise<object[]> {
  await stage.store.flush()
  return (await checkStaging(stage.store)).faults
}

t.test('which names are local', async t => {
  const stage = await Stage.open(t, { idle: true })
  const covers = (name: string, parent = ROOT) =>
    stage.staging.local.covers({ type: 'file', parent, name: bytes(name) })
  for (const name of ['.f.swp', '.f.swo', 'a b.part', '.part', 'x.crdownload', 'f~', '~', 'ž\n~']) {
    t.ok(covers(name), name)
  }
  for (const name of ['f', 'f.swp', '.f.swpx', 'x.part1', 'part', 'f~g', '.swp']) t.notOk(covers(name), name)
  t.notOk(covers('f~', 0), 'what has no name')
})

t.test('names are matched as they are written: only * and ? stand for others', async t => {
  const stage = await Stage.open(t, { idle: true, localNames: ['[a].(b)+', 'x?z', '*.tmp'] })
  const covers = (name: string) =>
    stage.staging.local.covers({ type: 'file', parent: ROOT, name: bytes(name) })
  t.ok(['[a].(b)+', 'xyz', 'xžz', '.tmp'].every(covers))
  t.notOk(['a.b', 'xz', 'f~', 'xtmp'].some(covers))
  const none = await Stage.open(t, { idle: true, localNames: [] })
  t.notOk(none.staging.local.covers({ type: 'file', parent: ROOT, name: bytes('f~') }), 'an empty list')
})

t.test('a local file leaves its directory as it was published', async t => {
  const stage = await Stage.open(t)
  const dir = stage.mkdir('d')
  await stage.write('f', 'f', dir)
  const before = await published(stage, dir)
  const ino = await stage.write('.f.swp', 'swap', dir)
  t.equal(state(stage, ino), 'local')
  t.same(cid(stage, dir), before, 'not even dirty')
  await stage.rewrite(ino, 'more')
  stage.staging.rename(dir, bytes('.f.swp'), dir, bytes('g~'), true)
  stage.staging.unlink(dir, bytes('g~'))
  t.same(cid(stage, dir), before)
  await stage.write('g~', 'x', dir)
  await stage.write('g', 'g', dir)
  const both = await published(stage, dir)
  stage.staging.unlink(dir, bytes('g~'))
  await stage.write('h', 'h', dir)
  stage.staging.unlink(dir, bytes('h'))
  t.same(await published(stage, dir), both, 'a directory is published without it')
  t.same(await isSound(stage), [])
})

for (const size of SIZES) {
  t.test(`${size} bytes that get an ordinary name are published, those that lose it are not`, async t => {
    const stage = await Stage.open(t)
    const dir = stage.mkdir('d')
    const ino = await stage.write('f.part', content(size))
    stage.staging.rename(ROOT, bytes('f.part'), dir, bytes('f'), true)
    const whole = await published(stage, ino)
    const withFile = await published(stage, dir)
    stage.staging.rename(dir, bytes('f'), dir, bytes('f~'), true)
    t.equal(state(stage, ino), 'local')
    t.equal(cid(stage, ino), undefined)
    t.notSame(await published(stage, dir), withFile)
    t.same(await isSound(stage), [])
    stage.staging.rename(dir, bytes('f~'), ROOT, bytes('g'), true)
    t.same(await published(stage, ino), whole, 'at once, it was published before')
    t.ok(stage.store.pins.has(whole))
    stage.staging.rename(ROOT, bytes('g'), ROOT, bytes('g~'), true)
    t.notOk(stage.store.pins.has(whole), 'what is local is not pinned')
    await stage.rewrite(ino, 'changed')
    stage.staging.rename(ROOT, bytes('g~'), ROOT, bytes('g'), true)
    t.notSame(await published(stage, ino), whole)
    t.same(await isSound(stage), [])
  })

  t.test(`${size} bytes that become local while they wait are not published`, async t => {
    const stage = await Stage.open(t, { idle: true })
    const ino = await stage.write('f', content(size))
    t.ok(isQueued(stage, ino))
    stage.staging.rename(ROOT, bytes('f'), ROOT, bytes('f~'), true)
    t.notOk(isQueued(stage, ino))
    stage.staging.start()
    const other = await stage.write('other', 'x')
    await published(stage, other)
    t.equal(stage.node(ino).cid, undefined)
    t.same(await isSound(stage), [])
  })

  t.test(`${size} local bytes are there after a crash, and after an end`, async t => {
    let stage = await Stage.open(t)
    const ino = await stage.write('f~', content(size))
    await stage.staging.sync(ino)
    await stage.crash()
    for (const round of [1, 2]) {
      stage = await Stage.open(t, { dir: stage.dir })
      t.equal(state(stage, ino), 'local')
      t.equal(stage.node(ino).sizeBytes, size, `${round}`)
      t.not(stage.node(ino).object, undefined)
      t.same(await isSound(stage), [])
      if (round === 1) await stage.close()
    }
    stage.staging.rename(ROOT, bytes('f~'), ROOT, bytes('f'), true)
    t.ok(await published(stage, ino))
  })
}

t.test('a save as vim does it publishes the new content only', async t => {
  const stage = await Stage.open(t)
  const old = await stage.write('f', 'old')
  const before = await published(stage, old)
  stage.staging.rename(ROOT, bytes('f'), ROOT, bytes('f~'), true)
  const fresh = await stage.write('f', 'new')
  const after = await published(stage, fresh)
  t.same([state(stage, old), state(stage, fresh)], ['local', 'pinned'])
  t.same([stage.store.pins.has(before), stage.store.pins.has(after)], [false, true])
  stage.staging.exchange(ROOT, bytes('f'), ROOT, bytes('f~'))
  t.same([state(stage, old), state(stage, fresh)], ['pinned', 'local'])
  t.same([stage.store.pins.has(before), stage.store.pins.has(after)], [true, false])
  t.same(await isSound(stage), [])
})

t.test('a symlink may be local, a folder is not, and the CID of the root is without them', async t => {
  const stage = await Stage.open(t)
  const empty = await stage.staging.cidOf(ROOT)
  const owner = { uid: 0, gid: 0 }
  const link = stage.staging.createSymlink(ROOT, bytes('lock~'), bytes('me'), owner).ino
  t.equal(state(stage, link), 'local')
  t.same(await stage.staging.cidOf(ROOT), empty)
  const dir = stage.mkdir('d~')
  t.ok(await published(stage, dir))
  t.notSame(await stage.staging.cidOf(ROOT), empty)
})

t.test('another list of names takes effect at the next start', async t => {
  const first = await Stage.open(t)
  const dir = first.mkdir('d')
  const part = await first.write('f.part', 'part', dir)
  const ordinary = await first.write('f.tmp', 'tmp', dir)
  const before = await published(first, dir)
  await first.close()
  const second = await Stage.open(t, { dir: first.dir, localNames: ['*.tmp'] })
  t.ok(await published(second, part))
  t.equal(state(second, ordinary), 'local')
  t.notSame(await published(second, dir), before)
  t.same(await isSound(second), [])
  await second.close()
  const third = await Stage.open(t, { dir: first.dir, localNames: DEFAULT_LOCAL_NAMES })
  t.equal(state(third, part), 'local')
  t.same(await published(third, dir), before)
  t.same(await isSound(third), [])
})

t.test('a back-end never hears of local names, and loses what becomes one', async t => {
  const backend = new FakeBackend()
  const stage = await Stage.open(t, { backend })
  await stage.write('f~', 'local')
  const ino = await stage.write('f', 'ordinary')
  const whole = `${await published(stage, ino)}`
  await until('the back-end has it', () => backend.pinned.has(whole))
  stage.staging.rename(ROOT, bytes('f'), ROOT, bytes('f~'), true)
  await until('the back-end has unpinned it', () => backend.pinned.size === 0)
  t.equal(backend.calls.filter(call => call.startsWith('pin ')).length, 1, 'f~ was not offered')
  stage.staging.rename(ROOT, bytes('f~'), ROOT, bytes('g'), true)
  await until('the back-end has it again', () => backend.pinned.has(whole))
  t.same(await isSound(stage), [])
})
