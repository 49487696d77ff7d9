/** What the client does when nobody who is connected has a block: routing, and connections to whom it names. */
import t, { type Test } from 'tap'
import { Bitswap } from '../../src/bitswap/bitswap.js'
import type { Discovery, Provider } from '../../src/bitswap/discovery.js'
import { type CID, keyOf } from '../../src/core/cid.js'
import { until } from '../support/until.js'
import { parentOf } from './client-fixture.js'
import { FakePeer, rawBlock, rawBlocks, type TestBlock } from './support.js'

t.setTimeout(60_000)

/** Routing that knows what it was told, and a network in which some can be reached. */
class FakeRouting implements Discovery {
  readonly #providers = new Map<string, string[]>()
  readonly #reachable = new Map<string, FakePeer>()
  readonly searched: string[] = []
  readonly dialled: string[] = []
  searching = 0
  mostSearching = 0
  /** Ends each search, once it has named whom it knows. */
  pause: (signal: AbortSignal) => Promise<void> = async () => {}
  bitswap: Bitswap | undefined

  provide(cid: CID, ...peers: (FakePeer | string)[]): void {
    this.#providers.set(
      keyOf(cid),
      peers.map(peer => (typeof peer === 'string' ? peer : peer.peerId)),
    )
    for (const peer of peers) if (typeof peer !== 'string') this.#reachable.set(peer.peerId, peer)
  }

  async *findProviders(cid: CID, signal: AbortSignal): AsyncGenerator<Provider> {
    this.searched.push(keyOf(cid))
    this.mostSearching = Math.max(this.mostSearching, ++this.searching)
    try {
      for (const id of this.#providers.get(keyOf(cid)) ?? []) yield { id, addrs: [] }
      await this.pause(signal)
    } finally {
      this.searching--
    }
  }

  async connect({ id }: Provider): Promise<void> {
    this.dialled.push(id)
    const peer = this.#reachable.get(id)
    if (peer === undefined) throw new Error('unreachable')
    peer.connect(this.bitswap!)
  }
}

function routed(t: Test) {
  const routing = new FakeRouting()
  const bitswap = new Bitswap({ discovery: routing, patienceMs: 0 })
  routing.bitswap = bitswap
  t.teardown(() => bitswap.close())
  const get = (cid: CID, signal = new AbortController().signal) => bitswap.client.get(cid, { signal })
  return { routing, bitswap, get }
}

const waitForAbort = (signal: AbortSignal) =>
  new Promise<void>(resolve => signal.addEventListener('abort', () => resolve()))

t.test('a provider that routing names is dialled and read from', async t => {
  const { routing, bitswap, get } = routed(t)
  const block = rawBlock(5000, 1)
  const poor = new FakePeer('poor').connect(bitswap)
  routing.provide(block.cid, 'unreachable', new FakePeer('rich', [block]))
  t.equal(Buffer.compare(await get(block.cid), block.bytes), 0)
  t.same(routing.dialled.sort(), ['rich', 'unreachable'])
  t.ok(poor.asked.length + poor.probed.length > 0, 'those who are connected were asked first')
})

t.test('the first provider that answers is enough, though routing goes on searching', async t => {
  const { routing, get } = routed(t)
  const block = rawBlock(5000, 2)
  routing.pause = waitForAbort
  routing.provide(block.cid, new FakePeer('rich', [block]))
  t.equal(Buffer.compare(await get(block.cid), block.bytes), 0)
  await until('the search is ended', () => routing.searching === 0)
})

t.test(
  'a block that nobody provides is absent when the search is over, and not searched again at once',
  async t => {
    const { routing, bitswap, get } = routed(t)
    const { cid } = rawBlock(5000, 3)
    await t.rejects(get(cid), /no peer is connected/)
    new FakePeer('poor').connect(bitswap)
    await t.rejects(get(cid), /the connected peer has not got it, and no other provider was found/)
    t.equal(routing.searched.length, 1)
  },
)

t.test('who provides the root of a DAG is dialled for a block of it that nobody provides', async t => {
  const { routing, bitswap, get } = routed(t)
  const children = rawBlocks(3, 5000, 4)
  const root = parentOf(children)
  new FakePeer('shallow', [root]).connect(bitswap)
  await get(root.cid)
  routing.provide(root.cid, new FakePeer('deep', [root, ...children]))
  for (const { cid, bytes } of children) t.equal(Buffer.compare(await get(cid), bytes), 0)
  t.same(routing.dialled, ['deep'], 'once')
})

t.test('what is read ahead has only the root searched for', async t => {
  const { routing, bitswap, get } = routed(t)
  const children = rawBlocks(5, 5000, 9)
  const root = parentOf(children)
  new FakePeer('shallow', [root]).connect(bitswap)
  await get(root.cid)
  const guess = ({ cid }: TestBlock) =>
    bitswap.client.get(cid, { signal: new AbortController().signal, urgency: 'read-ahead' })
  for (const child of children) await t.rejects(guess(child), /no other provider was found/)
  t.same(routing.searched, [keyOf(root.cid)])
})

t.test('a read that gets nowhere has providers looked for while a peer is silent', async t => {
  const { routing, bitswap, get } = routed(t)
  const block = rawBlock(5000, 5)
  new FakePeer('silent', [], { version: '1.1.0' }).connect(bitswap)
  routing.provide(block.cid, new FakePeer('rich', [block]))
  t.equal(Buffer.compare(await get(block.cid), block.bytes), 0)
})

t.test('searches are few at a time, and end with their readers', async t => {
  const { routing, get } = routed(t)
  routing.pause = waitForAbort
  const abort = new AbortController()
  const reads = rawBlocks(50, 10, 6).map(({ cid }) => get(cid, AbortSignal.any([abort.signal])))
  for (const read of reads) read.catch(() => {})
  await until('some are running', () => routing.searching === 8)
  abort.abort()
  await until('none is', () => routing.searching === 0)
  t.equal(routing.mostSearching, 8)
  t.equal(routing.searched.length, 8, 'those that had not begun never do')
  for (const read of reads) await t.rejects(read)
})

t.test('routing that fails is as good as none', async t => {
  const { routing, bitswap, get } = routed(t)
  routing.pause = () => Promise.reject(new Error('no route'))
  new FakePeer('poor').connect(bitswap)
  await t.rejects(get(rawBlock(10, 7).cid), /no other provider was found/)
})

t.test('of very many providers only some are dialled', async t => {
  const { routing, get } = routed(t)
  const { cid } = rawBlock(5000, 8)
  routing.provide(cid, ...Array.from({ length: 10_000 }, (_, i) => `nobody${i}`))
  await t.rejects(get(cid), /no peer is connected/)
  t.ok(routing.dialled.length <= 64, `${routing.dialled.length}`)
})
