/** A trustless gateway on loopback whose answers a test decides, block by block. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import { type CID, CODEC_RAW, cidOf } from '../../src/core/cid.js'

export type Answer = (request: IncomingMessage, response: ServerResponse) => void

export interface FakeGateway {
  url: string
  port: number
  /** CIDs in the order in which they were asked for. */
  asked: string[]
  /** Requests that were cut off before their answer was complete. */
  aborted: string[]
  /** Answers requests for blocks that `add` does not know. 404 at first. */
  fallback: Answer
  /** Serves this block from now on, in the given way or properly. */
  add(cid: CID, answer: Answer | Uint8Array): void
  close(): Promise<void>
}

/** Ends with the test. Also answers the RPC path of a Kubo, `block/get`. */
export async function fakeGateway(t: Test, port = 0): Promise<FakeGateway> {
  const answers = new Map<string, Answer>()
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '', 'http://localhost')
    const cid = url.searchParams.get('arg') ?? url.pathname.split('/').pop() ?? ''
    gateway.asked.push(cid)
    response.on('close', () => response.writableFinished || gateway.aborted.push(cid))
    const answer = answers.get(cid) ?? gateway.fallback
    answer(request, response)
  })
  await new Promise<void>(resolve => server.listen(port, '127.0.0.1', resolve))
  const bound = (server.address() as AddressInfo).port
  const gateway: FakeGateway = {
    url: `http://127.0.0.1:${bound}`,
    port: bound,
    asked: [],
    aborted: [],
    fallback: status(404),
    add: (cid, answer) => answers.set(cid.toString(), answer instanceof Uint8Array ? serve(answer) : answer),
    close: () => closeServer(server),
  }
  t.teardown(() => closeServer(server))
  return gateway
}

async function closeServer(server: Server): Promise<void> {
  if (!server.listening) return
  const closed = new Promise<void>(resolve => server.close(() => resolve()))
  server.closeAllConnections()
  await closed
}

/** The bytes, complete, after a pause. */
export function serve(bytes: Uint8Array, delayMs = 0): Answer {
  return (_, response) => {
    const timer = setTimeout(() => {
      response.writeHead(200, { 'content-length': bytes.length })
      response.end(bytes)
    }, delayMs)
    response.on('close', () => clearTimeout(timer))
  }
}

/** The bytes without a length, in pieces. */
export function serveChunked(bytes: Uint8Array): Answer {
  return (_, response) => {
    const half = bytes.length >> 1
    response.write(bytes.subarray(0, half))
    setImmediate(() => response.end(bytes.subarray(half)))
  }
}

/** An error page. */
export function status(code: number, body = ''): Answer {
  return (_, response) => {
    response.writeHead(code)
    response.end(body)
  }
}

/** Half of what was announced, then the connection ends. */
export function truncate(bytes: Uint8Array): Answer {
  return (_, response) => {
    response.writeHead(200, { 'content-length': bytes.length })
    response.write(bytes.subarray(0, bytes.length >> 1), () => response.destroy())
  }
}

/** Zeros without end, for as long as somebody reads them. */
export function endless(code = 200): Answer {
  return (_, response) => {
    response.writeHead(code)
    const pump = (): void => {
      while (!response.destroyed && response.write(Buffer.alloc(65536))) {}
    }
    response.on('drain', pump)
    pump()
  }
}

/** Nothing, ever. */
export const hang: Answer = () => {}

/** A redirect. */
export function redirect(location: (request: IncomingMessage) => string): Answer {
  return (request, response) => {
    response.writeHead(301, { location: location(request) })
    response.end('<a href="elsewhere">Moved</a>')
  }
}

export interface Block {
  cid: CID
  bytes: Uint8Array
}

let made = 0

/** A raw block that no other call has returned. */
export function rawBlock(sizeBytes = 1000): Block {
  const bytes = new Uint8Array(sizeBytes)
  new DataView(bytes.buffer).setUint32(0, ++made)
  return { cid: cidOf(CODEC_RAW, bytes), bytes }
}

/** A port of loopback at which nobody listens. */
export async function closedPort(): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise<void>(resolve => server.close(() => resolve()))
  return port
}
