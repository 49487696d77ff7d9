/** Each way in which the books of `staging/` can be wrong is found, and a sound tree is called sound. */
import { rmSync } from 'node:fs'
import type { Database } from 'lmdb'
import t, { type Test } from 'tap'
import { checkStaging } from '../../src/staging/check.js'
import { childKey, entryKey, inoKey } from '../../src/staging/keys.js'
import { bytes, content, OWNER, ROOT, Stage } from './support.js'

const MIB = 1024 * 1024

interface Tree {
  stage: Stage
  /** A directory with a published file and one that is queued. */
  dir: number
  published: number
  queued: number
}

async function tree(t: Test): Promise<Tree> {
  const stage = await Stage.open(t)
  const dir = stage.mkdir('dir')
  const published = await stage.write('published', content(MIB + 1), dir)
  stage.staging.createSymlink(dir, bytes('link'), bytes('published'), OWNER)
  await stage.write('top', 'top')
  await stage.idle()
  await stage.staging.stop()
  const queued = await stage.write('queued', content(2000), dir)
  await stage.write('.note.swp', 'stays local', dir)
  stage.staging.contents.saveAll()
  return { stage, dir, published, queued }
}

async function problems({ stage }: Tree): Promise<string[]> {
  const { faults } = await checkStaging(stage.store)
  return faults.map(({ path, problem }) => `${path}: ${problem}`).sort()
}

/** A database of the tree, to be damaged. */
function records<V>({ stage }: Tree, name: string): Database<V, Buffer> {
  const binary = ['staging:entries', 'staging:children'].includes(name)
  return stage.store.env.openDB({ name, keyEncoding: 'binary', ...(binary ? { encoding: 'binary' } : {}) })
}

t.test('a sound tree is sound, with files of every state', async t => {
  const sound = await tree(t)
  t.same(await checkStaging(sound.stage.store), { nodes: 7, faults: [], leftovers: 0 })
  const open = await sound.stage.write('open', 'open')
  sound.stage.staging.open(open, false, false)
  sound.stage.staging.unlink(ROOT, bytes('open'))
  t.match(await checkStaging(sound.stage.store), { nodes: 8, faults: [], leftovers: 0 })
})

t.test('names and nodes that do not agree are found', async t => {
  const one = await tree(t)
  records(one, 'staging:entries').removeSync(entryKey(one.dir, bytes('queued')))
  t.same(await problems(one), ['dir/queued: its name does not lead to it'])
  const two = await tree(t)
  records(two, 'staging:children').removeSync(childKey(two.dir, two.queued))
  t.same(await problems(two), ['dir/queued: its directory does not list it'])
  const three = await tree(t)
  records(three, 'staging:nodes').removeSync(inoKey(three.queued))
  const found = (await problems(three)).join('\n')
  t.match(found, /^queued in dir: the name leads to no node of that name$/m)
  t.match(found, /^dir: it lists node \d+, which is not in it$/m)
  t.match(found, /^node \d+: it is queued and has no name$/m)
})

t.test('a queue that has forgotten something, or remembers too much, is found', async t => {
  const forgotten = await tree(t)
  records(forgotten, 'staging:queue').removeSync(inoKey(forgotten.queued))
  t.match(await problems(forgotten), [/^dir\/queued: .*not queued$/])
  const toomuch = await tree(t)
  records<object>(toomuch, 'staging:queue').putSync(inoKey(toomuch.published), { tries: 0 })
  t.match(await problems(toomuch), [/^dir\/published: .*still queued$/])
})

t.test('content that is nowhere is found', async t => {
  const working = await tree(t)
  const { object } = working.stage.node(working.queued)
  rmSync(working.stage.store.objectPath(object!))
  t.same(await problems(working), [`dir/queued: object ${object} is missing`])
  const sealed = await tree(t)
  const cid = await sealed.stage.cid(sealed.published)
  sealed.stage.store.forgetMissing(cid, sealed.stage.store.locate(cid)!)
  t.match(await problems(sealed), [/^dir\/published: .*is not complete: block bafy\w+ is not held$/])
})

t.test('a count of directories, a size and a pin that are wrong are found', async t => {
  const wrong = await tree(t)
  const { stage, dir, published } = wrong
  stage.staging.names.put({ ...stage.node(dir), subdirectories: 3 })
  stage.staging.names.put({ ...stage.node(published), sizeBytes: 5 })
  const top = stage.lookup('top')!
  stage.store.pins.remove(await stage.cid(top.ino), `staging:${top.ino}`)
  stage.store.pins.add(await stage.cid(published), 'staging:4711')
  t.match(await problems(wrong), [
    /^dir\/published: it has 5 bytes, and 1048577 under its CID$/,
    /^dir: it counts 3 directories in it, there are 0$/,
    /^node 4711: .*pinned for it, and not its content$/,
    /^top: .*is not pinned$/,
  ])
})

t.test('an object that nobody refers to is left over, and no damage', async t => {
  const left = await tree(t)
  left.stage.store.createObject()
  t.match(await checkStaging(left.stage.store), { faults: [], leftovers: 1 })
})
