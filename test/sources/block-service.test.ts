import t, { type Test } from 'tap'
import { CID, CODEC_DAG_PB, CODEC_RAW, Digest, keyOf } from '../../src/core/cid.js'
import { CidfsError } from '../../src/core/errors.js'
import { isPromise } from '../../src/core/maybe-promise.js'
import { type BlockNetwork, BlockService, type BlockStore } from '../../src/sources/block-service.js'
import { type FetchOptions, NetworkClient } from '../../src/sources/worker-client.js'
import { fakeGateway, hang, rawBlock, serve } from './fake-gateway.js'

class MemoryStore implements BlockStore {
  readonly blocks = new Map<string, Uint8Array>()
  get(cid: CID): Uint8Array | undefined {
    return this.blocks.get(keyOf(cid))
  }
  put(cid: CID, bytes: Uint8Array): void {
    this.blocks.set(keyOf(cid), bytes)
  }
  has(cid: CID): boolean {
    return this.blocks.has(keyOf(cid))
  }
  locate(): undefined {
    return undefined
  }
}

/** Each fetch waits for the test. */
class FakeNetwork implements BlockNetwork {
  unavailable: string | undefined
  readonly fetches: {
    cid: CID
    options: FetchOptions
    resolve(bytes: Uint8Array): void
    reject(err: unknown): void
  }[] = []
  readonly raised: AbortSignal[] = []
  fetch(cid: CID, options: FetchOptions = {}): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      this.fetches.push({ cid, options, resolve, reject })
      options.signal?.addEventListener('abort', () => reject(new CidfsError('INTERRUPTED', 'aborted')))
    })
  }
  raise(signal: AbortSignal): void {
    this.raised.push(signal)
  }
  readonly released: Uint8Array[] = []
  release(bytes: Uint8Array): void {
    this.released.push(bytes)
  }
}

function setUp(): { store: MemoryStore; network: FakeNetwork; blocks: BlockService } {
  const store = new MemoryStore()
  const network = new FakeNetwork()
  return { store, network, blocks: new BlockService(store, network, { readDeadlineMs: 5_000 }) }
}

t.test('a block that is held here is answered without a promise and without the network', async t => {
  const { store, network, blocks } = setUp()
  const { cid, bytes } = rawBlock()
  store.put(cid, bytes)
  t.equal(blocks.get(cid), bytes)
  t.equal(blocks.ensure(cid), undefined)
  t.equal(blocks.has(cid), true)
  t.equal(network.fetches.length, 0)
})

t.test('an identity CID is its own block, unless it is too long', async t => {
  const { blocks } = setUp()
  const identity = (length: number): CID =>
    CID.createV1(CODEC_RAW, Digest.create(0, new Uint8Array(length).fill(7)))
  t.strictSame(blocks.get(identity(3)), Uint8Array.of(7, 7, 7))
  t.equal(blocks.has(identity(3)), true)
  t.throws(() => blocks.get(identity(129)), { code: 'BAD_BLOCK' })
})

t.test(
  'any number of readers share one fetch, under any codec, and the store has the block before them',
  async t => {
    const { store, network, blocks } = setUp()
    const { cid, bytes } = rawBlock()
    const asPb = CID.createV1(CODEC_DAG_PB, cid.multihash)
    const asV0 = CID.createV0(cid.multihash as Parameters<typeof CID.createV0>[0])
    const reads = [cid, asPb, asV0, cid, cid].map(cid => blocks.get(cid))
    const stored = Promise.resolve(reads[0]).then(() => store.has(cid))
    t.equal(network.fetches.length, 1)
    network.fetches[0]?.resolve(bytes)
    t.equal(await stored, true)
    for (const read of reads) t.equal(await read, bytes)
    t.equal(blocks.inFlight, 0)
  },
)

t.test('a reader who leaves disturbs no other; the last one ends the fetch', async t => {
  const { network, blocks } = setUp()
  const { cid } = rawBlock()
  const controllers = [new AbortController(), new AbortController()]
  const reads = controllers.map(({ signal }) => blocks.get(cid, { signal }))
  const signal = network.fetches[0]?.options.signal
  controllers[0]?.abort()
  await t.rejects(Promise.resolve(reads[0]), { code: 'INTERRUPTED' })
  t.equal(signal?.aborted, false)
  controllers[1]?.abort()
  await t.rejects(Promise.resolve(reads[1]), { code: 'INTERRUPTED' })
  t.equal(signal?.aborted, true)
  t.equal(blocks.inFlight, 0)
  t.equal(blocks.lastError(cid), undefined)
})

t.test('a reader whose signal is already aborted starts nothing that stays', async t => {
  const { blocks } = setUp()
  await t.rejects(Promise.resolve(blocks.get(rawBlock().cid, { signal: AbortSignal.abort() })), {
    code: 'INTERRUPTED',
  })
  t.equal(blocks.inFlight, 0)
})

t.test('each reader has a deadline of its own', async t => {
  const { network, blocks } = setUp()
  const { cid, bytes } = rawBlock()
  const patient = blocks.get(cid, { deadlineMs: 2_000 })
  await t.rejects(Promise.resolve(blocks.get(cid, { deadlineMs: 50 })), { code: 'TIMEOUT', message: /50 ms/ })
  t.equal(network.fetches[0]?.options.signal?.aborted, false)
  network.fetches[0]?.resolve(bytes)
  t.equal(await patient, bytes)
})

t.test(
  'the deadline of the first reader ends only the first: the network is asked again for the rest',
  async t => {
    const { network, blocks } = setUp()
    const { cid, bytes } = rawBlock()
    const first = blocks.get(cid, { deadlineMs: 100 })
    const second = blocks.get(cid, { deadlineMs: 3_000 })
    setTimeout(() => network.fetches[0]?.reject(new CidfsError('TIMEOUT', 'with every detail')), 100)
    await t.rejects(Promise.resolve(first), { code: 'TIMEOUT', message: 'with every detail' })
    t.equal(network.fetches.length, 2)
    const deadlineMs = network.fetches[1]?.options.deadlineMs ?? 0
    t.ok(deadlineMs > 2_000 && deadlineMs < 3_000, `${deadlineMs} ms`)
    network.fetches[1]?.resolve(bytes)
    t.equal(await second, bytes)
  },
)

t.test('an error reaches all readers, is remembered, and repeated for one second only', async t => {
  const { network, blocks } = setUp()
  const { cid, bytes } = rawBlock()
  const reads = [blocks.get(cid), blocks.get(cid)]
  network.fetches[0]?.reject(new CidfsError('UNREACHABLE', 'all said no'))
  for (const read of reads) await t.rejects(Promise.resolve(read), { code: 'UNREACHABLE' })
  t.match(blocks.lastError(cid), { error: { message: 'all said no' } })
  t.throws(() => blocks.get(cid), { code: 'UNREACHABLE', message: 'all said no' })
  t.equal(network.fetches.length, 1)
  await new Promise(resolve => setTimeout(resolve, 1_010))
  const again = blocks.get(cid)
  t.equal(network.fetches.length, 2)
  network.fetches[1]?.resolve(bytes)
  await again
  t.equal(blocks.lastError(cid), undefined)
})

t.test('a timeout is remembered for the user, but the next read asks again', async t => {
  const { network, blocks } = setUp()
  const { cid } = rawBlock()
  const read = blocks.get(cid, { deadlineMs: 20 })
  setTimeout(() => network.fetches[0]?.reject(new CidfsError('TIMEOUT', 'late')), 20)
  await t.rejects(Promise.resolve(read), { code: 'TIMEOUT' })
  t.equal(blocks.lastError(cid)?.error.code, 'TIMEOUT')
  const again = blocks.get(cid)
  t.ok(isPromise(again))
  t.equal(network.fetches.length, 2)
  network.fetches[1]?.reject(new CidfsError('TIMEOUT', 'late'))
  await t.rejects(Promise.resolve(again))
})

t.test('a denial that a guess met with spares the reader after it the same question', async t => {
  const { network, blocks } = setUp()
  const { cid } = rawBlock()
  const guess = blocks.ensure(cid, { priority: 'read-ahead' })
  network.fetches[0]?.reject(new CidfsError('UNREACHABLE', 'all said no'))
  await t.rejects(Promise.resolve(guess))
  t.throws(() => blocks.get(cid), { code: 'UNREACHABLE', message: 'all said no' })
  t.equal(network.fetches.length, 1)
})

t.test('the end of the network is not remembered against a block', async t => {
  const { network, blocks } = setUp()
  const { cid } = rawBlock()
  const read = blocks.get(cid)
  network.fetches[0]?.reject(new CidfsError('INTERRUPTED', 'shutting down'))
  await t.rejects(Promise.resolve(read), { code: 'INTERRUPTED' })
  t.equal(blocks.lastError(cid), undefined)
})

t.test('a reader who joins a guess raises it, once', async t => {
  const { network, blocks } = setUp()
  const { cid, bytes } = rawBlock()
  const guess = blocks.ensure(cid, { priority: 'read-ahead' })
  t.equal(network.fetches[0]?.options.priority, 'read-ahead')
  const reads = [blocks.get(cid), blocks.get(cid)]
  t.strictSame(network.raised, [network.fetches[0]?.options.signal])
  network.fetches[0]?.resolve(bytes)
  await Promise.all([guess, ...reads])
})

t.test('where nobody can be asked the answer is immediate', async t => {
  const { network, blocks } = setUp()
  const { cid } = rawBlock()
  network.unavailable = 'offline, and the block is not held here'
  t.throws(() => blocks.get(cid), { code: 'UNREACHABLE', message: /offline, and the block is not held here/ })
  t.match(blocks.lastError(cid)?.error.message, /offline/)
  network.unavailable = undefined
  const sha1 = CID.createV1(CODEC_RAW, { ...cid.multihash, code: 0x11, bytes: new Uint8Array(22) })
  t.throws(() => blocks.get(sha1), { code: 'UNSUPPORTED_HASH' })
  t.equal(network.fetches.length, 0)
})

t.test('a store that is full or damaged does not keep a reader from the block', async t => {
  const { store, network, blocks } = setUp()
  const { cid, bytes } = rawBlock()
  store.put = () => {
    throw new CidfsError('NO_SPACE', 'full')
  }
  store.get = () => {
    throw new CidfsError('STORE_DAMAGED', 'short pack')
  }
  const read = blocks.get(cid)
  network.fetches[0]?.resolve(bytes)
  t.equal(await read, bytes)
  network.unavailable = 'offline'
  t.throws(() => blocks.get(cid), { code: 'STORE_DAMAGED' })
})

async function real(
  t: Test,
  deadlineMs = 5_000,
): Promise<{ blocks: BlockService; gateway: Awaited<ReturnType<typeof fakeGateway>> }> {
  const gateway = await fakeGateway(t)
  const client = new NetworkClient({ gateways: [gateway.url], readDeadlineMs: deadlineMs, offline: false })
  t.teardown(() => client.close())
  return { gateway, blocks: new BlockService(new MemoryStore(), client, { readDeadlineMs: deadlineMs }) }
}

t.test('over HTTP: a hundred readers of one block are one request', async t => {
  const { blocks, gateway } = await real(t)
  const { cid, bytes } = rawBlock(100_000)
  gateway.add(cid, serve(bytes, 50))
  const all = await Promise.all(Array.from({ length: 100 }, () => blocks.get(cid)))
  for (const got of all) t.ok(Buffer.compare(got, bytes) === 0)
  t.strictSame(gateway.asked, [cid.toString()])
})

t.test('over HTTP: the same absent block asked for ten thousand times is asked for once', async t => {
  const { blocks, gateway } = await real(t)
  const { cid } = rawBlock()
  await t.rejects(Promise.resolve(blocks.get(cid)), { code: 'UNREACHABLE', message: /not found \(404\)/ })
  const startedAt = performance.now()
  for (let i = 0; i < 10_000; i++) {
    try {
      blocks.get(cid)
    } catch {}
  }
  t.ok(performance.now() - startedAt < 900)
  t.equal(gateway.asked.length, 1)
})

t.test('over HTTP: the deadline names the gateway and what it did', async t => {
  const { blocks, gateway } = await real(t, 300)
  gateway.fallback = hang
  await t.rejects(Promise.resolve(blocks.get(rawBlock().cid)), {
    code: 'TIMEOUT',
    message: new RegExp(gateway.url),
  })
})

t.test('memory is given back when nobody looks at the bytes, and only then', async t => {
  const { network, blocks } = setUp()
  const [wanted, ensured] = [rawBlock(), rawBlock()]
  const waiting = [blocks.ensure(ensured.cid), blocks.ensure(ensured.cid), blocks.ensure(wanted.cid)]
  const reading = blocks.get(wanted.cid)
  t.equal(network.fetches.length, 2)
  network.fetches[0]!.resolve(ensured.bytes)
  network.fetches[1]!.resolve(wanted.bytes)
  await Promise.all(waiting)
  t.equal(await reading, wanted.bytes)
  t.same(network.released, [ensured.bytes])
})

t.test(
  'a block that is obtained is held afterwards; its bytes come only when it could not be kept',
  async t => {
    const { store, network, blocks } = setUp()
    const [kept, refused] = [rawBlock(), rawBlock()]
    const first = blocks.obtain(kept.cid)
    network.fetches[0]!.resolve(kept.bytes)
    t.equal(await first, undefined)
    t.equal(blocks.has(kept.cid), true)
    t.equal(await blocks.obtain(kept.cid), undefined)
    t.same(network.released, [kept.bytes])
    store.put = () => {
      throw new CidfsError('NO_SPACE', 'full')
    }
    const second = blocks.obtain(refused.cid)
    network.fetches[1]!.resolve(refused.bytes)
    t.equal(await second, refused.bytes)
    t.equal(network.released.length, 1, 'memory that is still read stays')
    t.equal(network.fetches.length, 2)
  },
)
