/** What renames in the root of `staging/` leave pinned until the new content is. */
import t, { type Test } from 'tap'
import { checkStaging } from '../../src/staging/check.js'
import { bytes, FakeBackend, ROOT, Stage } from './support.js'

function rename(stage: Stage, from: string, to: string): void {
  stage.staging.rename(ROOT, bytes(from), ROOT, bytes(to), true)
}

async function isSound(t: Test, stage: Stage): Promise<void> {
  t.same((await checkStaging(stage.store)).faults, [])
}

t.test('a changed file moved over a published one keeps both contents pinned until its own is', async t => {
  const stage = await Stage.open(t)
  const [a, b] = [await stage.write('a', 'first a'), await stage.write('b', 'old b')]
  const old = [await stage.cid(a), await stage.cid(b)]
  await stage.staging.withoutPublishing(async () => {
    await stage.rewrite(a, 'second a')
    rename(stage, 'a', 'b')
    for (const cid of old) t.ok(stage.store.pins.has(cid), `${cid} is still pinned`)
    await isSound(t, stage)
  })
  const cid = await stage.cid(a)
  t.equal(Buffer.from(await stage.readCid(cid)).toString(), 'second a')
  t.ok(stage.store.pins.has(cid))
  for (const cid of old) t.notOk(stage.store.pins.has(cid), `${cid} is not pinned any more`)
  t.equal(stage.node(a).replaced, undefined)
  await isSound(t, stage)
})

t.test('so do several, one after the other, through the death of the daemon', async t => {
  const first = await Stage.open(t)
  const inos = []
  for (const name of ['a', 'b', 'c']) inos.push(await first.write(name, `old ${name}`))
  const old = await Promise.all(inos.map(ino => first.cid(ino)))
  await first.staging.stop()
  await first.rewrite(inos[0]!, 'new a')
  const fresh = await first.write('fresh', 'fresh')
  rename(first, 'a', 'b')
  rename(first, 'b', 'c')
  rename(first, 'fresh', 'c')
  for (const cid of old.slice(1)) t.ok(first.store.pins.has(cid))
  await first.crash()
  const second = await Stage.open(t, { dir: first.dir, idle: true })
  for (const cid of old.slice(1)) t.ok(second.store.pins.has(cid), 'also after a restart')
  await isSound(t, second)
  second.staging.start()
  t.ok(second.store.pins.has(await second.cid(fresh)))
  for (const cid of old) t.notOk(second.store.pins.has(cid))
  t.same(second.list(), ['c'])
  await isSound(t, second)
})

t.test('a file that goes before it is published lets go of what it had replaced', async t => {
  const stage = await Stage.open(t)
  const b = await stage.write('b', 'old b')
  const old = await stage.cid(b)
  await stage.staging.withoutPublishing(async () => {
    await stage.write('a', 'new')
    rename(stage, 'a', 'b')
    t.ok(stage.store.pins.has(old))
    stage.staging.unlink(ROOT, bytes('b'))
    t.notOk(stage.store.pins.has(old))
  })
  await isSound(t, stage)
})

t.test('a file that replaces its own content stays pinned', async t => {
  const stage = await Stage.open(t)
  const b = await stage.write('b', 'same')
  const cid = await stage.cid(b)
  const a = await stage.staging.withoutPublishing(async () => {
    const ino = await stage.write('a', 'same')
    rename(stage, 'a', 'b')
    return ino
  })
  t.ok(cid.equals(await stage.cid(a)))
  t.ok(stage.store.pins.has(cid))
  await isSound(t, stage)
})

t.test('the back-end, too, lets go of the old content only when it has the new', async t => {
  const backend = new FakeBackend()
  const stage = await Stage.open(t, { backend })
  const [a, b] = [await stage.write('a', 'first a'), await stage.write('b', 'old b')]
  const old = [await stage.cid(a), await stage.cid(b)]
  await stage.staging.withoutPublishing(async () => {
    await stage.rewrite(a, 'second a')
    rename(stage, 'a', 'b')
  })
  const cid = await stage.cid(a)
  const pinnedAt = backend.calls.indexOf(`pin b ${cid}`)
  t.ok(pinnedAt >= 0)
  t.ok(backend.calls.indexOf(`unpin ${old[1]}`) > pinnedAt || backend.pinned.has(`${old[1]}`))
})
