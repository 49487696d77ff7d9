/** The bitswap server: what it sends, to whom, and what it refuses to do. */
import { readdir, readlink, rm } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Bitswap } from '../../src/bitswap/bitswap.js'
import { MAX_STREAMS_PER_PEER } from '../../src/bitswap/limits.js'
import { encodeMessage } from '../../src/bitswap/message-writer.js'
import { CID, cidFromSha256, Digest, HASH_IDENTITY, keyOf } from '../../src/core/cid.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'
import { Asker, FileSupply, frame, neighbours, rawBlock, rawBlocks, type TestBlock } from './support.js'

t.setTimeout(60_000)
const [BIG, OTHER, SMALL, ABSENT] = [rawBlock(5000, 1), rawBlock(7000, 2), rawBlock(1024, 3), rawBlock(9, 4)]

async function serving(t: Test, blocks: readonly TestBlock[] = [BIG, OTHER, SMALL]) {
  const supply = await FileSupply.create(await tempDir(t), blocks)
  const bitswap = new Bitswap({ supply, patienceMs: 0 })
  t.teardown(() => bitswap.close())
  return { supply, bitswap }
}

const keys = (blocks: TestBlock[]) => blocks.map(({ cid }) => keyOf(cid)).sort()
const presences = (asker: Asker) =>
  asker.got.presences.map(({ cid, has }) => [CID.decode(cid).toString(), has])

t.test('blocks are sent to who wants them, with the prefix of the CID that was asked for', async t => {
  const { bitswap } = await serving(t)
  const asker = new Asker(bitswap, 'a')
  const asPb = CID.createV1(0x70, OTHER.cid.multihash)
  await asker.want({ cid: BIG.cid }, { cid: asPb })
  await until('both have come', () => asker.got.blocks.length === 2)
  t.same(asker.keys, [keyOf(BIG.cid), keyOf(OTHER.cid)])
  t.same([...asker.got.blocks[1]!.prefix!], [1, 0x70, 0x12, 32])
  t.same(asker.got.presences, [])
  t.match(bitswap.report.served, { blocks: 2, bytes: 12_000, wants: 0 })
})

t.test('who asks whether we have a block is told; a small one is sent instead', async t => {
  const { bitswap } = await serving(t)
  const asker = new Asker(bitswap, 'a')
  await asker.want(
    { cid: BIG.cid, have: true },
    { cid: SMALL.cid, have: true },
    { cid: ABSENT.cid, have: true },
  )
  await until('all is said', () => asker.got.presences.length === 2)
  t.same(presences(asker), [
    [BIG.cid.toString(), true],
    [ABSENT.cid.toString(), false],
  ])
  t.same(asker.keys, [keyOf(SMALL.cid)])
})

t.test('who wants no word about what is absent gets none', async t => {
  const { bitswap } = await serving(t)
  const asker = new Asker(bitswap, 'a')
  await asker.want({ cid: ABSENT.cid, sendDontHave: false }, { cid: BIG.cid })
  await until('the block has come', () => asker.got.blocks.length === 1)
  t.same(asker.got.presences, [])
})

t.test('what was wanted before it was here is sent when it comes', async t => {
  const { bitswap, supply } = await serving(t)
  const [asker, prober] = [new Asker(bitswap, 'a'), new Asker(bitswap, 'b')]
  const late = rawBlock(6000, 5)
  await asker.want({ cid: late.cid })
  await prober.want({ cid: late.cid, have: true })
  await until(
    'they are told that it is absent',
    () => presences(asker).length + presences(prober).length === 2,
  )
  await supply.add(late)
  await until('it has come', () => asker.got.blocks.length === 1)
  await until('the other one knows', () => presences(prober).some(([, has]) => has))
  t.equal(presences(asker).length, 1, 'the no was said once')
})

t.test('a cancelled want is not answered', async t => {
  const { bitswap, supply } = await serving(t)
  const asker = new Asker(bitswap, 'a')
  const late = rawBlock(6000, 6)
  await asker.want({ cid: late.cid, sendDontHave: false })
  await asker.want({ cid: late.cid, cancel: true })
  t.equal(bitswap.report.served.wants, 0)
  await supply.add(late)
  await asker.want({ cid: BIG.cid }, { cid: BIG.cid, cancel: true }, { cid: OTHER.cid })
  await until('the other one has come', () => asker.got.blocks.length > 0)
  await sleep(1200) // as long as it takes to look for wants again
  t.same(asker.keys, [keyOf(OTHER.cid)])
})

t.test('a want list that is full replaces the earlier one', async t => {
  const { bitswap } = await serving(t)
  const asker = new Asker(bitswap, 'a')
  await asker.want(...rawBlocks(5, 10, 7).map(({ cid }) => ({ cid })))
  t.equal(bitswap.report.served.wants, 5)
  const [list] = encodeMessage({
    wants: [{ cid: ABSENT.cid.bytes, priority: 1, cancel: false, have: true, sendDontHave: false }],
  })
  const full = Buffer.concat([list!, Buffer.from([0x10, 1])])
  full[1]! += 2
  await asker.write(frame([full]))
  t.equal(bitswap.report.served.wants, 1)
})

t.test('blocks go out in the order of priority', async t => {
  const blocks = rawBlocks(20, 200_000, 8)
  const { bitswap } = await serving(t, blocks)
  const asker = new Asker(bitswap, 'a')
  await asker.want(...blocks.map(({ cid }, i) => ({ cid, priority: i })))
  await until('all have come', () => asker.got.blocks.length === 20)
  t.same(asker.keys, blocks.map(({ cid }) => keyOf(cid)).reverse())
})

t.test('old peers are answered in their own manner', async t => {
  const { bitswap } = await serving(t)
  const [older, oldest] = [new Asker(bitswap, 'a', '1.1.0'), new Asker(bitswap, 'b', '1.0.0')]
  for (const asker of [older, oldest]) await asker.want({ cid: BIG.cid }, { cid: ABSENT.cid })
  await until('it has come', () => older.got.blocks.length + oldest.got.blocks.length === 2)
  t.ok(older.got.blocks[0]!.prefix)
  t.equal(oldest.got.blocks[0]!.prefix, undefined)
  t.same([...older.got.presences, ...oldest.got.presences], [])
})

t.test('what is no CID, and what lies in its CID, is passed over', async t => {
  const { bitswap } = await serving(t)
  const asker = new Asker(bitswap, 'a')
  const entry = { priority: 1, cancel: false, have: false, sendDontHave: true }
  const identity = CID.createV1(0x55, Digest.create(HASH_IDENTITY, Buffer.from('abc')))
  const wants = [Uint8Array.of(9, 9, 9), identity.bytes, BIG.cid.bytes].map(cid => ({ ...entry, cid }))
  await asker.write(frame(encodeMessage({ wants })))
  await until('the block has come', () => asker.got.blocks.length === 1)
  t.same(asker.got.presences, [])
  t.equal(asker.dropped, undefined)
})

t.test('a peer has a bounded number of wants, and new ones replace those that cannot be served', async t => {
  const { bitswap, supply } = await serving(t)
  const asker = new Asker(bitswap, 'a')
  for (let i = 0; i < 5; i++) {
    await asker.want(...rawBlocks(1000, 10, 10 + i).map(({ cid }) => ({ cid, sendDontHave: false })))
  }
  t.equal(bitswap.report.served.wants, 1024)
  await asker.want({ cid: BIG.cid })
  await until('what is held is served all the same', () => asker.got.blocks.length === 1)
  t.ok(Math.max(...supply.asked) <= 128, 'the store is asked in parts')
})

t.test('peers take turns: one that wants much does not keep another one waiting', async t => {
  const blocks = rawBlocks(200, 200_000, 9)
  const { bitswap } = await serving(t, [...blocks, BIG])
  const [greedy, modest] = [new Asker(bitswap, 'a'), new Asker(bitswap, 'b')]
  greedy.gate = sleep(20)
  await greedy.want(...blocks.map(({ cid }) => ({ cid })))
  await modest.want({ cid: BIG.cid })
  await until('the modest one is served', () => modest.got.blocks.length === 1)
  t.ok(greedy.got.blocks.length < 100, `the greedy one has ${greedy.got.blocks.length}`)
  await until('so is the greedy one', () => greedy.got.blocks.length === 200)
  t.same(greedy.keys.sort(), keys(blocks))
})

t.test('a peer that takes nothing costs two messages', async t => {
  const blocks = rawBlocks(100, 200_000, 10)
  const { bitswap } = await serving(t, blocks)
  const before = process.memoryUsage().arrayBuffers
  let open = () => {}
  const stuck = Array.from({ length: 20 }, (_, i) => new Asker(bitswap, `stuck${i}`))
  const gate = new Promise<void>(resolve => {
    open = resolve
  })
  for (const asker of stuck) {
    asker.gate = gate
    await asker.want(...blocks.map(({ cid }) => ({ cid })))
  }
  const asker = new Asker(bitswap, 'a')
  await asker.want({ cid: blocks[0]!.cid })
  await until('another one is served', () => asker.got.blocks.length === 1)
  const grown = process.memoryUsage().arrayBuffers - before
  t.ok(grown < 40_000_000, `${grown} bytes, of ${20 * 100 * 200_000} that were asked for`)
  open()
  for (const { peerId } of stuck) bitswap.disconnected(peerId)
})

t.test('a file that has gone has no blocks, and none is kept open', async t => {
  const { bitswap, supply } = await serving(t)
  const asker = new Asker(bitswap, 'a')
  await asker.want({ cid: BIG.cid })
  await until('it has come', () => asker.got.blocks.length === 1)
  await rm(supply.path)
  await until('the file is closed', async () => {
    const names = await readdir('/proc/self/fd')
    const open = await Promise.all(names.map(name => readlink(`/proc/self/fd/${name}`).catch(() => '')))
    return !open.some(path => path.startsWith(supply.path))
  })
  await asker.want({ cid: OTHER.cid })
  await until('it is told', () => asker.got.presences.length === 1)
  t.same(presences(asker), [[OTHER.cid.toString(), false]])
})

t.test('a store that fails is as good as an empty one', async t => {
  const bitswap = new Bitswap({ supply: { locate: () => Promise.reject(new Error('closed')) } })
  t.teardown(() => bitswap.close())
  const asker = new Asker(bitswap, 'a')
  await asker.want({ cid: BIG.cid })
  await until('it is told', () => asker.got.presences.length === 1)
  t.same(presences(asker), [[BIG.cid.toString(), false]])
})

t.test('wants that come before it is known how to answer are not lost', async t => {
  const { bitswap } = await serving(t)
  const wants = [{ cid: BIG.cid.bytes, priority: 1, cancel: false, have: false, sendDontHave: true }]
  const held = bitswap.inbound('a', '1.2.0').data(frame(encodeMessage({ wants })))
  t.ok(held, 'the stream is held back')
  const asker = new Asker(bitswap, 'a')
  await until('it has come', () => asker.got.blocks.length === 1)
})

for (const version of ['1.2.0', '1.1.0', '1.0.0'] as const) {
  t.test(`one node reads from another over ${version}`, async t => {
    const blocks = rawBlocks(150, 100_000, 11)
    const { bitswap: server } = await serving(t, blocks)
    const client = new Bitswap({ patienceMs: 0 })
    t.teardown(() => client.close())
    neighbours(client, server, version)
    const get = ({ cid }: TestBlock) => client.client.get(cid, { signal: new AbortController().signal })
    const found = await Promise.all(blocks.map(get))
    t.notOk(found.some((bytes, i) => Buffer.compare(bytes, blocks[i]!.bytes) !== 0))
    await until('each was sent once', () => server.report.served.blocks === 150)
    t.equal(client.client.duplicateBytes, 0)
  })
}

t.test('a block that the store has moved since it was located is sent all the same', async t => {
  const { supply } = await serving(t)
  const [place] = await supply.locate([BIG.cid])
  let asked = 0
  const moved = { locate: async () => [asked++ === 0 ? { ...place!, path: `${place!.path}.old` } : place] }
  const bitswap = new Bitswap({ supply: moved })
  t.teardown(() => bitswap.close())
  const asker = new Asker(bitswap, 'a')
  await asker.want({ cid: BIG.cid })
  await until('it has come', () => asker.got.blocks.length === 1)
  t.equal(asked, 2)
})

t.test(
  'wants that cannot be served are kept within bounds for all peers together, and told no beyond',
  async t => {
    const { bitswap } = await serving(t)
    const askers = Array.from({ length: 20 }, (_, i) => new Asker(bitswap, `a${i}`))
    for (const [i, asker] of askers.entries()) {
      await asker.want(...Array.from({ length: 1024 }, (_, j) => ({ cid: absentCid(i * 1024 + j) })))
    }
    await until('all are told', () => askers.every(({ got }) => got.presences.length === 1024))
    t.ok(bitswap.report.served.wants <= 16_384 + 128, `${bitswap.report.served.wants} are kept`)
    await askers[19]!.want({ cid: BIG.cid })
    await until('what is held is served all the same', () => askers[19]!.got.blocks.length === 1)
  },
)

function absentCid(i: number): CID {
  const digest = new Uint8Array(32)
  new DataView(digest.buffer).setUint32(0, i)
  return cidFromSha256(0x55, digest)
}

t.test(
  'a peer may come with each message on a stream of its own, and not with more at a time than is sane',
  async t => {
    const { bitswap } = await serving(t)
    const asker = new Asker(bitswap, 'a')
    const wants = [{ cid: BIG.cid.bytes, priority: 1, cancel: false, have: false, sendDontHave: true }]
    for (let i = 0; i < 200; i++) {
      const stream = bitswap.inbound('a', '1.2.0')
      await stream.data(frame(encodeMessage({ wants })))
      stream.end()
    }
    await until('it has come', () => asker.got.blocks.length > 0)
    const streams = Array.from({ length: MAX_STREAMS_PER_PEER - 1 }, () => bitswap.inbound('a', '1.2.0'))
    t.throws(() => bitswap.inbound('a', '1.2.0'), /more than \d+ streams/)
    streams[0]!.end()
    t.doesNotThrow(() => bitswap.inbound('a', '1.2.0'))
  },
)
