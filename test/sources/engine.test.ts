import t from 'tap'
import { CID, CODEC_RAW } from '../../src/core/cid.js'
import { Engine } from '../../src/sources/engine.js'
import type { Source } from '../../src/sources/source.js'
import { rawBlock } from './fake-gateway.js'
import { FakeSource, fails, has, pause, silent } from './fake-source.js'

const demand = { deadlineMs: 5_000, priority: 'demand' } as const
const readAhead = { deadlineMs: 5_000, priority: 'read-ahead' } as const

const engineOf = (...sources: Source[]): Engine => new Engine(sources)

async function timed<T>(fn: () => Promise<T>): Promise<number> {
  const startedAt = performance.now()
  await fn()
  return performance.now() - startedAt
}

t.test('the cheapest source is asked alone while it answers in time', async t => {
  const { cid, bytes } = rawBlock()
  const near = new FakeSource('near', has(bytes), 32, 5)
  const far = new FakeSource('far', has(bytes), 32, 500)
  const engine = engineOf(far, near)
  for (let i = 0; i < 10; i++) t.strictSame(await engine.start(cid, demand).promise, bytes)
  t.equal(near.asked.length, 10)
  t.equal(far.asked.length, 0)
})

t.test('a clear no passes the question on at once', async t => {
  const { cid, bytes } = rawBlock()
  const near = new FakeSource('near', fails('absent'), 32, 5)
  const far = new FakeSource('far', has(bytes), 32, 500)
  const ms = await timed(() => engineOf(near, far).start(cid, demand).promise)
  t.ok(ms < 200, `${ms} ms`)
})

t.test('a silent source is hedged and then told to stop', async t => {
  const { cid, bytes } = rawBlock()
  const near = new FakeSource('near', silent, 32, 5)
  const far = new FakeSource('far', has(bytes), 32, 500)
  const ms = await timed(() => engineOf(near, far).start(cid, demand).promise)
  t.ok(ms >= 250 && ms < 1_000, `${ms} ms`)
  t.strictSame(near.abortReasons, ['outrun'])
})

t.test('a source that keeps losing is not asked first any more', async t => {
  const { cid, bytes } = rawBlock()
  const near = new FakeSource('near', silent, 32, 5)
  const far = new FakeSource('far', has(bytes), 32, 50)
  const engine = engineOf(near, far)
  for (let i = 0; i < 3; i++) await engine.start(cid, demand).promise
  const ms = await timed(() => engine.start(cid, demand).promise)
  t.ok(ms < 200, `${ms} ms`)
})

t.test('wrong bytes are never delivered: the next source is asked', async t => {
  const { cid, bytes } = rawBlock()
  const liar = new FakeSource('liar', has(rawBlock().bytes), 32, 5)
  const honest = new FakeSource('honest', has(bytes), 32, 500)
  const engine = engineOf(liar, honest)
  t.strictSame(await engine.start(cid, demand).promise, bytes)
  const [status] = await engine.status()
  t.match(status, { name: 'liar', errors: 1, blocks: 0, lastError: /wrong bytes/ })
})

t.test('a no of every source ends the search at once and names each of them', async t => {
  const { cid } = rawBlock()
  const engine = engineOf(
    new FakeSource('a', fails('absent', 'not found (404)')),
    new FakeSource('b', fails('absent')),
  )
  const race = engine.start(cid, demand)
  const ms = await timed(() =>
    t.rejects(race.promise, {
      code: 'UNREACHABLE',
      message: /a: not found \(404\); b: absent/,
      cid: cid.toString(),
    }),
  )
  t.ok(ms < 150, `${ms} ms`)
})

t.test('wrong bytes from all is BAD_BLOCK, wrong bytes and a failure is UNREACHABLE', async t => {
  const { cid } = rawBlock()
  const liar = (): FakeSource => new FakeSource('liar', has(rawBlock().bytes))
  await t.rejects(engineOf(liar(), new FakeSource('b', fails('absent'))).start(cid, demand).promise, {
    code: 'BAD_BLOCK',
  })
  await t.rejects(engineOf(liar(), new FakeSource('b', fails('unreachable'))).start(cid, demand).promise, {
    code: 'UNREACHABLE',
  })
})

t.test('the deadline ends everything and says what each was doing', async t => {
  const { cid } = rawBlock()
  const mute = new FakeSource('mute', silent)
  const engine = engineOf(mute, new FakeSource('poor', fails('absent')))
  const race = engine.start(cid, { deadlineMs: 400, priority: 'demand' })
  await t.rejects(race.promise, { code: 'TIMEOUT', message: /mute: no answer after \d+ ms; poor: absent/ })
  t.strictSame(mute.abortReasons, ['deadline'])
})

t.test('a connection that was cut by chance is tried once more', async t => {
  const { cid, bytes } = rawBlock()
  const source = new FakeSource('flaky', async (cid, signal) => {
    const good = source.asked.length > 1
    return await (good ? has(bytes) : fails('failed', 'reset'))(cid, signal)
  })
  t.strictSame(await engineOf(source).start(cid, demand).promise, bytes)
  t.equal(source.asked.length, 2)
})

t.test('of two that were cut off, both are tried once more, readers and guesses alike', async t => {
  for (const request of [demand, readAhead]) {
    const { cid } = rawBlock()
    const sources = [
      new FakeSource('a', fails('failed', 'reset')),
      new FakeSource('b', fails('failed', 'HTTP 500')),
    ]
    const race = engineOf(...sources).start(cid, request)
    await t.rejects(race.promise, { code: 'UNREACHABLE', message: /a: reset; b: HTTP 500/ })
    for (const source of sources) t.equal(source.asked.length, 2)
  }
})

t.test('the only source is refused: one more try, and then at once for a second', async t => {
  const source = new FakeSource('down', fails('unreachable', 'connection refused'))
  const engine = engineOf(source)
  const missing = { code: 'UNREACHABLE', message: /connection refused/ }
  await t.rejects(engine.start(rawBlock().cid, demand).promise, missing)
  t.equal(source.asked.length, 2)
  const ms = await timed(() => t.rejects(engine.start(rawBlock().cid, demand).promise, missing))
  t.ok(ms < 150, `${ms} ms`)
  t.equal(source.asked.length, 2)
})

t.test('a source that failed is asked again as the only one, and found to be well', async t => {
  const { cid, bytes } = rawBlock()
  const source = new FakeSource('down', fails('unreachable'))
  source.probeBehaviour = () => Promise.reject(new Error('still down'))
  const engine = engineOf(source)
  await t.rejects(engine.start(cid, demand).promise)
  t.equal((await engine.status())[0]?.state, 'failed')
  source.behaviour = has(bytes)
  await new Promise(resolve => setTimeout(resolve, 1_050))
  t.strictSame(await engine.start(cid, demand).promise, bytes)
  t.equal((await engine.status())[0]?.state, 'ok')
})

t.test(
  'a source in back-off is left alone while another has the block, and comes back by a probe',
  async t => {
    const { cid, bytes } = rawBlock()
    const down = new FakeSource('down', fails('unreachable'), 32, 5)
    const up = new FakeSource('up', has(bytes), 32, 500)
    const engine = engineOf(down, up)
    for (let i = 0; i < 5; i++) await engine.start(cid, demand).promise
    t.equal(down.asked.length, 1)
    down.behaviour = has(bytes)
    await new Promise(resolve => setTimeout(resolve, 1_050))
    await engine.start(cid, demand).promise
    await new Promise(resolve => setTimeout(resolve, 10))
    t.equal(down.probes, 1)
    t.equal((await engine.status())[0]?.state, 'ok')
  },
)

t.test('a slow search for one block does not count against a source that serves others', async t => {
  const missing = rawBlock()
  const { cid, bytes } = rawBlock()
  const source = new FakeSource('searching', (asked, signal) =>
    asked.equals(missing.cid) ? silent(asked, signal) : has(bytes)(asked, signal),
  )
  const engine = engineOf(source)
  const races = Array.from({ length: 4 }, () =>
    engine.start(missing.cid, { deadlineMs: 100, priority: 'demand' }),
  )
  const present = await engine.start(cid, demand).promise
  t.strictSame(present, bytes)
  for (const race of races) await t.rejects(race.promise, { code: 'TIMEOUT' })
  t.equal((await engine.status())[0]?.state, 'ok')
})

t.test('no more than its limit is asked of a source, and readers come before guesses', async t => {
  const { cid, bytes } = rawBlock()
  const order: string[] = []
  const source = new FakeSource('narrow', has(bytes, 20), 4)
  const engine = engineOf(source)
  const guesses = Array.from({ length: 12 }, () =>
    engine.start(cid, readAhead).promise.then(() => order.push('guess')),
  )
  t.equal(source.running, 3, 'a slot is kept for readers')
  const reads = Array.from({ length: 6 }, () =>
    engine.start(cid, demand).promise.then(() => order.push('read')),
  )
  await Promise.all([...guesses, ...reads])
  t.equal(source.mostRunning, 4)
  t.equal(order.length, 18)
  t.ok(order.lastIndexOf('read') < 13, order.join(' '))
})

t.test('a guess that somebody waits for moves to the front', async t => {
  const { cid, bytes } = rawBlock()
  const order: number[] = []
  const engine = engineOf(new FakeSource('narrow', has(bytes, 10), 2))
  const races = Array.from({ length: 8 }, (_, i) => {
    const race = engine.start(cid, readAhead)
    race.promise.then(() => order.push(i))
    return race
  })
  races[7]?.raise()
  await Promise.all(races.map(race => race.promise))
  t.ok(order.indexOf(7) <= 2, order.join(' '))
})

t.test('a cancelled race leaves the queue and ends its requests', async t => {
  const { cid } = rawBlock()
  const source = new FakeSource('mute', silent, 1)
  const engine = engineOf(source)
  const first = engine.start(cid, demand)
  const second = engine.start(cid, demand)
  t.equal(engine.waitingBefore('demand'), 1)
  second.cancel()
  t.equal(engine.waitingBefore('demand'), 0)
  first.cancel()
  await t.rejects(first.promise, { code: 'INTERRUPTED' })
  await t.rejects(second.promise, { code: 'INTERRUPTED' })
  t.strictSame(source.abortReasons, ['cancelled'])
  t.equal(source.asked.length, 1)
})

t.test('two equal sources share the load', async t => {
  const { cid, bytes } = rawBlock()
  const sources = [new FakeSource('a', has(bytes, 10), 8), new FakeSource('b', has(bytes, 10), 8)]
  const engine = engineOf(...sources)
  await Promise.all(Array.from({ length: 100 }, () => engine.start(cid, demand).promise))
  for (const { name, asked } of sources) t.ok(asked.length >= 30, `${name}: ${asked.length}`)
})

t.test('many sources with every kind of trouble: the one that has the block is found', async t => {
  const { cid, bytes } = rawBlock()
  const engine = engineOf(
    new FakeSource('absent', fails('absent')),
    new FakeSource('wrong', has(rawBlock().bytes)),
    new FakeSource('mute', silent),
    new FakeSource('ill', fails('failed')),
    new FakeSource('gone', fails('unreachable')),
    new FakeSource('good', has(bytes), 32, 1_000),
  )
  for (let i = 0; i < 20; i++) t.strictSame(await engine.start(cid, demand).promise, bytes)
})

t.test('without sources there is an answer, and unknown hashes are refused', async t => {
  await t.rejects(engineOf().start(rawBlock().cid, demand).promise, {
    code: 'UNREACHABLE',
    message: /no source/,
  })
  const { cid } = rawBlock()
  const sha1 = CID.createV1(CODEC_RAW, { ...cid.multihash, code: 0x11 })
  t.throws(() => engineOf().start(sha1, demand), { code: 'UNSUPPORTED_HASH' })
})

t.test('status probes what nobody asked yet and waits for no probe longer than a second', async t => {
  const mute = new FakeSource('mute', silent)
  mute.probeBehaviour = () => pause(1_500, new AbortController().signal)
  const down = new FakeSource('down', silent)
  down.probeBehaviour = () => Promise.reject(new Error('refused'))
  const engine = engineOf(mute, down)
  const startedAt = performance.now()
  const status = await engine.status()
  t.ok(performance.now() - startedAt < 1_400)
  t.match(status, [
    { name: 'mute', state: 'ok', blocks: 0 },
    { name: 'down', errors: 1, lastError: 'refused', inFlight: 0, latencyMsP50: undefined },
  ])
})
