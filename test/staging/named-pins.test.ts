import { join } from 'node:path'
import t, { type Test } from 'tap'
import { CID, CODEC_DAG_PB, Digest, keyOf } from '../../src/core/cid.js'
import { CidfsError } from '../../src/core/errors.js'
import { BlockService } from '../../src/sources/block-service.js'
import { NamedPins } from '../../src/staging/named-pins.js'
import { gc } from '../../src/store/gc.js'
import { Store } from '../../src/store/store.js'
import type { Links } from '../../src/store/walk.js'
import { links } from '../../src/unixfs/inspect.js'
import { TestNetwork } from '../fs/support.js'
import { QUIET } from '../store/support.js'
import { Dag, link, pattern } from '../support/dag.js'
import { atEnd, tempDir } from '../support/temp.js'
import { until } from '../support/until.js'
import { OWNER } from './support.js'

interface Options {
  dir?: string
  network?: TestNetwork
  /** Fetches nothing until `pins.start()`. */
  idle?: boolean
  firstRetryMs?: number
}

/** Pins over a store of their own; ends with the test, or with `close`. */
async function open(t: Test, options: Options = {}) {
  const { network = new TestNetwork(), idle = false, firstRetryMs = 5 } = options
  const dir = options.dir ?? join(await tempDir(t), 'state')
  const store = await Store.open(dir, QUIET)
  const blocks = new BlockService(store, network, { readDeadlineMs: 10_000 })
  const pins = new NamedPins(store, blocks, { firstRetryMs })
  let closed = false
  const close = async () => {
    if (closed) return
    closed = true
    await pins.stop()
    await store.close()
  }
  atEnd(t, close)
  if (!idle) pins.start()
  const create = (text: string, cid: CID) => pins.create(name(text), cid, OWNER).ino
  const becomes = (ino: number, state: string) =>
    until(`pin ${ino} is ${state}`, () => pins.find(ino)?.state === state)
  const names = () => [...pins.list()].map(pin => `${pin.name}`)
  return { dir, store, network, blocks, pins, close, create, becomes, names, dag: new Dag(network) }
}

function gate(): { opened: Promise<void>; open: () => void } {
  let open = () => {}
  const opened = new Promise<void>(resolve => {
    open = resolve
  })
  return { opened, open }
}

function name(text: string): Buffer {
  return Buffer.from(text)
}

/** A directory of a few files. */
function folder(dag: Dag, seed: number): CID {
  return dag.directory([0, 1, 2].map(i => link(dag.raw(pattern(50, seed * 10 + i)), `${i}`)))
}

t.test('a pin appears at once, and all of it comes', async t => {
  const { pins, store, dag, create, becomes } = await open(t)
  const cid = folder(dag, 1)
  const ino = create('a', cid)
  t.match(pins.get(ino), { state: 'queued', tries: 0, error: undefined, uid: OWNER.uid })
  t.ok(pins.lookup(name('a'))?.cid.equals(cid))
  t.ok(store.pins.has(cid), 'held from the first moment on')
  await becomes(ino, 'pinned')
  t.ok(dag.cids.every(block => store.has(block)))
  t.match(pins.get(ino), { tries: 0, error: undefined, progress: undefined })
})

t.test('a name is given once, and a name too long never', async t => {
  const { pins, dag, create, names } = await open(t, { idle: true })
  create('a', folder(dag, 1))
  t.throws(() => create('a', folder(dag, 2)), { code: 'EXISTS' })
  t.throws(() => create('x'.repeat(256), folder(dag, 2)), { code: 'NAME_TOO_LONG' })
  create('x'.repeat(255), folder(dag, 2))
  t.throws(() => pins.remove(name('b')), { code: 'NOT_FOUND' })
  t.throws(() => pins.rename(name('b'), name('c'), true), { code: 'NOT_FOUND' })
  t.throws(() => pins.rename(name('a'), name('y'.repeat(256)), true), { code: 'NAME_TOO_LONG' })
  t.same(names(), ['a', 'x'.repeat(255)])
})

t.test('removing a name unpins, unless another name has the same content', async t => {
  const { pins, store, dag, create, becomes } = await open(t)
  const cid = folder(dag, 1)
  const inos = [create('a', cid), create('b', cid)]
  for (const ino of inos) await becomes(ino, 'pinned')
  pins.remove(name('a'))
  t.ok(store.pins.has(cid))
  pins.remove(name('b'))
  t.notOk(store.pins.has(cid))
  t.throws(() => pins.get(inos[0]!), { code: 'STALE' })
  t.not(create('a', cid), inos[0], 'ids are never given twice')
})

t.test('removing a name ends its fetching', async t => {
  const { pins, blocks, network, dag, create, becomes } = await open(t)
  network.hang = true
  const ino = create('a', folder(dag, 1))
  await becomes(ino, 'fetching')
  await until('something is in flight', () => blocks.inFlight > 0)
  pins.remove(name('a'))
  await until('nothing is in flight', () => blocks.inFlight === 0)
  t.equal(pins.find(ino), undefined)
})

t.test('a failure is told, tried again with back-off, and forgotten when all has come', async t => {
  const { pins, network, dag, create, becomes } = await open(t)
  const cid = folder(dag, 1)
  const bytes = network.blocks.get(keyOf(cid))!
  network.remove(cid)
  const ino = create('a', cid)
  await until('it was tried twice', () => pins.get(ino).tries >= 2)
  t.match(pins.get(ino).error, /nobody has/)
  t.not(pins.get(ino).state, 'pinned')
  network.add(cid, bytes)
  await becomes(ino, 'pinned')
  t.match(pins.get(ino), { tries: 0, error: undefined })
})

t.test('a failure waits for its turn, and for nobody who asks anew', async t => {
  const { pins, network, dag, create, becomes } = await open(t, { firstRetryMs: 3_600_000 })
  const [good, bad] = [folder(dag, 1), folder(dag, 2)]
  const bytes = network.blocks.get(keyOf(bad))!
  network.remove(bad)
  const ino = create('bad', bad)
  await becomes(ino, 'failed')
  await becomes(create('good', good), 'pinned')
  t.match(pins.get(ino), { state: 'failed', tries: 1 })
  network.add(bad, bytes)
  await until('the failure is not believed any more', () => {
    pins.retry(ino)
    return pins.get(ino).state === 'pinned'
  })
})

t.test('a missing block in the middle costs only itself', async t => {
  const { pins, store, network, dag, create, becomes } = await open(t, { firstRetryMs: 3_600_000 })
  const cid = folder(dag, 1)
  network.remove(dag.cids[1]!)
  const ino = create('a', cid)
  await becomes(ino, 'failed')
  t.match(pins.get(ino).error, new RegExp(`${dag.cids[1]}`))
  t.same(
    dag.cids.map(block => store.has(block)),
    [true, false, true, true],
  )
})

t.test('fetching goes on where it was after a restart', async t => {
  const network = new TestNetwork()
  const before = await open(t, { network })
  const cid = folder(before.dag, 1)
  const late = before.dag.cids[2]!
  const bytes = network.blocks.get(keyOf(late))!
  network.remove(late)
  const ino = before.create('a', cid)
  await until('it was tried', () => before.pins.get(ino).tries > 0)
  await before.close()
  network.add(late, bytes)
  const asked = network.requests.length
  const after = await open(t, { network, dir: before.dir, idle: true })
  t.match(after.pins.lookup(name('a')), { ino, state: 'failed' }, 'nothing is forgotten')
  t.ok(after.pins.get(ino).tries > 0)
  after.pins.start()
  await after.becomes(ino, 'pinned')
  t.equal(network.requests.length, asked + 1, 'only what was missing was asked for')
  t.ok(after.create('b', cid) > ino)
})

t.test('stopping in the middle of fetching is not a failure', async t => {
  const network = new TestNetwork()
  const before = await open(t, { network })
  network.hang = true
  const ino = before.create('a', folder(before.dag, 1))
  await until('it waits', () => before.blocks.inFlight > 0)
  await before.close()
  network.hang = false
  const after = await open(t, { network, dir: before.dir, idle: true })
  t.match(after.pins.get(ino), { state: 'queued', tries: 0 })
  after.pins.start()
  await after.becomes(ino, 'pinned')
})

t.test('two DAGs are fetched at a time, the others wait', async t => {
  const { pins, network, dag, create, becomes } = await open(t)
  network.hang = true
  const inos = [1, 2, 3, 4].map(seed => create(`${seed}`, folder(dag, seed)))
  await becomes(inos[1]!, 'fetching')
  t.same(
    inos.map(ino => pins.get(ino).state),
    ['fetching', 'fetching', 'queued', 'queued'],
  )
  network.hang = false
  pins.remove(name('1'))
  pins.remove(name('2'))
  for (const ino of inos.slice(2)) await becomes(ino, 'pinned')
})

t.test('a rename keeps the pin and its id', async t => {
  const { pins, store, dag, create, becomes, names } = await open(t)
  const cid = folder(dag, 1)
  const ino = create('a', cid)
  await becomes(ino, 'pinned')
  pins.rename(name('a'), name('b'), false)
  t.same(names(), ['b'])
  t.match(pins.lookup(name('b')), { ino, state: 'pinned' })
  t.equal(pins.lookup(name('a')), undefined)
  t.equal(store.pins.owners(cid).length, 1)
})

t.test('a rename while it is fetched does not disturb it', async t => {
  const { pins, network, dag, create, becomes } = await open(t)
  network.hang = true
  const ino = create('a', folder(dag, 1))
  await becomes(ino, 'fetching')
  pins.rename(name('a'), name('b'), false)
  t.equal(pins.get(ino).state, 'fetching')
  network.hang = false
  await pins.stop()
  pins.start()
  await becomes(ino, 'pinned')
  t.match(pins.lookup(name('b')), { ino })
})

t.test('what a rename replaces stays pinned until the new one is complete', async t => {
  const { pins, store, network, dag, create, becomes, names } = await open(t)
  const [old, next] = [folder(dag, 1), folder(dag, 2)]
  await becomes(create('a', old), 'pinned')
  const bytes = network.blocks.get(keyOf(next))!
  network.remove(next)
  const ino = create('new', next)
  await until('it was tried', () => pins.get(ino).tries > 0)
  t.throws(() => pins.rename(name('new'), name('a'), false), { code: 'EXISTS' })
  pins.rename(name('new'), name('a'), true)
  t.same(names(), ['a'])
  t.ok(store.pins.has(old) && store.pins.has(next))
  network.add(next, bytes)
  await becomes(ino, 'pinned')
  t.notOk(store.pins.has(old))
  t.ok(store.pins.has(next))
})

t.test('what a pin keeps of another goes with it', async t => {
  const { pins, store, dag, create } = await open(t, { idle: true })
  const [old, next] = [folder(dag, 1), folder(dag, 2)]
  create('a', old)
  create('new', next)
  pins.rename(name('new'), name('a'), true)
  pins.remove(name('a'))
  t.notOk(store.pins.has(old))
  t.notOk(store.pins.has(next))
})

t.test('replacing content by itself, in another version of its CID, keeps it pinned', async t => {
  const { pins, store, dag, create, becomes } = await open(t, { idle: true })
  const cid = folder(dag, 1)
  const v0 = CID.createV0(Digest.decode(cid.multihash.bytes) as Parameters<typeof CID.createV0>[0])
  create('a', v0)
  const ino = create('new', cid)
  pins.rename(name('new'), name('a'), true)
  pins.start()
  await becomes(ino, 'pinned')
  t.ok(store.pins.has(cid))
})

t.test('a block that is collected while the way to it was missing is fetched again', async t => {
  const { store, network, dag, create, becomes } = await open(t)
  const leaf = dag.raw(pattern(5000))
  const late = dag.raw(pattern(60))
  const root = dag.directory([link(leaf, 'a'), link(late, 'b')])
  const kept = new Dag({ add: (cid, bytes) => store.put(cid, bytes) })
  let chain = kept.directory([])
  for (let i = 0; i < 9; i++) chain = kept.directory([link(chain, 'next')])
  store.put(leaf, network.blocks.get(keyOf(leaf))!)
  const gates = new Map([root, late].map(cid => [keyOf(cid), gate()]))
  const fetch = network.fetch.bind(network)
  network.fetch = async (cid, options) => {
    await gates.get(keyOf(cid))?.opened
    return fetch(cid, options)
  }
  const ino = create('a', root)
  await becomes(ino, 'fetching')
  // the root comes after it was looked for, and before what nobody wants is removed
  const slowly: Links = (cid, bytes) => {
    gates.get(keyOf(root))?.open()
    for (const end = performance.now() + 5; performance.now() < end; );
    return links(cid, bytes)
  }
  await gc(store, { links: slowly, roots: [chain] })
  t.ok(store.has(root) && !store.has(leaf), 'the leaf went')
  gates.get(keyOf(late))?.open()
  await becomes(ino, 'pinned')
  t.ok([root, leaf, late].every(cid => store.has(cid)))
})

t.test('after a loss of blocks, what is missing is fetched again', async t => {
  const { pins, store, network, dag, create, becomes } = await open(t)
  const root = folder(dag, 1)
  const ino = create('a', root)
  await becomes(ino, 'pinned')
  t.same([...pins.pending()], [])
  const lost = dag.cids[0]!
  store.forgetMissing(lost, store.locate(lost)!)
  const asked = network.requests.length
  pins.recheck()
  t.match([...pins.pending()], [{ ino, state: 'queued' }])
  await becomes(ino, 'pinned')
  t.ok(store.has(lost))
  t.equal(network.requests.length, asked + 1)
})

t.test('an index that cannot be written delays a pin, and ends nothing', async t => {
  const { store, network, dag, create, becomes } = await open(t)
  const root = folder(dag, 1)
  const { opened, open: release } = gate()
  const fetch = network.fetch.bind(network)
  network.fetch = (cid, options) => opened.then(() => fetch(cid, options))
  const ino = create('a', root)
  await becomes(ino, 'fetching')
  const transaction = store.transaction.bind(store)
  let refused = 0
  store.transaction = () => {
    refused++
    throw new CidfsError('NO_SPACE', 'no space')
  }
  release()
  await until('it could not be written', () => refused >= 2)
  store.transaction = transaction
  await becomes(ino, 'pinned')
})

t.test('two names are exchanged', async t => {
  const { pins, dag, create } = await open(t, { idle: true })
  const [a, b] = [create('a', folder(dag, 1)), create('b', folder(dag, 2))]
  pins.exchange(name('a'), name('b'))
  t.match([pins.lookup(name('a')), pins.lookup(name('b'))], [{ ino: b }, { ino: a }])
  pins.exchange(name('a'), name('a'))
  t.match(pins.lookup(name('a')), { ino: b })
  t.throws(() => pins.exchange(name('a'), name('c')), { code: 'NOT_FOUND' })
})

t.test('an identity CID is pinned without a pin in the store', async t => {
  const { pins, store, create, becomes } = await open(t)
  const cid = CID.createV1(CODEC_DAG_PB, Digest.create(0, new Uint8Array(0)))
  const ino = create('a', cid)
  await becomes(ino, 'pinned')
  t.notOk(store.pins.has(cid))
  pins.remove(name('a'))
})

t.test('a listing goes on behind an id, through thousands', async t => {
  const { pins, dag, create, store } = await open(t, { idle: true })
  const cid = folder(dag, 1)
  const inos: number[] = []
  store.transaction(() => {
    for (let i = 0; i < 600; i++) inos.push(create(`${i}`, cid))
  })
  t.same(
    [...pins.list()].map(pin => pin.ino),
    inos,
  )
  pins.remove(name('300'))
  t.equal([...pins.list(inos[299])].at(0)?.ino, inos[301])
})

t.test('the owner in the store leads back to the pin', async t => {
  const { pins, store, dag, create } = await open(t, { idle: true })
  const cid = folder(dag, 1)
  const ino = create('a', cid)
  const [owner] = store.pins.owners(cid)
  t.equal(pins.ofOwner(owner!)?.ino, ino)
  for (const other of ['import', 'staging:17', 'pin:', 'pin:x', `pin:${ino + 1}`]) {
    t.equal(pins.ofOwner(other), undefined, other)
  }
})
