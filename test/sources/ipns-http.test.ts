import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { parseCid } from '../../src/core/cid.js'
import { generateKey } from '../../src/p2p/ipns-key.js'
import type { ValueRouting } from '../../src/p2p/ipns-network.js'
import { parseGatewayUrl, parseHttpUrl, parseKuboUrl } from '../../src/sources/config.js'
import { GatewaySource } from '../../src/sources/gateway.js'
import { gatewayRecords, kuboRecords, routerRecords } from '../../src/sources/ipns-http.js'
import { KuboSource } from '../../src/sources/kubo.js'

const RECORD = Buffer.from('a record, as far as HTTP is concerned')
const TYPE = 'application/vnd.ipfs.ipns-record'
const { name } = generateKey()
const cid = parseCid('bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e')
const forever = new AbortController().signal

type Answer = (request: IncomingMessage, response: ServerResponse) => unknown

async function serve(t: Test): Promise<{ url: string; requests: string[]; answer: { with: Answer } }> {
  const requests: string[] = []
  const answer = {
    with: (_: IncomingMessage, response: ServerResponse): unknown => response.writeHead(500).end(),
  }
  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`)
    answer.with(request, response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests, answer }
}

/** Sends this. */
function says(status: number, body: string | Buffer = '', type = TYPE): Answer {
  return (_, response) => response.writeHead(status, { 'content-type': type }).end(body)
}

async function records(routing: ValueRouting): Promise<Buffer[]> {
  const all: Buffer[] = []
  for await (const bytes of routing.get(name, forever)) all.push(Buffer.from(bytes))
  return all
}

t.test('a router and a gateway give the record, and say when there is none', async t => {
  const { url, requests, answer } = await serve(t)
  const router = routerRecords(parseHttpUrl('router', `${url}/routing/v1`, /\/routing\/v1$/))
  const gateway = gatewayRecords(parseGatewayUrl(url))
  t.teardown(() => Promise.all([router.close(), gateway.close()]))
  for (const routing of [router, gateway]) {
    answer.with = says(200, RECORD)
    t.same(await records(routing), [RECORD])
    for (const none of [
      says(404),
      says(200, 'routing: not found', 'text/plain'),
      says(500, 'could not find it'),
    ]) {
      answer.with = none
      t.same(await records(routing), [])
    }
    answer.with = says(200, '<html>', 'text/html')
    await t.rejects(records(routing), /HTTP 200/, 'a page is no record')
    answer.with = says(503, 'come back later')
    await t.rejects(records(routing), /HTTP 503: come back later/)
    answer.with = says(200, Buffer.alloc(20_000))
    await t.rejects(records(routing), /more than 16384 bytes/)
    answer.with = (_, response) => response.writeHead(302, { location: 'http://127.0.0.2:1/' }).end()
    await t.rejects(records(routing), /HTTP 302|another server/)
  }
  t.equal(requests[0], `GET /routing/v1/ipns/${name.text}`)
  t.ok(requests.includes(`GET /ipns/${name.text}?format=ipns-record`))
})

t.test('a router is given a record as it is', async t => {
  const { url, requests, answer } = await serve(t)
  const router = routerRecords(parseHttpUrl('router', url))
  t.teardown(() => router.close())
  let taken: Buffer | undefined
  answer.with = async (request, response) => {
    t.equal(request.headers['content-type'], TYPE)
    taken = await buffer(request)
    response.end()
  }
  await router.put?.(name, RECORD, forever)
  t.same(taken, RECORD)
  t.same(requests, [`PUT /routing/v1/ipns/${name.text}`])
  answer.with = says(400, 'bad signature', 'text/plain')
  await t.rejects(Promise.resolve(router.put?.(name, RECORD, forever)), /HTTP 400: bad signature/)
})

t.test('a Kubo gives and takes records by its RPC', async t => {
  const { url, requests, answer } = await serve(t)
  const kubo = kuboRecords(parseKuboUrl(url))
  t.teardown(() => kubo.close())
  const value = { Type: 5, Extra: RECORD.toString('base64') }
  const lines = [{ Type: 0, Extra: '' }, value, { Type: 5 }].map(line => JSON.stringify(line)).join('\n')
  answer.with = says(200, lines, 'application/json')
  t.same(await records(kubo), [RECORD])
  answer.with = says(500, '{"Message":"routing: not found","Code":0,"Type":"error"}', 'application/json')
  t.same(await records(kubo), [])
  answer.with = says(500, '{"Message":"the disk is full"}', 'application/json')
  await t.rejects(records(kubo), /HTTP 500: the disk is full/)
  answer.with = says(200, 'nonsense', 'application/json')
  await t.rejects(records(kubo))
  answer.with = async (request, response) => {
    t.match((await buffer(request)).toString(), RECORD.toString())
    response.end('{}')
  }
  await kubo.put?.(name, RECORD, forever)
  t.equal(requests.at(-1), `POST /api/v0/routing/put?arg=/ipns/${name.text}&allow-offline=true`)
})

t.test('a gateway and a Kubo say whether they have a block, without sending it', async t => {
  const { url, requests, answer } = await serve(t)
  const gateway = new GatewaySource(parseGatewayUrl(url))
  const kubo = new KuboSource(parseKuboUrl(url))
  t.teardown(() => Promise.all([gateway.close(), kubo.close()]))
  answer.with = (_, response) => response.writeHead(200, { 'content-length': 1_000_000 }).end()
  t.equal(await gateway.has(cid, { signal: forever }), true)
  answer.with = says(404)
  t.equal(await gateway.has(cid, { signal: forever }), false)
  answer.with = says(502)
  await t.rejects(gateway.has(cid, { signal: forever }), /HTTP 502/)
  answer.with = says(200, '{"Key":"x","Size":1}', 'application/json')
  t.equal(await kubo.has(cid, { signal: forever }), true)
  answer.with = says(500, '{"Message":"block was not found locally (offline): ipld: could not find x"}')
  t.equal(await kubo.has(cid, { signal: forever }), false)
  t.same(requests.slice(0, 1), [`HEAD /ipfs/${cid}?format=raw`])
  t.equal(requests.at(-1), `POST /api/v0/block/stat?arg=${cid}&offline=true`)
})
