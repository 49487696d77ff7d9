import t, { type Test } from 'tap'
import { MAX_BLOCK_BYTES } from '../../src/core/limits.js'
import { parseGatewayUrl } from '../../src/sources/config.js'
import { GatewaySource } from '../../src/sources/gateway.js'
import {
  type Answer,
  closedPort,
  endless,
  fakeGateway,
  hang,
  rawBlock,
  redirect,
  serve,
  serveChunked,
  status,
  truncate,
} from './fake-gateway.js'

const never = new AbortController().signal

function sourceOf(t: Test, url: string): GatewaySource {
  const source = new GatewaySource(parseGatewayUrl(url))
  t.teardown(() => source.close())
  return source
}

t.test('a raw block comes in memory of its own, with and without a length', async t => {
  const gateway = await fakeGateway(t)
  const source = sourceOf(t, gateway.url)
  for (const [sizeBytes, answer] of [
    [1000, serve],
    [MAX_BLOCK_BYTES, serve],
    [1000, serveChunked],
    [MAX_BLOCK_BYTES, serveChunked],
  ] as const) {
    const { cid, bytes } = rawBlock(sizeBytes)
    gateway.add(cid, answer(bytes))
    const got = await source.get(cid, { signal: never })
    t.ok(Buffer.compare(got, bytes) === 0, `${answer.name} ${sizeBytes}`)
    t.equal(got.buffer.byteLength, sizeBytes)
  }
})

t.test('the request is the one of the specification', async t => {
  const gateway = await fakeGateway(t)
  const { cid, bytes } = rawBlock()
  let url: string | undefined
  let accept: string | undefined
  gateway.add(cid, (request, response) => {
    url = request.url
    accept = request.headers.accept
    serve(bytes)(request, response)
  })
  await sourceOf(t, `${gateway.url}/prefix`).get(cid, { signal: never })
  t.equal(url, `/prefix/ipfs/${cid}?format=raw`)
  t.equal(accept, 'application/vnd.ipld.raw')
})

t.test('each failure has its kind', async t => {
  const gateway = await fakeGateway(t)
  const source = sourceOf(t, gateway.url)
  const cases: [Answer, string, RegExp][] = [
    [status(404), 'absent', /404/],
    [status(410), 'absent', /410/],
    [status(504, 'gateway timeout'), 'absent', /504/],
    [status(500, 'block was not found locally'), 'absent', /500/],
    [status(500, 'out of memory\nmore'), 'failed', /^HTTP 500: out of memory$/],
    [status(429, '<html>'), 'failed', /^HTTP 429$/],
    [status(206), 'failed', /HTTP 206/],
    [truncate(rawBlock().bytes), 'failed', /cut short|closed/],
    [endless(), 'wrong', /more than 2097152 bytes/],
    [endless(500), 'failed', /HTTP 500/],
    [serve(new Uint8Array(MAX_BLOCK_BYTES + 1)), 'wrong', /more than/],
    [(_, response) => response.destroy(), 'failed', /closed|reset/],
    [redirect(() => 'http://elsewhere.invalid/x'), 'failed', /another server/],
    [redirect(() => 'https://127.0.0.1/x'), 'failed', /another server/],
    [redirect(() => ''), 'failed', /redirect/],
    [redirect(request => request.url ?? ''), 'failed', /without end/],
  ]
  for (const [answer, kind, message] of cases) {
    const { cid } = rawBlock()
    gateway.add(cid, answer)
    await t.rejects(source.get(cid, { signal: never }), { name: 'SourceError', kind, message })
  }
  const { cid, bytes } = rawBlock()
  gateway.add(cid, bytes)
  t.ok(await source.get(cid, { signal: never }), 'and none of them spoils the next request')
})

t.test('a refused connection is told from a bad answer', async t => {
  const port = await closedPort()
  const source = sourceOf(t, `http://127.0.0.1:${port}`)
  await t.rejects(source.get(rawBlock().cid, { signal: never }), {
    name: 'SourceError',
    kind: 'unreachable',
    message: 'connection refused',
  })
  await t.rejects(source.probe({ signal: never }), { name: 'SourceError', kind: 'unreachable' })
})

t.test('an abort ends the request at once, here and at the server', async t => {
  const gateway = await fakeGateway(t)
  const source = sourceOf(t, gateway.url)
  const { cid } = rawBlock()
  gateway.add(cid, hang)
  const controller = new AbortController()
  const promise = source.get(cid, { signal: controller.signal })
  setTimeout(() => controller.abort('outrun'), 50)
  const startedAt = performance.now()
  await promise.then(
    () => t.fail('answered'),
    (err: unknown) => t.equal(err, 'outrun'),
  )
  t.ok(performance.now() - startedAt < 200)
  for (let i = 0; i < 50 && gateway.aborted.length === 0; i++)
    await new Promise(resolve => setTimeout(resolve, 10))
  t.strictSame(gateway.aborted, [cid.toString()])
})

t.test('an aborted request does not keep others of the same server waiting', async t => {
  const gateway = await fakeGateway(t)
  const source = sourceOf(t, gateway.url)
  gateway.fallback = hang
  const controller = new AbortController()
  const hung = Array.from({ length: 31 }, () =>
    source.get(rawBlock().cid, { signal: controller.signal }).catch(() => 'aborted'),
  )
  const { cid, bytes } = rawBlock()
  gateway.add(cid, bytes)
  t.ok(await source.get(cid, { signal: never }))
  controller.abort()
  t.strictSame(new Set(await Promise.all(hung)), new Set(['aborted']))
})

t.test('a redirect to a subdomain is followed on the same server', async t => {
  const gateway = await fakeGateway(t)
  const { cid, bytes } = rawBlock()
  const hosts: (string | undefined)[] = []
  gateway.add(cid, (request, response) => {
    hosts.push(request.headers.host)
    redirect(() => `http://${cid}.ipfs.localhost:${gateway.port}/?format=raw`)(request, response)
  })
  gateway.fallback = (request, response) => {
    hosts.push(request.headers.host)
    serve(bytes)(request, response)
  }
  const source = sourceOf(t, `http://localhost:${gateway.port}`)
  t.strictSame(Uint8Array.from(await source.get(cid, { signal: never })), bytes)
  t.strictSame(hosts, [`127.0.0.1:${gateway.port}`, `${cid}.ipfs.localhost:${gateway.port}`])
})

t.test('a probe asks for the empty identity block, and any clear answer is enough', async t => {
  const gateway = await fakeGateway(t)
  await sourceOf(t, gateway.url).probe({ signal: never })
  t.strictSame(gateway.asked, ['bafkqaaa'])
  gateway.fallback = status(500)
  await t.rejects(sourceOf(t, gateway.url).probe({ signal: never }), { name: 'SourceError', kind: 'failed' })
})
