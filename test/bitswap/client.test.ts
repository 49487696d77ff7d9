/** The bitswap client among peers that behave, and among peers that do not. */
import { setMaxListeners } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Bitswap, type BitswapOptions } from '../../src/bitswap/bitswap.js'
import { WantError } from '../../src/bitswap/client.js'
import { type CID, CODEC_DAG_PB, cidOf, keyOf } from '../../src/core/cid.js'
import { encodePbNode } from '../../src/unixfs/pb-node.js'
import { link } from '../support/dag.js'
import { until } from '../support/until.js'
import { FakePeer, type FakePeerOptions, rawBlock, rawBlocks, type TestBlock } from './support.js'

t.setTimeout(60_000)
const NEVER = new AbortController().signal
setMaxListeners(0, NEVER)

function node(t: Test, options: BitswapOptions = {}): Bitswap {
  const bitswap = new Bitswap({ patienceMs: 0, ...options })
  t.teardown(() => bitswap.close())
  return bitswap
}

function peerOf(
  bitswap: Bitswap,
  id: string,
  blocks: TestBlock[] = [],
  options: FakePeerOptions = {},
): FakePeer {
  return new FakePeer(id, blocks, options).connect(bitswap)
}

const get = (bitswap: Bitswap, cid: CID, signal = NEVER): Promise<Uint8Array> =>
  bitswap.client.get(cid, { signal })

async function getAll(t: Test, bitswap: Bitswap, blocks: TestBlock[]): Promise<void> {
  const found = await Promise.all(blocks.map(({ cid }) => get(bitswap, cid)))
  const wrong = found.filter((bytes, i) => Buffer.compare(bytes, blocks[i]!.bytes) !== 0)
  t.equal(wrong.length, 0, `${blocks.length} blocks`)
}

/** A dag-pb node that links to the blocks. */
function parentOf(blocks: TestBlock[]): TestBlock {
  const links = blocks.map(({ cid, bytes }) => link(cid, '', bytes.length))
  const bytes = encodePbNode(links, Buffer.alloc(2000)) // too large to be sent to whoever asks for presence
  return { cid: cidOf(CODEC_DAG_PB, bytes), bytes }
}

t.test('many blocks of one peer: each is asked for once, in few messages', async t => {
  const bitswap = node(t)
  const blocks = rawBlocks(1000, 2000)
  const peer = peerOf(bitswap, 'a', blocks)
  await getAll(t, bitswap, blocks)
  t.equal(peer.asked.length, 1000)
  t.equal(new Set(peer.asked).size, 1000)
  t.ok(peer.messages < 500, `${peer.messages} messages`)
  t.same(peer.cancelled, [], 'what came need not be cancelled')
  t.match(bitswap.client.peers, [{ peerId: 'a', blocks: 1000, bytes: 2_000_000, asked: 0 }])
})

t.test('a window of wants, which grows with the rate, is kept in flight', async t => {
  const bitswap = node(t)
  const blocks = rawBlocks(600, 1000)
  const peer = peerOf(bitswap, 'a', blocks, { delayMs: 20 })
  let most = 0
  const answered = () => peer.sent > 0
  const all = getAll(t, bitswap, blocks)
  await until('the first message', () => peer.asked.length > 0)
  t.equal(peer.asked.length, 32, 'to begin with')
  while (!answered() || bitswap.client.peers[0]!.asked > 0) {
    most = Math.max(most, bitswap.client.peers[0]!.asked)
    await sleep(1)
  }
  await all
  t.ok(most <= 128, `${most} at most`)
})

t.test('several peers share the work, and none is asked for what another is sending', async t => {
  const bitswap = node(t)
  const blocks = rawBlocks(400, 50_000, 2)
  const root = parentOf(blocks)
  const peers = ['a', 'b', 'c'].map(id => peerOf(bitswap, id, [root, ...blocks], { delayMs: 5 }))
  await getAll(t, bitswap, [root])
  await until('all have said that they have it', () => peers.every(peer => peer.sent > 0))
  await getAll(t, bitswap, blocks)
  const asked = peers.flatMap(peer => peer.asked)
  t.equal(new Set(asked).size, 401)
  t.ok(asked.length < 401 + 40, `${asked.length} questions for 401 blocks`)
  for (const peer of peers) t.ok(peer.asked.length > 20, `${peer.peerId}: ${peer.asked.length}`)
  t.equal(bitswap.client.duplicateBytes < 2_000_000, true)
})

t.test('a slow peer beside a fast one keeps nobody waiting, and is soon asked for little', async t => {
  const bitswap = node(t)
  const blocks = rawBlocks(300, 50_000, 25)
  const root = parentOf(blocks)
  const fast = peerOf(bitswap, 'fast', [root, ...blocks])
  const slow = peerOf(bitswap, 'slow', [root, ...blocks], { bytesPerMs: 100 })
  await getAll(t, bitswap, [root])
  await until('both have said that they have it', () => slow.sent > 0 && fast.sent > 0)
  const begin = performance.now()
  await getAll(t, bitswap, blocks.slice(0, 150))
  const askedAtFirst = slow.asked.length
  await getAll(t, bitswap, blocks.slice(150))
  const elapsedMs = performance.now() - begin
  t.ok(
    elapsedMs < 10_000,
    `${Math.round(elapsedMs)} ms; the slow one takes 16 s for what it was asked at first`,
  )
  t.ok(askedAtFirst <= 50, `${askedAtFirst} asked of it at first`)
  t.ok(slow.asked.length - askedAtFirst <= 16, `${slow.asked.length - askedAtFirst} later`)
})

t.test(
  'who has not got a block is followed by the next, and when all say no it is absent at once',
  async t => {
    const bitswap = node(t)
    const [here, nowhere] = rawBlocks(2, 5000, 3)
    const peers = ['a', 'b', 'c', 'd'].map(id => peerOf(bitswap, id))
    peers[3]!.add(here!)
    await getAll(t, bitswap, [here!])
    const before = performance.now()
    await t.rejects(get(bitswap, nowhere!.cid), {
      kind: 'absent',
      message: 'none of 4 connected peers has it',
    })
    t.ok(performance.now() - before < 5000)
  },
)

t.test(
  'while nobody is known to have a DAG, one is asked for the block and the others whether they have it',
  async t => {
    const bitswap = node(t)
    const block = rawBlock(5000, 4)
    const peers = ['a', 'b', 'c'].map(id => peerOf(bitswap, id))
    peers[1]!.add(block)
    await getAll(t, bitswap, [block])
    const asked = peers.filter(peer => peer.asked.length > 0)
    t.ok(asked.includes(peers[1]!) && asked.length <= 2)
    t.equal(peers.filter(peer => peer.probed.length > 0).length, 2)
    await until(
      'it is withdrawn where it was not',
      () => peers[0]!.cancelled.length + peers[2]!.cancelled.length === 2,
    )
    t.same(peers[1]!.cancelled, [])
  },
)

t.test('the peers that have the parent are asked for the children, the others are left alone', async t => {
  const bitswap = node(t)
  const [ours, theirs] = [rawBlocks(100, 3000, 5), rawBlocks(100, 3000, 6)]
  const [a, b] = [ours, theirs].map((blocks, i) => peerOf(bitswap, `p${i}`, [parentOf(blocks), ...blocks]))
  await getAll(t, bitswap, [parentOf(ours), parentOf(theirs)])
  const before = [a!.asked.length, b!.asked.length]
  await getAll(
    t,
    bitswap,
    ours.flatMap((block, i) => [block, theirs[i]!]),
  )
  t.same(
    [a!.asked.length, b!.asked.length],
    before.map(count => count + 100),
    'two DAGs at the same time',
  )
})

t.test('what somebody waits for is asked for before what is read ahead', async t => {
  const bitswap = node(t)
  const [ahead, now] = [rawBlocks(300, 100, 7), rawBlocks(5, 100, 8)]
  const peer = peerOf(bitswap, 'a', [...ahead, ...now], { delayMs: 30 })
  const guesses = ahead.map(({ cid }) => bitswap.client.get(cid, { signal: NEVER, urgency: 'read-ahead' }))
  const read = getAll(t, bitswap, now)
  bitswap.client.raise(ahead[299]!.cid)
  await read
  await Promise.all(guesses)
  const last = Math.max(...now.map(({ cid }) => peer.asked.indexOf(keyOf(cid))))
  t.ok(last < 200, `position ${last}`)
  const raised = peer.asked.indexOf(keyOf(ahead[299]!.cid))
  t.ok(raised < 200, `what was a guess, and is read now: position ${raised}`)
})

t.test('a reader that leaves withdraws the want, and what comes late is no offence', async t => {
  const bitswap = node(t)
  const [late, next] = rawBlocks(2, 5000, 9)
  const peer = peerOf(bitswap, 'a', [next!])
  peer.options = { silent: true }
  const abort = new AbortController()
  const gone = get(bitswap, late!.cid, abort.signal)
  await until('it was asked', () => peer.asked.length === 1)
  abort.abort()
  await t.rejects(gone)
  await until('it was told', () => peer.cancelled.length === 1)
  peer.options = {}
  const reading = get(bitswap, next!.cid)
  peer.sendBlock(late!)
  t.same(Buffer.from(await reading), Buffer.from(next!.bytes))
  t.same(peer.dropped, [])
})

t.test('each of several readers of one block gets bytes of its own, by one request', async t => {
  const bitswap = node(t)
  const block = rawBlock(5000, 10)
  const peer = peerOf(bitswap, 'a', [block])
  const found = await Promise.all([1, 2, 3].map(() => get(bitswap, block.cid)))
  t.equal(new Set(found.map(bytes => bytes.buffer)).size, 3)
  for (const bytes of found) t.equal(Buffer.compare(bytes, block.bytes), 0)
  t.equal(peer.asked.length, 1)
})

for (const version of ['1.1.0', '1.0.0'] as const) {
  t.test(`a peer that speaks ${version} is asked for blocks, never for presence`, async t => {
    const bitswap = node(t)
    const blocks = rawBlocks(50, 3000, 11)
    const peer = peerOf(bitswap, 'a', blocks, { version })
    await getAll(t, bitswap, blocks)
    t.same(peer.probed, [])
    t.equal(peer.asked.length, 50)
  })
}

t.test('a peer that speaks 1.1.0 and has not got it is passed over, though it does not say so', async t => {
  const bitswap = node(t)
  const block = rawBlock(3000, 12)
  const old = peerOf(bitswap, 'old', [], { version: '1.1.0' })
  peerOf(bitswap, 'new', [block], { delayMs: 50 })
  await getAll(t, bitswap, [block])
  t.same(old.dropped, [])
})

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

t.test('peers that go in the middle of a read leave their wants to those that stay', async t => {
  const bitswap = node(t)
  const blocks = rawBlocks(300, 20_000, 17)
  const root = parentOf(blocks)
  const peers = ['a', 'b', 'c'].map(id => peerOf(bitswap, id, [root, ...blocks], { delayMs: 10 }))
  await getAll(t, bitswap, [root])
  const all = getAll(t, bitswap, blocks)
  await until('two have begun', () => peers[0]!.sent > 0 && peers[1]!.sent > 0)
  peers[0]!.disconnect()
  peers[1]!.disconnect()
  await all
})

t.test('with nobody connected a read waits for a moment, and goes on with the first who comes', async t => {
  const bitswap = node(t, { patienceMs: 300 })
  const [block, other] = rawBlocks(2, 3000, 18)
  const reading = get(bitswap, block!.cid)
  await sleep(50)
  const peer = peerOf(bitswap, 'a', [block!])
  t.equal(Buffer.compare(await reading, block!.bytes), 0)
  peer.disconnect()
  await t.rejects(get(bitswap, other!.cid), { kind: 'alone', message: 'no peer is connected' })
})

t.test('every peer is asked who has a block, without fetching it', async t => {
  const bitswap = node(t)
  const block = rawBlock(3000, 19)
  const peers = ['has', 'has not'].map(id => peerOf(bitswap, id))
  peers[0]!.add(block)
  peerOf(bitswap, 'old', [block], { version: '1.1.0' })
  const silent = peerOf(bitswap, 'silent', [block], { silent: true })
  const abort = new AbortController()
  setTimeout(() => abort.abort(), 300)
  const found = await bitswap.client.whoHas(block.cid, abort.signal)
  t.same(Object.fromEntries(found.map(({ peer, has }) => [peer, has])), {
    has: 'yes',
    'has not': 'no',
    old: 'unknown',
    silent: 'unknown',
  })
  t.same(peers[0]!.asked, [])
  await until('the question is withdrawn', () => silent.cancelled.length === 1)
})

t.test('the end fails whoever waits', async t => {
  const bitswap = node(t)
  const peer = peerOf(bitswap, 'a', [], { silent: true })
  const waiting = rawBlocks(10, 100, 20).map(({ cid }) => get(bitswap, cid))
  for (const promise of waiting) promise.catch(() => {})
  await until('it was asked', () => peer.asked.length === 10)
  await bitswap.close()
  for (const promise of waiting) await t.rejects(promise, new WantError('closed', 'shutting down'))
  await t.rejects(get(bitswap, rawBlock(1, 1).cid), new WantError('closed', 'shutting down'))
})
