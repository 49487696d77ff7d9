/** The bitswap client among peers that stall, lie, break the protocol, or send what nobody asked for. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { Bitswap } from '../../src/bitswap/bitswap.js'
import { until } from '../support/until.js'
import { get, getAll, node, parentOf, peerOf } from './client-fixture.js'
import { FakePeer, type FakePeerOptions, rawBlock, rawBlocks, type TestBlock } from './support.js'

t.setTimeout(60_000)

t.test(
  'a peer that answers nothing is passed over, then left alone; its link stays, for it may only ask',
  async t => {
    const bitswap = node(t, { maxSilenceMs: 1500 })
    const blocks = rawBlocks(20, 3000, 13)
    const silent = peerOf(bitswap, 'silent', [], { silent: true })
    await getAll(t, bitswap, await sharedBy(bitswap, silent, blocks))
    const waiting = waitFor(bitswap, 4000)
    await until('it is left alone', () => bitswap.client.banned.length > 0)
    t.match(bitswap.client.banned, [{ peerId: 'silent', reason: /^it was silent for/ }])
    t.equal(bitswap.client.connections, 1)
    t.same(silent.dropped, [])
    await waiting
  },
)

t.test('a peer that says it has blocks and sends none is dropped', async t => {
  const bitswap = node(t, { maxSilenceMs: 1500 })
  const blocks = rawBlocks(20, 3000, 24)
  const root = parentOf(blocks)
  peerOf(bitswap, 'honest', [root, ...blocks])
  const liar = peerOf(bitswap, 'liar', [root, ...blocks])
  liar.sendBlock = () => {}
  await getAll(t, bitswap, [root])
  await until('it has said that it has it', () => liar.sent > 0)
  await getAll(t, bitswap, blocks)
  await until('it is dropped', () => liar.dropped.length > 0)
  t.match(liar.dropped[0], /^it was silent|^it does not send/)
})

/** Something that nobody has is wanted for so long. */
async function waitFor(bitswap: Bitswap, ms: number): Promise<void> {
  await get(bitswap, rawBlock(10, 14).cid, AbortSignal.timeout(ms)).catch(() => {})
}

/** The blocks, wanted of the first peer before a second one comes that has them. */
async function sharedBy(bitswap: Bitswap, first: FakePeer, blocks: TestBlock[]): Promise<TestBlock[]> {
  for (const { cid } of blocks) void get(bitswap, cid).catch(() => {})
  await until('the first is asked', () => first.asked.length === blocks.length)
  peerOf(bitswap, 'second', blocks)
  return blocks
}

const OFFENCES: Record<string, [FakePeerOptions, RegExp]> = {
  'sends wrong bytes': [{ wrong: bytes => bytes.map(byte => byte ^ 1) }, /no block it was asked for/],
  'sends blocks cut short': [{ wrong: bytes => bytes.subarray(1) }, /no block it was asked for/],
  'sends blocks with something added': [
    { wrong: bytes => Buffer.concat([bytes, bytes]) },
    /no block it was asked/,
  ],
  'sends garbage frames': [{ garbage: Buffer.alloc(50, 0xff) }, /broke the protocol/],
  'sends frames that are too long': [{ garbage: Buffer.of(0xff, 0xff, 0xff, 0x7f) }, /broke the protocol/],
  'stops in the middle of a block': [{ stopsAfter: 1500 }, /silent/],
}

for (const [what, [options, reason]] of Object.entries(OFFENCES)) {
  t.test(`a peer that ${what} is dropped, and another one asked`, async t => {
    const bitswap = node(t, { maxSilenceMs: 1500 })
    const blocks = rawBlocks(10, 3000, 15)
    const bad = peerOf(bitswap, 'bad', blocks, options)
    if (options.garbage !== undefined || options.wrong !== undefined) bad.options.delayMs = 100
    await getAll(t, bitswap, await sharedBy(bitswap, bad, blocks))
    const waiting = waitFor(bitswap, 4000)
    await until('it is dropped', () => bad.dropped.length > 0)
    t.match(bad.dropped[0], reason)
    await waiting
    new FakePeer('bad', blocks).connect(bitswap)
    t.equal(bitswap.client.connections, 1, 'it is not asked again when it comes back')
  })
}

t.test('what nobody asked for is not even kept', async t => {
  const bitswap = node(t)
  const peer = peerOf(bitswap, 'a')
  for (const block of rawBlocks(20, 100_000, 16)) peer.sendBlock(block)
  await sleep(20)
  t.same(peer.dropped, [], 'and is no reason to part')
  t.match(bitswap.client.peers, [{ blocks: 0, bytes: 0 }])
})

t.test('a peer that sends the same block over and over is dropped', async t => {
  const bitswap = node(t)
  const [block, other] = rawBlocks(2, 1024 * 1024, 21)
  const peer = peerOf(bitswap, 'a', [block!])
  await getAll(t, bitswap, [block!])
  peer.options = { silent: true }
  const waiting = get(bitswap, other!.cid).catch(() => {})
  await until('it is asked for another one', () => peer.asked.length === 2)
  for (let i = 0; i < 70; i++) peer.sendBlock(block!)
  await until('it is dropped', () => peer.dropped.length > 0)
  t.match(peer.dropped[0], /keeps sending/)
  await waiting
})

t.test('a peer to which nothing can be sent leaves its wants to others', async t => {
  const bitswap = node(t)
  const block = rawBlock(5000, 22)
  const broken = new FakePeer('broken', [block])
  broken.send = () => Promise.reject(new Error('the stream broke'))
  broken.connect(bitswap)
  await t.rejects(get(bitswap, block.cid), /no peer is connected/)
  peerOf(bitswap, 'sound', [block])
  await getAll(t, bitswap, [block])
})

t.test('an answer that is not awaited any more is not held against a peer', async t => {
  const bitswap = node(t, { maxSilenceMs: 500 })
  const block = rawBlock(3000, 23)
  const fast = peerOf(bitswap, 'fast', [block])
  const slow = peerOf(bitswap, 'slow', [], { silent: true })
  await getAll(t, bitswap, [block])
  await until('it was asked whether it has it', () => slow.probed.length === 1)
  const abort = new AbortController()
  const asking = bitswap.client.whoHas(block.cid, abort.signal)
  await until('it was asked again', () => slow.probed.length === 2)
  abort.abort()
  await asking
  await until('it was told', () => slow.cancelled.length === 1)
  await sleep(1200)
  t.same([...slow.dropped, ...fast.dropped], [])
})
