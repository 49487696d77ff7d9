/**
 * A trustless gateway on loopback that can misbehave.
 *
 * It serves raw blocks (`GET|HEAD /ipfs/<cid>?format=raw`) found by multihash, as real ones do.
 * Specification: https://specs.ipfs.tech/http-gateways/trustless-gateway/
 */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { CarBlockIterator } from '@ipld/car'
import { CID } from 'multiformats/cid'
import { atEnd, type Owner } from './temp.js'

/** What to do instead of answering; `delayMs` alone answers late. */
export interface Fault {
  delayMs?: number
  /** Answer with this status and no block. */
  status?: number
  /** Bytes that are not the block's, of the same length. */
  wrongBytes?: boolean
  /** Promise the whole block, send half of it, cut the connection. */
  truncate?: boolean
  /** Never answer. */
  hang?: boolean
  /** Send the head, then the body in pieces with this much time between them. */
  dripMs?: number
  headers?: Record<string, string>
}

export class TestGateway {
  /** CIDs asked for, in order, as they were spelled. */
  readonly requests: string[] = []
  /** Decides the fault of the `nth` (from 1) request for a CID. */
  fault: (cid: CID, nth: number) => Fault | undefined = () => undefined
  /** Requests being answered, and the most there were at a time. */
  active = 0
  maxActive = 0
  private readonly blocks = new Map<string, Uint8Array>()
  private readonly counts = new Map<string, number>()

  private constructor(private readonly server: Server) {}

  /** Listens until the test ends. */
  static async start(t: Owner): Promise<TestGateway> {
    const server = createServer()
    const gateway = new TestGateway(server)
    server.on('request', (request, response) => void gateway.handle(request, response))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    atEnd(t, () => gateway.stop())
    return gateway
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`
  }

  add(cid: CID, bytes: Uint8Array): this {
    this.blocks.set(keyOf(cid), bytes)
    return this
  }

  remove(cid: CID): void {
    this.blocks.delete(keyOf(cid))
  }

  /** All blocks of a CAR file, version 1 or 2; returns its roots. */
  async addCar(file: string): Promise<CID[]> {
    const { roots, blocks } = await readCar(file)
    for (const { cid, bytes } of blocks) this.add(cid, bytes)
    return roots
  }

  /** How often a block was asked for, under any CID. */
  count(cid: CID): number {
    return this.counts.get(keyOf(cid)) ?? 0
  }

  async stop(): Promise<void> {
    if (!this.server.listening) return
    this.server.close()
    this.server.closeAllConnections()
    await once(this.server, 'close')
  }

  private async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.maxActive = Math.max(this.maxActive, ++this.active)
    response.once('close', () => this.active--)
    const url = new URL(request.url ?? '/', 'http://gateway')
    const cid = parse(/^\/ipfs\/([^/]+)$/.exec(url.pathname)?.[1])
    if (cid === undefined) return end(response, 400)
    if (!wantsRaw(request, url)) return end(response, 406)
    this.requests.push(cid.toString())
    this.counts.set(keyOf(cid), this.count(cid) + 1)
    const fault = this.fault(cid, this.count(cid)) ?? {}
    if (fault.hang === true) return
    if (fault.delayMs !== undefined) await sleep(fault.delayMs)
    const block = this.blocks.get(keyOf(cid))
    if (fault.status !== undefined || block === undefined) end(response, fault.status ?? 404, fault.headers)
    else await sendBlock(request, response, block, fault)
  }
}

/** Roots and blocks of a CAR file, version 1 or 2. */
export async function readCar(
  file: string,
): Promise<{ roots: CID[]; blocks: { cid: CID; bytes: Uint8Array }[] }> {
  const car = await CarBlockIterator.fromBytes(await readFile(file))
  const blocks: { cid: CID; bytes: Uint8Array }[] = []
  for await (const { cid, bytes } of car) blocks.push({ cid: CID.decode(cid.bytes), bytes })
  return { roots: (await car.getRoots()).map(root => CID.decode(root.bytes)), blocks }
}

function end(response: ServerResponse, status: number, headers: Record<string, string> = {}): void {
  response.writeHead(status, { 'content-type': 'text/plain', ...headers }).end(`status ${status}\n`)
}

async function sendBlock(
  request: IncomingMessage,
  response: ServerResponse,
  block: Uint8Array,
  fault: Fault,
) {
  const bytes = fault.wrongBytes === true ? block.map(byte => byte ^ 0xff) : block
  const headers = { 'content-type': 'application/vnd.ipld.raw', 'content-length': bytes.length }
  response.writeHead(200, { ...headers, ...fault.headers })
  if (request.method === 'HEAD') return void response.end()
  if (fault.truncate === true) {
    response.write(bytes.subarray(0, bytes.length / 2), () => response.destroy())
  } else if (fault.dripMs !== undefined) {
    const step = Math.max(1, Math.ceil(bytes.length / 8))
    for (let i = 0; i < bytes.length && !response.destroyed; i += step) {
      response.write(bytes.subarray(i, i + step))
      await sleep(fault.dripMs)
    }
    response.end()
  } else response.end(bytes)
}

function wantsRaw(request: IncomingMessage, url: URL): boolean {
  const format = url.searchParams.get('format')
  return format === null
    ? (request.headers.accept ?? '').includes('application/vnd.ipld.raw')
    : format === 'raw'
}

function parse(text: string | undefined): CID | undefined {
  try {
    return text === undefined ? undefined : CID.parse(text)
  } catch {
    return undefined
  }
}

function keyOf(cid: CID): string {
  return Buffer.from(cid.multihash.bytes).toString('hex')
}
