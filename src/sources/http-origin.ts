/**
 * One HTTP server and its connections: small requests in, bodies of bounded size out.
 *
 * Invariant: a body never takes more memory than the limit of its request, whatever the server sends, and
 * lies in an ArrayBuffer of its own. An aborted request ends at once and gives its connection up.
 * Why: `dispatch` with the body collected here is the cheapest way through undici (no stream per answer). One
 * request per connection, not pipelined: behind a block that the server still searches for, every other block
 * of that connection would wait as well.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { type Dispatcher, errors, Pool } from 'undici'
import { blockMemory } from '../core/block-memory.js'
import type { HttpAddress } from './config.js'
import { SourceError } from './source.js'

/** Silence in the middle of an answer after which it counts as broken. */
const BODY_TIMEOUT_MS = 15_000
const CONNECT_TIMEOUT_MS = 5_000
const KEEP_ALIVE_MS = 30_000
/** A longer answer with an error status is not read to its end. */
const MAX_ERROR_BYTES = 16 * 1024

export interface HttpRequest {
  method: 'GET' | 'HEAD' | 'POST' | 'PUT'
  path: string
  accept?: string
  body?: Uint8Array
  contentType?: string
  /** Replaces the host of the address in the `Host` header, not as the place that is dialled. */
  host?: string | undefined
  signal: AbortSignal
  /** Bodies of status 200 above this fail with `wrong`. */
  limitBytes: number
  /** Takes the body of status 200 as it comes; the answer has none then. The chunks may be kept. */
  onChunk?: (chunk: Uint8Array) => void
}

export interface HttpAnswer {
  status: number
  headers: IncomingHttpHeaders
  body: Uint8Array
}

export class HttpOrigin {
  readonly #pool: Pool
  readonly #address: HttpAddress

  /** Opens connections when they are needed, never more than `maxConnections`. */
  constructor(address: HttpAddress, maxConnections: number) {
    this.#address = address
    this.#pool = new Pool(address.origin, {
      connections: maxConnections,
      connect: { timeout: CONNECT_TIMEOUT_MS },
      // Whoever asks decides how long to wait for an answer to begin, with its signal.
      headersTimeout: 0,
      bodyTimeout: BODY_TIMEOUT_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      ...(address.socketPath === undefined ? {} : { socketPath: address.socketPath }),
    })
  }

  /**
   * One request, any status. `path` is appended to the path prefix of the address.
   * @throws SourceError `unreachable`, `failed`, `wrong` (body too long); the signal's reason when it aborts.
   */
  request(request: HttpRequest): Promise<HttpAnswer> {
    const headers: Record<string, string> = { 'user-agent': 'cidfs' }
    if (request.accept !== undefined) headers.accept = request.accept
    if (request.contentType !== undefined) headers['content-type'] = request.contentType
    if (request.host !== undefined) headers.host = request.host
    if (this.#address.authorization !== undefined) headers.authorization = this.#address.authorization
    return new Promise((resolve, reject) => {
      const collector = new Collector(request, resolve, reject)
      if (request.signal.aborted) {
        collector.abort()
        return
      }
      const { method, body = null } = request
      const path = this.#address.pathPrefix + request.path
      this.#pool.dispatch({ method, path, headers, body, idempotent: true }, collector)
    })
  }

  /** Cuts every connection; requests that run fail. */
  async close(): Promise<void> {
    await this.#pool.destroy()
  }
}

/** Gathers one answer. `content-length` is believed for the size of the buffer only, and only below the limit. */
class Collector implements Dispatcher.DispatchHandler {
  readonly #request: HttpRequest
  readonly #resolve: (answer: HttpAnswer) => void
  readonly #reject: (err: unknown) => void
  #controller: Dispatcher.DispatchController | undefined
  #status = 0
  #headers: IncomingHttpHeaders = {}
  #body: Uint8Array | undefined
  #chunks: Uint8Array[] = []
  #length = 0
  #settled = false

  constructor(request: HttpRequest, resolve: (answer: HttpAnswer) => void, reject: (err: unknown) => void) {
    this.#request = request
    this.#resolve = resolve
    this.#reject = reject
    request.signal.addEventListener('abort', this.abort)
  }

  readonly abort = (): void => this.#fail(this.#request.signal.reason)

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    // Aborted while it waited for a connection.
    if (this.#settled) controller.abort(new errors.RequestAbortedError())
  }

  onResponseStart(_: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders): void {
    if (status < 200) return
    this.#status = status
    this.#headers = headers
    const { method, onChunk } = this.#request
    if (status !== 200 || method === 'HEAD' || onChunk !== undefined) return
    const length = Number(headers['content-length'])
    if (length > this.#request.limitBytes) this.#tooLong()
    else if (length > 0) this.#body = Buffer.from(blockMemory(length).buffer)
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#settled) return
    const start = this.#length
    this.#length += chunk.length
    if (this.#status !== 200) this.#collectError(chunk)
    else if (this.#length > this.#request.limitBytes) this.#tooLong()
    else if (this.#request.onChunk !== undefined) this.#request.onChunk(chunk)
    else if (this.#length > (this.#body?.length ?? this.#request.limitBytes)) this.#tooLong()
    else if (this.#body === undefined) this.#chunks.push(chunk)
    else this.#body.set(chunk, start)
  }

  onResponseEnd(): void {
    if (this.#settled) return
    const complete = this.#body === undefined || this.#length === this.#body.length
    if (complete) this.#succeed()
    else this.#fail(new SourceError('failed', 'the answer was cut short'))
  }

  onResponseError(_: Dispatcher.DispatchController, err: Error): void {
    if (!this.#settled) this.#fail(failureOf(err))
  }

  /** The page that comes with an error status matters only for its first lines. */
  #collectError(chunk: Buffer): void {
    this.#chunks.push(chunk)
    if (this.#length < MAX_ERROR_BYTES) return
    this.#succeed()
    this.#controller?.abort(new errors.RequestAbortedError())
  }

  #succeed(): void {
    this.#settle()
    const body = this.#body ?? concatenate(this.#chunks)
    this.#resolve({ status: this.#status, headers: this.#headers, body })
  }

  #tooLong(): void {
    this.#fail(new SourceError('wrong', `sent more than ${this.#request.limitBytes} bytes`))
  }

  #fail(err: unknown): void {
    if (this.#settled) return
    this.#settle()
    this.#reject(err)
    this.#controller?.abort(new errors.RequestAbortedError())
  }

  #settle(): void {
    this.#settled = true
    this.#request.signal.removeEventListener('abort', this.abort)
  }
}

function concatenate(chunks: Uint8Array[]): Uint8Array {
  const all = Buffer.allocUnsafeSlow(chunks.reduce((sum, chunk) => sum + chunk.length, 0))
  let offset = 0
  for (const chunk of chunks) {
    all.set(chunk, offset)
    offset += chunk.length
  }
  return all
}

const CONNECTION_FAILURES: Record<string, string> = {
  ECONNREFUSED: 'connection refused',
  EHOSTUNREACH: 'no route to the host',
  ENETUNREACH: 'network unreachable',
  ENOTFOUND: 'host name not found',
  EAI_AGAIN: 'host name not resolved',
  ENOENT: 'no such socket',
  EACCES: 'permission denied',
  ETIMEDOUT: 'connection timed out',
  UND_ERR_CONNECT_TIMEOUT: 'connection timed out',
}

const BROKEN_ANSWERS: Record<string, string> = {
  ECONNRESET: 'the connection was reset',
  EPIPE: 'the connection was closed',
  UND_ERR_SOCKET: 'the connection was closed before the answer was complete',
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: 'the answer was cut short',
  UND_ERR_BODY_TIMEOUT: 'the answer stalled',
}

/** What an error of undici or of a socket says about the server. */
function failureOf(err: Error): SourceError {
  // Several addresses were tried: all of them failed, and the first says why as well as any.
  const first = err instanceof AggregateError && err.errors[0] instanceof Error ? err.errors[0] : err
  const code = (first as NodeJS.ErrnoException).code ?? ''
  const connection = CONNECTION_FAILURES[code]
  if (connection !== undefined) return new SourceError('unreachable', connection, { cause: err })
  const broken = BROKEN_ANSWERS[code] ?? (first.message || code)
  return new SourceError('failed', broken, { cause: err })
}
