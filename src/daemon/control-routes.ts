/**
 * The requests of the control socket, translated to `DaemonActions`.
 *
 * Invariant: every request is answered exactly once and no failure of an action escapes: before the first
 * byte it is a status and a `WireError`, after it the last line or the trailer.
 */
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { finished } from 'node:stream/promises'
import { CidfsError, codeOf, type ErrorCode, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { type DaemonActions, ERROR_TRAILER, type Line, type WireError } from './control-protocol.js'
import type { NameRequests } from './name-protocol.js'

const log = logger('daemon:control')

/** Progress lines are for people: no more often than this. */
const PROGRESS_INTERVAL_MS = 100
/** Of a JSON body. */
const MAX_BODY_BYTES = 4 * 1024 * 1024

interface Exchange {
  actions: DaemonActions
  url: URL
  request: IncomingMessage
  response: ServerResponse
  /** Aborts when the client is gone or the daemon stops. */
  signal: AbortSignal
}

type Route = [request: string, handler: (exchange: Exchange) => Promise<void>]

/** One that takes an object and answers with JSON. */
function nameRoute(
  request: string,
  answer: (names: NameRequests, body: Record<string, unknown>, signal: AbortSignal) => unknown,
): Route {
  return [
    request,
    async ({ actions, request, response, signal }) => {
      const body = request.method === 'GET' ? {} : await readJson(request)
      sendJson(response, 200, await answer(actions.names, body as Record<string, unknown>, signal))
    },
  ]
}

const NAME_ROUTES: readonly Route[] = [
  nameRoute('GET /names', names => names.published()),
  nameRoute('POST /names/publish', (names, { key, target, isPath }, signal) =>
    names.publish({ key: text(key, 'key'), target: text(target, 'target'), isPath: isPath === true }, signal),
  ),
  nameRoute('POST /names/resolve', (names, { name, refresh }, signal) =>
    names.resolve({ name: text(name, 'name'), refresh: refresh === true }, signal),
  ),
  nameRoute('GET /keys', names => names.keys()),
  nameRoute('POST /keys/gen', (names, { key }) => names.generateKey(text(key, 'key'))),
  nameRoute('POST /keys/import', (names, { key, file }) =>
    names.importKey(text(key, 'key'), text(file, 'file')),
  ),
  nameRoute('POST /keys/export', (names, { key }) => names.exportKey(text(key, 'key'))),
  nameRoute('POST /keys/remove', (names, { key }) => names.removeKey(text(key, 'key'))),
]

const routes = new Map<string, (exchange: Exchange) => Promise<void>>([
  ['GET /status', async ({ actions, response }) => sendJson(response, 200, await actions.status())],
  [
    'GET /cid',
    async ({ actions, url, response }) => sendJson(response, 200, await actions.cidOf(query(url, 'path'))),
  ],
  ['POST /wait', waitFor],
  ['POST /import', importCar],
  ['GET /export', exportCar],
  ['GET /pins', async ({ actions, response }) => sendJson(response, 200, await actions.pins())],
  ['POST /pins/add', addPin],
  ['POST /pins/remove', removePin],
  ...NAME_ROUTES,
  ['POST /exists', exists],
  ['POST /prefetch', prefetch],
  [
    'POST /fsck',
    async ({ actions, request, response, signal }) => {
      const { repair } = (await readJson(request)) as { repair?: unknown }
      await sendLines(response, onProgress => actions.fsck({ repair: repair === true }, onProgress, signal))
    },
  ],
  [
    'POST /gc',
    ({ actions, response, signal }) => sendLines(response, onProgress => actions.gc(onProgress, signal)),
  ],
  ['POST /unmount', unmount],
  ['POST /upgrade', upgrade],
])

/** Answers one request. Never rejects. */
export async function answer(
  actions: DaemonActions,
  request: IncomingMessage,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://cidfs')
  const route = routes.get(`${request.method} ${url.pathname}`)
  try {
    if (route === undefined)
      throw new CidfsError('NOT_SUPPORTED', `no such request: ${request.method} ${url.pathname}`)
    await route({ actions, url, request, response, signal })
  } catch (err) {
    log('%s %s: %O', request.method, request.url, err)
    if (response.headersSent) response.destroy()
    else sendJson(response, 400, { error: wireError(err) })
  }
}

async function unmount({ actions, request, response }: Exchange): Promise<void> {
  const { lazy } = (await readJson(request)) as { lazy?: unknown }
  sendJson(response, 200, await actions.unmount({ lazy: lazy === true }))
}

async function upgrade({ actions, request, response }: Exchange): Promise<void> {
  const { program } = (await readJson(request)) as { program?: unknown }
  if (!Array.isArray(program) || program.length === 0 || !program.every(word => typeof word === 'string')) {
    throw new CidfsError('INVALID', 'program must be an array of strings')
  }
  sendJson(response, 200, await actions.upgrade({ program }))
}

async function waitFor({ actions, request, response, signal }: Exchange): Promise<void> {
  const { paths } = (await readJson(request)) as { paths?: unknown }
  if (!Array.isArray(paths) || !paths.every(path => typeof path === 'string')) {
    throw new CidfsError('INVALID', 'paths must be an array of strings')
  }
  await sendLines(response, onProgress => actions.wait(paths, onProgress, signal))
}

async function addPin({ actions, request, response, signal }: Exchange): Promise<void> {
  const { cid, name, wait } = (await readJson(request)) as Record<string, unknown>
  if (typeof name !== 'string' && name !== null)
    throw new CidfsError('INVALID', 'name must be a string or null')
  const pin = { cid: text(cid, 'cid'), name, wait: wait === true }
  await sendLines(response, onProgress => actions.addPin(pin, onProgress, signal))
}

async function removePin({ actions, request, response }: Exchange): Promise<void> {
  const { pin } = (await readJson(request)) as { pin?: unknown }
  sendJson(response, 200, await actions.removePin(text(pin, 'pin')))
}

async function exists({ actions, request, response, signal }: Exchange): Promise<void> {
  const { cid, timeoutMs } = (await readJson(request)) as Record<string, unknown>
  if (typeof timeoutMs !== 'number') throw new CidfsError('INVALID', 'timeoutMs must be a number')
  sendJson(response, 200, await actions.exists(text(cid, 'cid'), timeoutMs, signal))
}

async function prefetch({ actions, request, response, signal }: Exchange): Promise<void> {
  const { cid } = (await readJson(request)) as { cid?: unknown }
  const root = text(cid, 'cid')
  await sendLines(response, onProgress => actions.prefetch(root, onProgress, signal))
}

/** What is left of a bad CAR is discarded until the client has heard of it: closing before would lose the answer. */
async function importCar({ actions, request, response, signal }: Exchange): Promise<void> {
  const car = request.iterator({ destroyOnReturn: false })
  await sendLines(
    response,
    onProgress => actions.importCar(car, onProgress, signal),
    async () => {
      request.resume()
      await finished(request).catch(() => {}) // the client is gone
    },
  )
}

async function exportCar({ actions, url, response, signal }: Exchange): Promise<void> {
  const blocks = actions.exportCar(query(url, 'cid'), signal)[Symbol.asyncIterator]()
  let next = await blocks.next() // what fails before the first byte is an ordinary error
  response.writeHead(200, { 'content-type': 'application/vnd.ipld.car', trailer: ERROR_TRAILER })
  try {
    for (; next.done !== true; next = await blocks.next()) {
      signal.throwIfAborted()
      if (!response.write(next.value)) await once(response, 'drain', { signal })
    }
  } catch (err) {
    await blocks.return?.()
    response.addTrailers({ [ERROR_TRAILER]: encodeURIComponent(JSON.stringify(wireError(err))) })
  }
  response.end()
}

/** Runs an action with progress; its end, good or bad, is the last line. `afterError`: before the response ends. */
async function sendLines<P, R>(
  response: ServerResponse,
  run: (onProgress: (progress: P) => void) => Promise<R>,
  afterError = async () => {},
): Promise<void> {
  response.writeHead(200, { 'content-type': 'application/x-ndjson' })
  response.flushHeaders()
  const send = (line: Line<P, R>) => response.write(`${JSON.stringify(line)}\n`)
  let lastMs = Number.NEGATIVE_INFINITY
  const onProgress = (progress: P) => {
    if (performance.now() - lastMs < PROGRESS_INTERVAL_MS || response.writableNeedDrain) return
    lastMs = performance.now()
    send({ progress })
  }
  try {
    send({ result: await run(onProgress) })
  } catch (err) {
    send({ error: wireError(err) })
    await afterError()
  }
  response.end()
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(JSON.stringify(body))
}

async function readJson(request: IncomingMessage): Promise<object> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request) {
    size += (chunk as Buffer).length
    if (size > MAX_BODY_BYTES) throw new CidfsError('INVALID', 'request body is too large')
    chunks.push(chunk as Buffer)
  }
  const body: unknown = JSON.parse(Buffer.concat(chunks).toString('utf8') || '{}')
  if (typeof body !== 'object' || body === null)
    throw new CidfsError('INVALID', 'request body must be an object')
  return body
}

function text(value: unknown, name: string): string {
  if (typeof value !== 'string') throw new CidfsError('INVALID', `${name} must be a string`)
  return value
}

function query(url: URL, name: string): string {
  const value = url.searchParams.get(name)
  if (value === null) throw new CidfsError('INVALID', `${name} is missing`)
  return value
}

function wireError(err: unknown): WireError {
  if (err instanceof SyntaxError) return { code: 'INVALID', message: `malformed request: ${err.message}` }
  return { code: codeOf(err) ?? abortCode(err), message: messageOf(err) }
}

function abortCode(err: unknown): ErrorCode | 'INTERNAL' {
  return err instanceof Error && err.name === 'AbortError' ? 'INTERRUPTED' : 'INTERNAL'
}
