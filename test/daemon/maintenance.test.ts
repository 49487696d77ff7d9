/** What fsck and garbage collection do beside other work, over a store of their own. */
import t, { type Test } from 'tap'
import type { CID } from '../../src/core/cid.js'
import type { FsckProgress } from '../../src/daemon/control-protocol.js'
import { Collector, checkStore } from '../../src/daemon/maintenance.js'
import type { NamedPins } from '../../src/staging/named-pins.js'
import type { Store } from '../../src/store/store.js'
import { bytes, content, ROOT, Stage } from '../staging/support.js'
import { putTree, rawBlock } from '../store/support.js'
import { until } from '../support/until.js'

const { signal } = new AbortController()

async function collector(t: Test): Promise<{ stage: Stage; collect: Collector }> {
  const stage = await Stage.open(t)
  return { stage, collect: new Collector(stage) }
}

/** As if its file had lost it. */
function lose(store: Store, cid: CID): void {
  store.forgetMissing(cid, store.locate(cid)!)
}

t.test('garbage collection leaves what is being imported, whenever it comes', async t => {
  const { stage, collect } = await collector(t)
  const { store } = stage
  const before = [rawBlock('held before', 5000)]
  store.putMany(before)
  const early = [...before, rawBlock('early', 5000)]
  const late = [...before, rawBlock('late', 5000)]
  const garbage = [rawBlock('garbage', 5000)]
  let release = () => {}
  const importing = collect.importing(async used => {
    store.putMany(early, used)
    await new Promise<void>(resolve => (release = resolve))
    store.putMany(late, used)
  })
  store.packs.rotate()
  store.putMany(garbage)
  const collecting = collect.collect(() => {}, signal)
  while (store.watcher === undefined) await new Promise(resolve => setImmediate(resolve))
  release()
  await Promise.all([importing, collecting])
  t.ok([...early, ...late].every(({ cid }) => store.has(cid)))
  t.notOk(store.has(garbage[0]!.cid))
  await collect.collect(() => {}, signal)
  t.notOk(
    [...early, ...late].some(({ cid }) => store.has(cid)),
    'nobody has pinned it',
  )
})

t.test('who asks for a collection waits for one that nobody has asked for, and for no other', async t => {
  const { collect } = await collector(t)
  const automatic = collect.collect(() => {}, signal, 1)
  await t.rejects(
    collect.collect(() => {}, signal, 1),
    { code: 'BUSY' },
  )
  const asked = collect.collect(() => {}, signal)
  await automatic
  await asked
  const running = collect.collect(() => {}, signal)
  await t.rejects(
    collect.collect(() => {}, signal),
    { code: 'BUSY', message: /running already/ },
  )
  await running
})

t.test('nothing is published while garbage is collected, and everything afterwards', async t => {
  const { stage, collect } = await collector(t)
  await stage.cid(await stage.write('before', content(1000)))
  const collecting = collect.collect(() => {}, signal)
  const ino = await stage.write('meanwhile', content(2000, 2))
  await collecting
  const cid = await stage.cid(ino)
  t.equal(Buffer.compare(await stage.readCid(cid), content(2000, 2)), 0)
})

t.test('what is open without a name, and what a rewrite began from, is kept', async t => {
  const { stage, collect } = await collector(t)
  const open = await stage.write('open', content(200_000, 1))
  const changed = await stage.write('changed', content(200_000, 2))
  const cids = [await stage.cid(open), await stage.cid(changed)]
  stage.staging.open(open, false, false)
  stage.staging.unlink(ROOT, bytes('open'))
  stage.staging.open(changed, true, false)
  await stage.staging.contents.write(changed, 0, bytes('new'), false)
  await collect.collect(() => {}, signal)
  t.ok(cids.every(cid => stage.store.has(cid)))
  stage.staging.close(open, false)
  stage.staging.purge(open)
  stage.staging.close(changed, true)
  await until('the new content is pinned', () => stage.state(changed) === 'pinned')
  t.equal((await collect.collect(() => {}, signal)).objects, 2)
  t.notOk(cids.some(cid => stage.store.has(cid)))
})

t.test('the CID of the root that was collected is made again when somebody asks', async t => {
  const { stage, collect } = await collector(t)
  const cid = await stage.staging.cidOf(ROOT)
  await collect.collect(() => {}, signal)
  t.notOk(stage.store.has(cid!), 'nobody had pinned it')
  t.same(await stage.staging.cidOf(ROOT), cid)
  t.ok(stage.store.has(cid!))
})

t.test('a pin that never was complete is no damage, one that was is', async t => {
  const { store } = await Stage.open(t)
  const { root, blocks } = putTree(store, 'tree', 3)
  store.pins.add(root, 'import')
  lose(store, blocks[1]!.cid)
  const phases = new Set<string>()
  const onProgress = ({ phase }: FsckProgress) => phases.add(phase)
  const options = { repair: false, onProgress }
  t.match(await checkStore(store, options), { damaged: false, partialPins: 1, faultCount: 0 })
  t.same([...phases], ['blocks', 'staging', 'pins'])
  const promised = { ofOwner: () => ({ state: 'pinned', name: Buffer.from('site') }) }
  const pins = promised as unknown as NamedPins
  t.match(await checkStore(store, { ...options, pins }), {
    damaged: true,
    partialPins: 0,
    faults: [{ path: 'pins/site', problem: `block ${blocks[1]!.cid} is not held` }],
  })
})
