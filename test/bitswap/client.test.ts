/** The bitswap client among peers that behave: what it asks of whom, and what becomes of it. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { WantError } from '../../src/bitswap/client.js'
import { keyOf } from '../../src/core/cid.js'
import { until } from '../support/until.js'
import { get, getAll, NEVER, node, parentOf, peerOf } from './client-fixture.js'
import { rawBlock, rawBlocks } from './support.js'

t.setTimeout(60_000)

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
  for (const peer of peers) t.ok(peer.asked.length >= 5, `${peer.peerId}: ${peer.asked.length}`)
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

t.test(
  'among very many peers the one that has a DAG is found in a few rounds, and asked alone from then on',
  async t => {
    const bitswap = node(t)
    const blocks = rawBlocks(100, 3000, 26)
    const root = parentOf(blocks)
    const others = Array.from({ length: 199 }, (_, i) => peerOf(bitswap, `p${i}`, [], { delayMs: 5 }))
    const holder = peerOf(bitswap, 'holder', [root, ...blocks], { delayMs: 5 })
    await getAll(t, bitswap, [root])
    const questions = () => others.reduce((sum, { asked, probed }) => sum + asked.length + probed.length, 0)
    const before = questions()
    t.ok(before <= 199 + 199, `${before} questions to find it`)
    await getAll(t, bitswap, blocks)
    t.equal(questions(), before, 'none to the others')
    t.equal(holder.asked.length, 101)
  },
)

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
