/** Bitswap's peers as a source of the engine. */
import t, { type Test } from 'tap'
import { Bitswap } from '../../src/bitswap/bitswap.js'
import { keyOf } from '../../src/core/cid.js'
import { Engine } from '../../src/sources/engine.js'
import { PeersSource } from '../../src/sources/peers.js'
import type { Source } from '../../src/sources/source.js'
import { FakePeer, rawBlock, rawBlocks } from '../bitswap/support.js'
import { until } from '../support/until.js'
import { FakeSource, fails, has } from './fake-source.js'

t.setTimeout(30_000)
const NOW = { deadlineMs: 10_000, priority: 'demand' } as const
const LATER = { deadlineMs: 10_000, priority: 'read-ahead' } as const

function engineWith(t: Test, ...others: Source[]) {
  const bitswap = new Bitswap({ patienceMs: 0 })
  const engine = new Engine([new PeersSource(bitswap.client), ...others])
  t.teardown(async () => {
    await engine.close()
    await bitswap.close()
  })
  return { bitswap, engine }
}

t.test('a block of a peer is had before a gateway is asked', async t => {
  const block = rawBlock(3000, 1)
  const gateway = new FakeSource('gateway', has(block.bytes), 32, 200)
  const { bitswap, engine } = engineWith(t, gateway)
  new FakePeer('a', [block]).connect(bitswap)
  t.equal(Buffer.compare(await engine.start(block.cid, NOW).promise, block.bytes), 0)
  t.same(gateway.asked, [])
  t.match(await engine.status(), [{ name: 'peers', kind: 'peer', state: 'ok', blocks: 1, bytes: 3000 }, {}])
})

t.test('what no peer has comes from a gateway, at once', async t => {
  const block = rawBlock(3000, 2)
  const { bitswap, engine } = engineWith(t, new FakeSource('gateway', has(block.bytes), 32, 200))
  new FakePeer('a').connect(bitswap)
  t.equal(Buffer.compare(await engine.start(block.cid, NOW).promise, block.bytes), 0)
  t.match(await engine.status(), [{ name: 'peers', errors: 0 }, { blocks: 1 }])
})

t.test('what nobody has is unreachable, and it is said what each said', async t => {
  const { bitswap, engine } = engineWith(t, new FakeSource('gateway', fails('absent')))
  new FakePeer('a').connect(bitswap)
  await t.rejects(engine.start(rawBlock(1, 3).cid, NOW).promise, {
    code: 'UNREACHABLE',
    message: /peers: the connected peer has not got it; gateway: absent/,
  })
})

t.test('without a peer, the source says so', async t => {
  const { engine } = engineWith(t)
  await t.rejects(engine.start(rawBlock(1, 4).cid, NOW).promise, {
    code: 'UNREACHABLE',
    message: /peers: no peer is connected/,
  })
  t.match(await engine.status(), [{ state: 'failed', lastError: 'no peer is connected' }])
})

t.test('a guess that has become a read goes before the other guesses', async t => {
  const { bitswap, engine } = engineWith(t)
  const blocks = rawBlocks(200, 500, 5)
  const peer = new FakePeer('a', blocks, { delayMs: 30 }).connect(bitswap)
  const races = blocks.map(({ cid }) => engine.start(cid, LATER))
  races[199]!.raise()
  await Promise.all(races.map(race => race.promise))
  t.ok(peer.asked.indexOf(keyOf(blocks[199]!.cid)) < 120)
})

t.test('a cancelled race withdraws the want', async t => {
  const { bitswap, engine } = engineWith(t)
  const peer = new FakePeer('a', [], { silent: true }).connect(bitswap)
  const race = engine.start(rawBlock(1, 6).cid, NOW)
  await until('it is asked', () => peer.asked.length === 1)
  race.cancel()
  await t.rejects(race.promise, { code: 'INTERRUPTED' })
  await until('it is told', () => peer.cancelled.length === 1)
})
