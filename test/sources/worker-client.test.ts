import { Worker } from 'node:worker_threads'
import t, { type Test } from 'tap'
import type { SourcesConfig } from '../../src/sources/config.js'
import { NetworkClient } from '../../src/sources/worker-client.js'
import { nodeConfig } from '../p2p/support.js'
import { until } from '../support/until.js'
import { closedPort, fakeGateway, hang, rawBlock, serve, truncate } from './fake-gateway.js'

const config = (gateways: string[], more: Partial<SourcesConfig> = {}): SourcesConfig => ({
  gateways,
  readDeadlineMs: 5_000,
  offline: false,
  ...more,
})

/** A client whose workers the test can reach. */
function clientOf(t: Test, sources: SourcesConfig): { client: NetworkClient; workers: Worker[] } {
  const workers: Worker[] = []
  const client = new NetworkClient(sources, workerData => {
    const url = new URL('../../src/sources/worker.js', import.meta.url)
    const worker = new Worker(url, { workerData })
    workers.push(worker)
    return worker
  })
  t.teardown(() => client.close())
  return { client, workers }
}

t.test('a block comes over from the worker, in memory of its own', async t => {
  const gateway = await fakeGateway(t)
  const { cid, bytes } = rawBlock(100_000)
  gateway.add(cid, bytes)
  const { client } = clientOf(t, config([gateway.url]))
  const got = await client.fetch(cid)
  t.strictSame(got, bytes)
  t.equal(got.buffer.byteLength, got.byteLength)
})

t.test('nothing is started and nobody is dialled before the first fetch', async t => {
  const gateway = await fakeGateway(t)
  const { client, workers } = clientOf(t, config([gateway.url]))
  await new Promise(resolve => setTimeout(resolve, 50))
  t.equal(workers.length, 0)
  await client.close()
  t.strictSame(gateway.asked, [])
  await t.rejects(client.fetch(rawBlock().cid), { code: 'INTERRUPTED' })
})

t.test('offline and without sources a fetch fails at once, without a worker', async t => {
  const offline = clientOf(t, config(['http://127.0.0.1:1'], { offline: true }))
  await t.rejects(offline.client.fetch(rawBlock().cid), {
    code: 'UNREACHABLE',
    message: 'offline, and the block is not held here',
  })
  const bare = clientOf(t, config([]))
  await t.rejects(bare.client.fetch(rawBlock().cid), { code: 'UNREACHABLE', message: /no source/ })
  t.strictSame(await offline.client.status(), [])
  t.equal(offline.workers.length + bare.workers.length, 0)
})

t.test('a bad configuration is refused before anything starts', async t => {
  t.throws(() => new NetworkClient(config(['nonsense'])), { code: 'BAD_CONFIG' })
})

t.test('of several gateways with troubles the good one serves', async t => {
  const wrong = await fakeGateway(t)
  const broken = await fakeGateway(t)
  const good = await fakeGateway(t)
  const closed = `http://127.0.0.1:${await closedPort()}`
  const { client } = clientOf(t, config([wrong.url, broken.url, closed, good.url]))
  for (let i = 0; i < 10; i++) {
    const { cid, bytes } = rawBlock()
    wrong.add(cid, rawBlock().bytes)
    broken.add(cid, truncate(bytes))
    good.add(cid, bytes)
    t.strictSame(await client.fetch(cid), bytes)
  }
  t.match(await client.status(), [
    { name: wrong.url, lastError: /wrong bytes/ },
    { name: broken.url, lastError: /cut short|closed/ },
    { name: closed, state: 'failed', lastError: 'connection refused' },
    { name: good.url, state: 'ok', blocks: 10, bytes: 10_000, errors: 0 },
  ])
})

t.test('a hedged read does not wait for the gateway that hangs', async t => {
  const hanging = await fakeGateway(t)
  const good = await fakeGateway(t)
  hanging.fallback = hang
  const { cid, bytes } = rawBlock()
  good.add(cid, bytes)
  const { client } = clientOf(t, config([hanging.url, good.url]))
  client.start()
  const startedAt = performance.now()
  t.strictSame(await client.fetch(cid), bytes)
  t.ok(performance.now() - startedAt < 4_500)
})

t.test('the deadline of a fetch is kept, with the reason', async t => {
  const gateway = await fakeGateway(t)
  gateway.fallback = hang
  const { client } = clientOf(t, config([gateway.url]))
  const startedAt = performance.now()
  await t.rejects(client.fetch(rawBlock().cid, { deadlineMs: 300 }), {
    code: 'TIMEOUT',
    message: /did not come within .*no answer after/,
  })
  t.ok(performance.now() - startedAt < 5_000)
})

t.test('an abort ends the fetch here and the request there', async t => {
  const gateway = await fakeGateway(t)
  gateway.fallback = hang
  const { client } = clientOf(t, config([gateway.url]))
  const controller = new AbortController()
  const promise = client.fetch(rawBlock().cid, { signal: controller.signal })
  while (gateway.asked.length === 0) await new Promise(resolve => setTimeout(resolve, 5))
  controller.abort()
  await t.rejects(promise, { code: 'INTERRUPTED' })
  for (let i = 0; i < 100 && gateway.aborted.length === 0; i++)
    await new Promise(resolve => setTimeout(resolve, 10))
  t.equal(gateway.aborted.length, 1)
  await t.rejects(client.fetch(rawBlock().cid, { signal: controller.signal }), { code: 'INTERRUPTED' })
})

t.test('when the worker dies, another one answers what was in flight', async t => {
  const gateway = await fakeGateway(t)
  const { client, workers } = clientOf(t, config([gateway.url]))
  const blocks = Array.from({ length: 5 }, () => rawBlock())
  for (const { cid, bytes } of blocks) gateway.add(cid, serve(bytes, 400))
  const fetches = blocks.map(({ cid }) => client.fetch(cid))
  while (gateway.asked.length < 5) await new Promise(resolve => setTimeout(resolve, 5))
  await workers[0]?.terminate()
  t.strictSame(
    await Promise.all(fetches),
    blocks.map(({ bytes }) => bytes),
  )
  t.equal(workers.length, 2)
})

t.test(
  'a worker that has the node is started again when it dies, though nobody asks for anything',
  async t => {
    const node = await nodeConfig(t, { dht: 'off' })
    const { client, workers } = clientOf(t, config([], { node }))
    client.start()
    const running = async () => {
      const status = await client.call('nodeStatus', null).catch(() => undefined)
      return status?.state === 'running' ? status : undefined
    }
    const before = await until('the node runs', running)
    await workers[0]?.terminate()
    const after = await until('it runs again', running)
    t.equal(workers.length, 2)
    t.equal(after.peerId, before.peerId, 'as the same peer')
  },
)

t.test('calls reach the worker, and its questions the main thread', async t => {
  const node = await nodeConfig(t, { dht: 'off' })
  const { client } = clientOf(t, config([], { node }))
  const { cid } = rawBlock()
  t.same(await client.call('findProviders', { cid: cid.bytes, limit: 5, deadlineMs: 5_000 }), [])
  await t.rejects(client.call('provide', { cid: cid.bytes }), {
    code: 'UNREACHABLE',
    message: /no peer took/,
  })
})

t.test('a call without a node says so; offline there is nobody to call', async t => {
  const { cid } = rawBlock()
  const bare = clientOf(t, config(['http://127.0.0.1:1']))
  t.equal((await bare.client.call('nodeStatus', null)).state, 'off')
  await t.rejects(bare.client.call('provide', { cid: cid.bytes }), {
    code: 'UNREACHABLE',
    message: /no embedded node/,
  })
  const offline = clientOf(t, config([], { offline: true, node: await nodeConfig(t) }))
  await t.rejects(offline.client.call('nodeStatus', null), { code: 'UNREACHABLE', message: /offline/ })
  t.equal(offline.workers.length, 0)
})

t.test('a fetch that meets dying workers again and again fails instead of hanging', async t => {
  const url = new URL('data:text/javascript,setTimeout(() => process.exit(1), 10)')
  let spawned = 0
  const client = new NetworkClient(config(['http://127.0.0.1:1']), () => {
    spawned++
    return new Worker(url)
  })
  t.teardown(() => client.close())
  await t.rejects(client.fetch(rawBlock().cid), { code: 'UNREACHABLE', message: /crashed repeatedly/ })
  t.equal(spawned, 3)
})

t.test('a worker that answers nothing is given up after the deadline', async t => {
  const url = new URL('data:text/javascript,setInterval(() => {}, 1000)')
  const client = new NetworkClient(config(['http://127.0.0.1:1']), () => new Worker(url))
  t.teardown(() => client.close())
  await t.rejects(client.fetch(rawBlock().cid, { deadlineMs: 100 }), { code: 'TIMEOUT' })
  t.match(await client.status(), [
    { name: 'http://127.0.0.1:1', state: 'failed', lastError: /does not answer/ },
  ])
})

t.test('closing ends what is in flight and the thread', async t => {
  const gateway = await fakeGateway(t)
  gateway.fallback = hang
  const { client, workers } = clientOf(t, config([gateway.url]))
  const fetched = t.rejects(client.fetch(rawBlock().cid), { code: 'INTERRUPTED' })
  while (gateway.asked.length === 0) await new Promise(resolve => setTimeout(resolve, 5))
  await client.close()
  await fetched
  t.equal(workers[0]?.threadId, -1)
  await client.close()
})
