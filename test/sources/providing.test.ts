import t, { type Test } from 'tap'
import { type CID, keyOf } from '../../src/core/cid.js'
import { CidfsError } from '../../src/core/errors.js'
import { NODE_OFF, type NodeStatus } from '../../src/p2p/node-status.js'
import { Providing, type ProvidingOptions } from '../../src/sources/providing.js'
import type { Store } from '../../src/store/store.js'
import { links, openStore, putTree, QUIET, rawBlock } from '../store/support.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'

const ADDRESSES = ['/ip4/127.0.0.1/tcp/1']
const DHT = { name: 'DHT', lookups: 0, found: 0, errors: 0, lastError: null, tableSize: 1 }
const RUNNING: NodeStatus = { ...NODE_OFF, state: 'running', addresses: ADDRESSES, routers: [DHT] }

/** Notes what is provided. */
function network() {
  const fake = {
    provided: [] as string[],
    running: 0,
    most: 0,
    error: undefined as Error | undefined,
    node: RUNNING,
    status: async () => fake.node,
    async provide(cid: CID) {
      fake.most = Math.max(fake.most, ++fake.running)
      await new Promise(resolve => setImmediate(resolve))
      fake.running--
      if (fake.error !== undefined) throw fake.error
      fake.provided.push(keyOf(cid))
      return 1
    },
  }
  return fake
}

function start(
  t: Test,
  store: Store,
  net: ReturnType<typeof network>,
  options: Partial<ProvidingOptions> = {},
) {
  const providing = new Providing(store, net, { what: 'roots', links, ...options })
  t.teardown(() => providing.stop())
  providing.start()
  return providing
}

function pinTree(store: Store, name: string, count = 3) {
  const tree = putTree(store, name, count)
  store.pins.add(tree.root, 'test')
  return tree
}

t.test('the roots of pins are provided at the start, and what is pinned later, each once', async t => {
  const store = await openStore(t)
  const net = network()
  const first = pinTree(store, 'a')
  const providing = start(t, store, net)
  await until('the first is out', () => net.provided.length === 1)
  const second = pinTree(store, 'b')
  await until('the second is out', () => net.provided.length === 2)
  t.same(net.provided, [keyOf(first.root), keyOf(second.root)])
  t.match(providing.status(), { what: 'roots', provided: 2, queued: 0, lastError: null, paused: null })
})

t.test('with "all" every block below a pin is provided, shared ones once', async t => {
  const store = await openStore(t)
  const net = network()
  const tree = pinTree(store, 'a', 50)
  store.pins.add(tree.blocks[0]!.cid, 'test')
  start(t, store, net, { what: 'all' })
  await until('all are out', () => net.provided.length >= tree.blocks.length)
  t.equal(new Set(net.provided).size, tree.blocks.length)
  t.equal(net.provided.length, tree.blocks.length)
  t.ok(net.most <= 6, `${net.most} at a time`)
})

t.test('with "off" nothing is', async t => {
  const store = await openStore(t)
  const net = network()
  pinTree(store, 'a')
  const providing = start(t, store, net, { what: 'off' })
  t.match(providing.status(), { what: 'off', provided: 0, paused: 'switched off' })
  await providing.stop()
  t.same(net.provided, [])
})

t.test('a restart goes on where it was', async t => {
  const dir = await tempDir(t)
  const net = network()
  const before = await openStore(t, QUIET, dir)
  pinTree(before, 'a')
  const providing = start(t, before, net)
  await until('it is out', () => net.provided.length === 1)
  await providing.stop()
  await before.close()
  const after = await openStore(t, QUIET, dir)
  const added = pinTree(after, 'b')
  start(t, after, net)
  await until('the new one is out', () => net.provided.length === 2)
  t.equal(net.provided[1], keyOf(added.root), 'the old one is not due yet')
})

t.test('records are published again when the interval is over', async t => {
  const store = await openStore(t)
  const net = network()
  const { root } = pinTree(store, 'a')
  const providing = start(t, store, net, { intervalMs: 0 })
  await until('it is out', () => net.provided.length === 1)
  pinTree(store, 'b') // wakes it
  await until('both are out', () => net.provided.length >= 3)
  t.equal(net.provided.filter(key => key === keyOf(root)).length, 2)
  await providing.stop()
})

t.test('when nobody takes a record it pauses, says why, and tries again', async t => {
  const store = await openStore(t)
  const net = network()
  net.error = new CidfsError('UNREACHABLE', 'no peer took the record')
  pinTree(store, 'a')
  const providing = start(t, store, net)
  await until('it failed', () => providing.status().lastError !== null)
  t.match(providing.status(), { provided: 0, lastError: 'no peer took the record' })
  net.error = undefined
  await until('it is out', () => net.provided.length === 1)
  t.equal(providing.status().lastError, null)
})

t.test(
  'while nobody can dial the node, or it does not run, nothing is provided, with the reason',
  async t => {
    const store = await openStore(t)
    const net = network()
    pinTree(store, 'a')
    net.node = { ...RUNNING, addresses: [] }
    const providing = start(t, store, net)
    await until('it is shown', () => providing.status().paused !== null)
    t.match(providing.status().paused, /listens nowhere/)
    net.node = { ...RUNNING, routers: [] }
    await until('the next is shown', () => providing.status().paused?.includes('--dht'))
    net.node = { ...RUNNING, routers: [{ ...DHT, tableSize: 0 }] }
    await until('the last is shown', () => providing.status().paused?.includes('no peer of the DHT'))
    t.same(net.provided, [])
    net.node = RUNNING
    await until('it is out', () => net.provided.length === 1)
  },
)

t.test('what is pinned and not here is not provided', async t => {
  const store = await openStore(t)
  const net = network()
  store.pins.add(rawBlock('elsewhere').cid, 'test')
  const { root } = pinTree(store, 'a')
  start(t, store, net)
  await until('one is out', () => net.provided.length === 1)
  t.same(net.provided, [keyOf(root)])
})

t.test('a block that nobody takes does not hold up the others', async t => {
  const store = await openStore(t)
  const net = network()
  const refused = pinTree(store, 'a')
  const roots = ['b', 'c', 'd'].map(name => pinTree(store, name).root)
  const provide = net.provide
  net.provide = async cid => {
    if (cid.equals(refused.root)) throw new CidfsError('TIMEOUT', 'late')
    return provide(cid)
  }
  start(t, store, net, { what: 'all' })
  const out = () => roots.every(root => net.provided.includes(keyOf(root)))
  t.ok(await until('the others are out', out))
})
