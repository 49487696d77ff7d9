import t from 'tap'
import { CODEC_RAW, cidOf } from '../../src/core/cid.js'
import { MAX_PROVIDERS, type Provider, type Router, Routing } from '../../src/p2p/routing.js'

const PEER = '12D3KooWRf4pNDSgHhYcrJbAShTYsjo5Uwo8oe4uYXXUMwa4VagH'
const OTHER = '12D3KooWCFxpKzLhHns34tufqW4AE7JHwTF5b6FoceJZh1tGLhJW'
const ADDRESS = '/ip4/192.0.2.1/tcp/4001'

const cid = (seed: number) => cidOf(CODEC_RAW, Uint8Array.of(seed))
const patient = () => new AbortController().signal

interface FakeRouter extends Router {
  asked: number
}

/** A router that knows these providers of everything. */
function router(name: string, providers: Provider[], more: Partial<Router> = {}): FakeRouter {
  const fake = {
    name,
    asked: 0,
    async *findProviders() {
      fake.asked++
      yield* providers
    },
    ...more,
  }
  return fake
}

async function find(routing: Routing, seed = 1): Promise<Provider[]> {
  const found: Provider[] = []
  for await (const provider of routing.findProviders(cid(seed), patient())) found.push(provider)
  return found
}

t.test('providers come from all routers, and are remembered', async t => {
  const [a, b] = [router('a', [{ id: PEER, addrs: [ADDRESS] }]), router('b', [{ id: OTHER, addrs: [] }])]
  const routing = new Routing([a, b])
  t.same((await find(routing)).map(({ id }) => id).sort(), [PEER, OTHER].sort())
  t.equal((await find(routing)).length, 2)
  t.same([a.asked, b.asked], [1, 1], 'the second time from memory')
  await find(routing, 2)
  t.equal(a.asked, 2, 'for another block they are asked')
  routing.forget(cid(1))
  await find(routing)
  t.equal(a.asked, 3)
})

t.test('that there is none is remembered as well', async t => {
  const none = router('none', [])
  const routing = new Routing([none])
  t.same(await find(routing), [])
  t.same(await find(routing), [])
  t.equal(none.asked, 1)
})

t.test('two that look for one block at a time share the lookup', async t => {
  const one = router('one', [{ id: PEER, addrs: [] }])
  const routing = new Routing([one])
  await Promise.all([find(routing), find(routing), find(routing)])
  t.equal(one.asked, 1)
})

t.test('a record with ten thousand addresses is cut to those that can be dialled', async t => {
  const nonsense = Array.from({ length: 500 }, (_, i) => `/ip4/192.0.2.1/udp/${i}/quic-v1`)
  const many = Array.from({ length: 10_000 }, (_, i) => `/ip4/192.0.2.1/tcp/${i + 1}`)
  const routing = new Routing([router('a', [{ id: PEER, addrs: [...nonsense, ...many] }])])
  const [provider] = await find(routing)
  t.equal(provider?.addrs.length, 16)
  t.ok(provider?.addrs.every(address => address.includes('/tcp/')))
})

t.test('thousands of providers are cut to a few, and what is no peer id is passed over', async t => {
  async function* flood() {
    for (let i = 0; ; i++) {
      const id = `12D3KooW${'ABCDEFGH'[i % 8]}`
      yield { id: i % 2 === 0 ? id : `${i}`.repeat(40), addrs: [] }
      yield { id: [PEER, OTHER][i % 2]!, addrs: [] }
      if (i > 5_000) return
    }
  }
  const routing = new Routing([router('flood', [], { findProviders: flood })])
  const found = await find(routing)
  t.same(found.map(({ id }) => id).sort(), [PEER, OTHER].sort())
  t.ok(found.length <= MAX_PROVIDERS)
})

t.test('a peer id in any spelling is one peer', async t => {
  const asKey = 'k51qzi5uqu5djdczd6zw0grmo23j2vkj9uzvujencg15s5rlkq0ss4ivll8wqw'
  const routing = new Routing([router('a', [{ id: asKey, addrs: [] }])])
  const [provider] = await find(routing)
  t.match(provider?.id, /^12D3KooW/)
})

t.test('a router that fails is counted, and the others answer', async t => {
  const broken: Router = {
    name: 'broken',
    // biome-ignore lint/correctness/useYield: it fails before
    async *findProviders() {
      throw new Error('HTTP 500')
    },
  }
  const routing = new Routing([broken, router('b', [{ id: PEER, addrs: [] }])])
  t.equal((await find(routing)).length, 1)
  t.match(routing.status(), [
    { name: 'broken', lookups: 1, found: 0, errors: 1, lastError: 'HTTP 500' },
    { name: 'b', lookups: 1, found: 1, errors: 0 },
  ])
})

t.test('lookups at a time are bounded', async t => {
  const hang: Router = {
    name: 'hang',
    async *findProviders(_, signal) {
      await new Promise(resolve => signal.addEventListener('abort', resolve))
    },
  }
  const routing = new Routing([hang])
  const stop = new AbortController()
  const running = Array.from({ length: 64 }, (_, i) => routing.findProviders(cid(i), stop.signal).next())
  await t.rejects(routing.findProviders(cid(100), stop.signal).next(), { code: 'BUSY' })
  stop.abort()
  await Promise.all(running)
  t.same(await find(new Routing([]), 100), [])
})

t.test('a record is provided when one router takes it, and the reasons are given when none does', async t => {
  const taking = router('taking', [], { provide: async () => 3 })
  const refusing = router('refusing', [], { provide: () => Promise.reject(new Error('no')) })
  const reading = router('reading', [])
  t.equal(await new Routing([taking, refusing, reading]).provide(cid(1), patient()), 3)
  await t.rejects(new Routing([refusing, reading]).provide(cid(1), patient()), {
    code: 'UNREACHABLE',
    message: 'refusing: no',
  })
  await t.rejects(new Routing([reading]).provide(cid(1), patient()), { message: /no peer took/ })
})

t.test('values come from every router once', async t => {
  const values = (...texts: string[]) => ({
    async *getValue() {
      yield* texts.map(text => Buffer.from(text))
    },
    putValue: async () => texts.length,
  })
  const routing = new Routing([
    router('a', [], values('1', '2')),
    router('b', [], values('2', '3')),
    router('c', []),
  ])
  const found: string[] = []
  for await (const value of routing.getValue(Buffer.from('/ipns/x'), patient())) found.push(`${value}`)
  t.same(found.sort(), ['1', '2', '3'])
  t.equal(await routing.putValue(Buffer.from('k'), Buffer.from('v'), patient()), 4)
})
