import t from 'tap'
import { type CID, CODEC_DAG_PB, keyOf } from '../../src/core/cid.js'
import { BlockService } from '../../src/sources/block-service.js'
import { type DagBlocks, type DagProgress, fetchDag } from '../../src/sources/fetch-dag.js'
import type { FetchOptions } from '../../src/sources/worker-client.js'
import { links } from '../../src/unixfs/inspect.js'
import { TestNetwork } from '../fs/support.js'
import { openStore } from '../store/support.js'
import { Dag, link, pattern } from '../support/dag.js'
import { until } from '../support/until.js'

/** A store and the blocks that others have. */
async function setting(t: Parameters<typeof openStore>[0], network = new TestNetwork()) {
  const store = await openStore(t)
  const blocks = new BlockService(store, network, { readDeadlineMs: 10_000 })
  return { store, network, blocks, dag: new Dag(network) }
}

/** A directory of `width` directories of `width` raw files each. */
function tree(dag: Dag, width: number): CID {
  const directories = Array.from({ length: width }, (_, i) => {
    const files = Array.from({ length: width }, (_, j) => dag.raw(pattern(100, 1 + i * width + j)))
    return link(dag.directory(files.map((cid, j) => link(cid, `${j}`))), `${i}`)
  })
  return dag.directory(directories)
}

/** Counts what is on its way. */
class CountingNetwork extends TestNetwork {
  most = 0
  private active = 0

  override async fetch(cid: CID, options?: FetchOptions): Promise<Uint8Array> {
    this.most = Math.max(this.most, ++this.active)
    return super.fetch(cid, options).finally(() => this.active--)
  }
}

t.test('every block of a DAG is fetched once, a few at a time, and then held', async t => {
  const network = new CountingNetwork()
  const { store, blocks, dag } = await setting(t, network)
  const root = tree(dag, 10)
  const twice = dag.directory([link(root, 'a'), link(root, 'b')])
  const seen: DagProgress[] = []
  const result = await fetchDag(blocks, twice, links, {
    concurrency: 7,
    onProgress: ({ done, known }) => seen.push({ done, known }),
  })
  t.match(result, { done: 112, known: 112, missed: 0, firstMissed: undefined })
  t.equal(network.most, 7)
  t.equal(new Set(network.requests).size, network.requests.length)
  t.ok(dag.cids.every(cid => store.has(cid)))
  t.same(
    seen.map(({ done }) => done),
    Array.from({ length: 112 }, (_, i) => i + 1),
  )
  const firstLeaf = seen.findIndex(({ known }) => known === 112)
  t.ok(firstLeaf < 20, 'nodes come first: how much there is is known early')
})

t.test('what is held is not asked for', async t => {
  const { blocks, network, dag } = await setting(t)
  const root = tree(dag, 4)
  await fetchDag(blocks, root, links)
  const asked = network.requests.length
  t.match(await fetchDag(blocks, root, links), { done: 21, known: 21, missed: 0 })
  t.equal(network.requests.length, asked)
})

t.test(
  'a missing middle block is named, stops no other, and is all that the next attempt asks for',
  async t => {
    const { store, blocks, network, dag } = await setting(t)
    const lost = dag.directory([link(dag.raw(pattern(10, 77)), 'below')])
    const root = dag.directory([link(tree(dag, 4), 'a'), link(lost, 'b'), link(dag.raw(pattern(9)), 'c')])
    const bytes = network.blocks.get(keyOf(lost))!
    network.remove(lost)
    const result = await fetchDag(blocks, root, links)
    t.match(result, { done: 23, known: 24, missed: 1 })
    t.ok(result.firstMissed?.cid.equals(lost))
    t.match(result.firstMissed?.error, { code: 'UNREACHABLE' })
    t.notOk(store.has(lost))
    network.add(lost, bytes)
    await until('the failure is not believed any more', () => blocks.errors.denied(keyOf(lost)) === undefined)
    const before = network.requests.length
    t.match(await fetchDag(blocks, root, links), { done: 25, known: 25, missed: 0 })
    t.equal(network.requests.length, before + 2)
  },
)

t.test('when nobody has anything, an attempt ends early', async t => {
  const { blocks, network, dag } = await setting(t)
  const leaves = Array.from({ length: 1000 }, (_, i) => dag.raw(pattern(10, i + 1)))
  const root = dag.directory(leaves.map((cid, i) => link(cid, `${i}`)))
  for (const leaf of leaves) network.remove(leaf)
  const { missed, known } = await fetchDag(blocks, root, links, { concurrency: 8 })
  t.equal(known, 1001)
  t.ok(missed >= 64 && missed < 100, `${missed} were tried`)
})

t.test('an abort ends it, and what was on its way', async t => {
  const { blocks, network, dag } = await setting(t)
  const root = tree(dag, 3)
  network.hang = true
  const controller = new AbortController()
  const done = fetchDag(blocks, root, links, { signal: controller.signal })
  await until('the root is asked for', () => blocks.inFlight === 1)
  controller.abort()
  await t.rejects(done, { code: 'INTERRUPTED' })
  await until('nothing is in flight', () => blocks.inFlight === 0)
})

t.test('nothing begins under a signal that has aborted', async t => {
  const { blocks, network, dag } = await setting(t)
  const signal = AbortSignal.abort()
  await t.rejects(fetchDag(blocks, tree(dag, 2), links, { signal }), { code: 'INTERRUPTED' })
  t.same(network.requests, [])
})

t.test('a node that cannot be decoded is a block without links', async t => {
  const { store, blocks, dag } = await setting(t)
  const broken = dag.put(CODEC_DAG_PB, Buffer.from('this is no protobuf'))
  const root = dag.directory([link(broken, 'broken'), link(dag.raw(pattern(5)), 'sound')])
  t.match(await fetchDag(blocks, root, links), { done: 3, known: 3, missed: 0 })
  t.ok(store.has(broken))
})

t.test('what fails at once is a miss like any other', async t => {
  const { blocks, dag } = await setting(t)
  const root = dag.directory([link(dag.raw(pattern(5)), 'sound')])
  const unsupported: DagBlocks = {
    get: (cid, options) => {
      if (cid.equals(root)) return blocks.get(cid, options)
      throw new Error('not expected')
    },
    ensure: () => {
      throw new Error('cannot be verified')
    },
  }
  t.match(await fetchDag(unsupported, root, links), { done: 1, known: 2, missed: 1 })
})

t.test('a deep DAG needs no stack, and the event loop runs meanwhile', async t => {
  const { blocks, store } = await setting(t)
  const dag = new Dag({ add: (cid, bytes) => store.put(cid, bytes) })
  let cid = dag.raw(pattern(10))
  for (let i = 0; i < 5000; i++) cid = dag.directory([link(cid, 'next')])
  let turns = 0
  const timer = setInterval(() => turns++, 1)
  const { done } = await fetchDag(blocks, cid, links).finally(() => clearInterval(timer))
  t.equal(done, 5001)
  t.ok(turns > 2, `${turns} turns`)
})
