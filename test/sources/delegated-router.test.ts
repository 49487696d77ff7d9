import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { CODEC_RAW, cidOf } from '../../src/core/cid.js'
import type { Provider } from '../../src/p2p/routing.js'
import { parseRouterUrl } from '../../src/sources/config.js'
import { DelegatedRouter } from '../../src/sources/delegated-router.js'
import { until } from '../support/until.js'

const PEER = '12D3KooWRf4pNDSgHhYcrJbAShTYsjo5Uwo8oe4uYXXUMwa4VagH'
const ADDRESS = '/ip4/192.0.2.1/tcp/4001'
const CID = cidOf(CODEC_RAW, Uint8Array.of(1))
const NDJSON = 'application/x-ndjson'

type Answer = (request: IncomingMessage, response: ServerResponse) => void

async function routerOf(t: Test, answer: Answer): Promise<DelegatedRouter> {
  const server = createServer(answer).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const router = new DelegatedRouter(
    parseRouterUrl(`http://127.0.0.1:${(server.address() as AddressInfo).port}/routing/v1`),
  )
  t.teardown(async () => {
    await router.close()
    server.closeAllConnections()
    server.close()
  })
  return router
}

function sends(body: string, type = NDJSON, status = 200): Answer {
  return (_, response) => response.writeHead(status, { 'content-type': type }).end(body)
}

async function find(router: DelegatedRouter, signal = new AbortController().signal): Promise<Provider[]> {
  const found: Provider[] = []
  for await (const provider of router.findProviders(CID, signal)) found.push(provider)
  return found
}

const record = (more: object = {}) => ({ Schema: 'peer', ID: PEER, Addrs: [ADDRESS], ...more })
const expected = [{ id: PEER, addrs: [ADDRESS] }]

t.test('records are read one per line, or all in one object', async t => {
  const asked: IncomingMessage[] = []
  const lines = await routerOf(t, (request, response) => {
    asked.push(request)
    sends(`${JSON.stringify(record())}\n`)(request, response)
  })
  t.same(await find(lines), expected)
  t.equal(asked[0]?.url, `/routing/v1/providers/${CID}`)
  t.match(asked[0]?.headers.accept, NDJSON)
  const unended = await routerOf(t, sends(JSON.stringify(record())))
  t.same(await find(unended), expected)
  for (const space of [undefined, 2]) {
    const body = JSON.stringify({ Providers: [record(), record({ ID: 'other' })] }, null, space)
    const object = await routerOf(t, sends(body, 'application/json'))
    t.same(
      (await find(object)).map(({ id }) => id),
      [PEER, 'other'],
    )
  }
})

t.test('providers without bitswap are left out', async t => {
  const records = [
    record({ ID: 'web', Protocols: ['transport-ipfs-gateway-http'] }),
    record({ Protocols: ['transport-bitswap', 'transport-ipfs-gateway-http'] }),
    record({ ID: 'unknown', Protocols: [] }),
    record({ Schema: 'bitswap', Protocol: 'transport-bitswap', ID: 'old' }),
  ]
  const router = await routerOf(t, sends(records.map(item => JSON.stringify(item)).join('\n')))
  t.same(
    (await find(router)).map(({ id }) => id),
    [PEER, 'unknown', 'old'],
  )
})

t.test('the first record is there before the answer is complete', async t => {
  let finish = () => {}
  const router = await routerOf(t, (_, response) => {
    response.writeHead(200, { 'content-type': NDJSON })
    response.write(`${JSON.stringify(record())}\n`)
    finish = () => response.end()
  })
  const providers = router.findProviders(CID, new AbortController().signal)
  t.same((await providers.next()).value, expected[0])
  finish()
  t.equal((await providers.next()).done, true)
})

t.test('none: 404, an empty answer, and an empty list', async t => {
  t.same(await find(await routerOf(t, sends('not found', 'text/plain', 404))), [])
  t.same(await find(await routerOf(t, sends(''))), [])
  t.same(await find(await routerOf(t, sends('{"Providers":null}', 'application/json'))), [])
})

t.test('an error status, and a server that is not there, are errors', async t => {
  await t.rejects(find(await routerOf(t, sends('', NDJSON, 500))), { message: 'HTTP 500' })
  const gone = await routerOf(t, sends(''))
  await gone.close()
  await t.rejects(find(gone))
})

t.test('nonsense is passed over', async t => {
  const lines = [
    '\0\0\0',
    '{',
    'null',
    '[]',
    '"text"',
    '7',
    '{}',
    JSON.stringify(record({ ID: 5 })),
    JSON.stringify(record({ ID: 'x'.repeat(1000) })),
    JSON.stringify(record({ Addrs: 'none' })),
    JSON.stringify(record({ ID: 'b', Addrs: [1, null, {}, 'relative', `/${'x'.repeat(10_000)}`, ADDRESS] })),
  ]
  const router = await routerOf(t, sends(lines.join('\n')))
  t.same(await find(router), [
    { id: PEER, addrs: [] },
    { id: 'b', addrs: [ADDRESS] },
  ])
})

t.test('ten thousand addresses, thousands of records and an endless answer are bounded', async t => {
  const many = Array.from({ length: 10_000 }, (_, i) => `/ip4/192.0.2.1/tcp/${i}`)
  const [provider] = await find(await routerOf(t, sends(JSON.stringify(record({ Addrs: many })))))
  t.ok((provider?.addrs.length ?? 0) <= 1024)
  const flood = Array.from({ length: 5_000 }, (_, i) => JSON.stringify(record({ ID: `peer${i}` }))).join('\n')
  t.equal((await find(await routerOf(t, sends(flood)))).length, 64)
  let sent = 0
  const endless = await routerOf(t, (_, response) => {
    response.writeHead(200, { 'content-type': NDJSON })
    const chunk = Buffer.alloc(256 * 1024, 'x')
    const more = (): void => {
      sent += chunk.length
      if (!response.destroyed) response.write(chunk, () => setImmediate(more))
    }
    more()
  })
  await t.rejects(find(endless), { message: /more than \d+ bytes/ })
  t.ok(sent < 64 * 1024 * 1024, `${sent} bytes`)
})

t.test('a server that never answers is left when nobody waits any more', async t => {
  let closed = false
  const router = await routerOf(t, request => request.on('close', () => (closed = true)))
  const stop = new AbortController()
  const found = find(router, stop.signal).catch(() => 'ended')
  setImmediate(() => stop.abort())
  t.equal(await found, 'ended')
  const early = await routerOf(t, (request, response) => {
    request.on('close', () => (closed = true))
    response.writeHead(200, { 'content-type': NDJSON })
    response.write(`${JSON.stringify(record())}\n`)
  })
  closed = false
  for await (const _ of early.findProviders(CID, new AbortController().signal)) break
  t.ok(await until('the request is cut off', () => closed))
})
