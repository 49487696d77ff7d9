/**
 * A DNS resolver over HTTPS (without the S, on loopback) and a delegated router that a test fills.
 *
 * Specifications: RFC 8484; https://specs.ipfs.tech/routing/http-routing-v1/#ipns-api
 */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { atEnd, type Owner } from './temp.js'

const IPNS_RECORD = 'application/vnd.ipfs.ipns-record'

type Handler = (request: IncomingMessage, response: ServerResponse, url: URL) => void | Promise<void>

async function serve(t: Owner, handler: Handler): Promise<{ server: Server; url: string }> {
  const server = createServer((request, response) => {
    void handler(request, response, new URL(request.url ?? '/', 'http://server'))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  atEnd(t, async () => {
    server.close()
    server.closeAllConnections()
    await once(server, 'close')
  })
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}

export interface DnsServer {
  /** For `--dns`. */
  url: string
  /** Name to its TXT records; those that are not there do not exist. */
  txt: Map<string, string[]>
  ttlSeconds: number
  /** Never answer while it is set. */
  hang: boolean
  /** The response code instead of an answer: 2 is SERVFAIL. */
  rcode: number
  /** Names asked for, in order. */
  asked: string[]
}

/** `only`: what it understands. */
export async function startDns(t: Owner, only: 'messages' | 'json' = 'messages'): Promise<DnsServer> {
  const { url } = await serve(t, (_, response, { pathname, searchParams }) => {
    if (pathname !== '/dns-query') return void response.writeHead(404).end()
    const query = searchParams.get('dns')
    if (query === null ? only === 'messages' : only === 'json') return void response.writeHead(400).end()
    const name = query === null ? searchParams.get('name')! : nameIn(Buffer.from(query, 'base64url'))
    dns.asked.push(name)
    if (dns.hang) return
    if (query === null) respondJson(dns, name, response)
    else respondMessage(dns, Buffer.from(query, 'base64url'), response)
  })
  const dns: DnsServer = {
    url: `${url}/dns-query`,
    txt: new Map(),
    ttlSeconds: 60,
    hang: false,
    rcode: 0,
    asked: [],
  }
  return dns
}

function nameIn(query: Buffer): string {
  const labels: string[] = []
  for (let at = 12; query[at] !== 0; at += 1 + query[at]!) {
    labels.push(query.subarray(at + 1, at + 1 + query[at]!).toString())
  }
  return labels.join('.')
}

function respondJson(dns: DnsServer, name: string, response: ServerResponse): void {
  const records = dns.txt.get(name)
  const Answer = records?.map(text => ({ name, type: 16, TTL: dns.ttlSeconds, data: JSON.stringify(text) }))
  const Status = dns.rcode === 0 && records === undefined ? 3 : dns.rcode
  response.writeHead(200, { 'content-type': 'application/dns-json' }).end(JSON.stringify({ Status, Answer }))
}

function respondMessage(dns: DnsServer, query: Buffer, response: ServerResponse): void {
  const body = answerTo(query, dns.txt, dns.ttlSeconds, dns.rcode)
  response.writeHead(200, { 'content-type': 'application/dns-message' }).end(body)
}

/** The message that answers a query for TXT records, from these. */
export function answerTo(query: Buffer, txt: Map<string, string[]>, ttlSeconds: number, failure = 0): Buffer {
  const records = txt.get(nameIn(query))
  const rcode = failure === 0 && records === undefined ? 3 : failure
  const answers = rcode === 0 ? (records ?? []).map(text => txtRecord(text, ttlSeconds)) : []
  const header = Buffer.from(query.subarray(0, 12))
  header.writeUInt16BE(0x8180 | rcode, 2)
  header.writeUInt16BE(answers.length, 6)
  header.writeUInt32BE(0, 8)
  return Buffer.concat([header, query.subarray(12, endOfQuestion(query)), ...answers])
}

/** What follows in queries of resolvers (EDNS) is not repeated. */
function endOfQuestion(query: Buffer): number {
  let at = 12
  while (query[at] !== 0) at += 1 + query[at]!
  return at + 5
}

function txtRecord(text: string, ttlSeconds: number): Buffer {
  const strings: Buffer[] = []
  for (let rest = Buffer.from(text); rest.length > 0; rest = rest.subarray(255)) {
    strings.push(Buffer.concat([Buffer.of(Math.min(255, rest.length)), rest.subarray(0, 255)]))
  }
  const data = Buffer.concat(strings)
  const head = Buffer.alloc(12)
  head.writeUInt16BE(0xc00c, 0)
  head.writeUInt16BE(16, 2)
  head.writeUInt16BE(1, 4)
  head.writeUInt32BE(ttlSeconds, 6)
  head.writeUInt16BE(data.length, 10)
  return Buffer.concat([head, data])
}

export interface RecordServer {
  /** For `--router`. */
  url: string
  /** Name, in base36, to its record. */
  records: Map<string, Uint8Array>
  /** CID to the ids of peers that provide it. */
  providers: Map<string, string[]>
  /** Never answer while it is set. */
  hang: boolean
  /** Status of the answer to a PUT. */
  putStatus: number
  /** How often records were asked for and given. */
  gets: number
  puts: number
}

/** A delegated router that keeps the records it is given, whatever they are. */
export async function startRouter(t: Owner): Promise<RecordServer> {
  const { url } = await serve(t, async (request, response, { pathname }) => {
    const name = /^\/routing\/v1\/ipns\/(\w+)$/.exec(pathname)?.[1]
    if (name === undefined) return respondProviders(router, pathname, response)
    if (request.method === 'PUT') {
      router.puts++
      if (router.hang) return
      if (router.putStatus === 200) router.records.set(name, await buffer(request))
      return void response.writeHead(router.putStatus).end()
    }
    router.gets++
    if (router.hang) return
    const record = router.records.get(name)
    if (record === undefined) response.writeHead(404).end('routing: not found\n')
    else response.writeHead(200, { 'content-type': IPNS_RECORD }).end(record)
  })
  const router: RecordServer = {
    url,
    records: new Map(),
    providers: new Map(),
    hang: false,
    putStatus: 200,
    gets: 0,
    puts: 0,
  }
  return router
}

function respondProviders(router: RecordServer, path: string, response: ServerResponse): void {
  const cid = /^\/routing\/v1\/providers\/(\w+)$/.exec(path)?.[1] ?? ''
  const Providers = (router.providers.get(cid) ?? []).map(ID => ({ Schema: 'peer', ID, Addrs: [] }))
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ Providers }))
}
