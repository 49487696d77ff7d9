/**
 * A command's side of the control socket.
 *
 * Invariant: an answer is complete or an error is thrown: a connection that ends early is never taken for
 * the end of the data. Errors of the daemon arrive as `CidfsError` with their code.
 */
import { request as httpRequest, type IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { CidfsError, messageOf } from '../core/errors.js'
import {
  ERROR_TRAILER,
  type ExistsReport,
  type FetchProgress,
  type FsckProgress,
  type FsckReport,
  type GcProgress,
  type GcReport,
  type ImportProgress,
  type ImportResult,
  type Line,
  type PathCid,
  type PinAddRequest,
  type PinProgress,
  type PinRemoval,
  type PinReport,
  type PrefetchResult,
  type StatusReport,
  type UnmountResult,
  type UpgradeRequest,
  type UpgradeResult,
  type WaitProgress,
  type WaitResult,
  type WireError,
} from '../daemon/control-protocol.js'
import type {
  KeyReport,
  NameReport,
  NameResolution,
  PublishReport,
  PublishRequest,
  ResolveRequest,
} from '../daemon/name-protocol.js'
import { type DaemonRecord, isKept } from '../daemon/registry.js'

/** For answers that need no work: a daemon that takes longer is stuck. */
const ANSWER_TIMEOUT_MS = 10_000
/** A daemon that takes over from another listens within this time. */
const SUCCESSION_MS = 10_000

interface RequestOptions {
  /** Sent as it is (a CAR), or as JSON. */
  body?: Readable | object
  timeoutMs?: number
  signal?: AbortSignal | undefined
}

/** Calls to one daemon. Every method throws what the daemon threw, or `NOT_RUNNING`. */
export class ControlClient {
  constructor(private readonly daemon: Pick<DaemonRecord, 'socket' | 'keeper'>) {}

  status(): Promise<StatusReport> {
    return this.json('GET', '/status', { timeoutMs: ANSWER_TIMEOUT_MS })
  }

  /** `path` is relative to the mountpoint, as everywhere in the protocol. */
  cidOf(path: string): Promise<PathCid> {
    return this.json('GET', `/cid?path=${encodeURIComponent(path)}`, { timeoutMs: ANSWER_TIMEOUT_MS })
  }

  wait(paths: string[], onProgress: (p: WaitProgress) => void, signal?: AbortSignal): Promise<WaitResult> {
    return this.lines('/wait', { body: { paths }, signal }, onProgress)
  }

  importCar(car: Readable, onProgress: (p: ImportProgress) => void): Promise<ImportResult> {
    return this.lines('/import', { body: car }, onProgress)
  }

  /** Bytes of a CARv1. Throws at the end when the daemon could not complete it. */
  async *exportCar(cid: string): AsyncGenerator<Uint8Array> {
    const response = await this.send('GET', `/export?cid=${encodeURIComponent(cid)}`)
    for await (const chunk of untilComplete(response)) yield chunk
    const trailer = response.trailers[ERROR_TRAILER]
    if (trailer !== undefined) throw fromWire(JSON.parse(decodeURIComponent(trailer)) as WireError)
  }

  pins(): Promise<PinReport[]> {
    return this.json('GET', '/pins', { timeoutMs: ANSWER_TIMEOUT_MS })
  }

  addPin(request: PinAddRequest, onProgress: (p: PinProgress) => void): Promise<PinReport> {
    return this.lines('/pins/add', { body: request }, onProgress)
  }

  removePin(pin: string): Promise<PinRemoval> {
    return this.json('POST', '/pins/remove', { body: { pin }, timeoutMs: ANSWER_TIMEOUT_MS })
  }

  exists(cid: string, timeoutMs: number): Promise<ExistsReport> {
    const limitMs = timeoutMs + ANSWER_TIMEOUT_MS
    return this.json('POST', '/exists', { body: { cid, timeoutMs }, timeoutMs: limitMs })
  }

  published(): Promise<NameReport[]> {
    return this.json('GET', '/names', { timeoutMs: ANSWER_TIMEOUT_MS })
  }

  publish(request: PublishRequest): Promise<PublishReport> {
    return this.json('POST', '/names/publish', { body: request })
  }

  resolve(request: ResolveRequest): Promise<NameResolution> {
    return this.json('POST', '/names/resolve', { body: request })
  }

  keys(): Promise<KeyReport[]> {
    return this.json('GET', '/keys', { timeoutMs: ANSWER_TIMEOUT_MS })
  }

  generateKey(key: string): Promise<KeyReport> {
    return this.json('POST', '/keys/gen', { body: { key }, timeoutMs: ANSWER_TIMEOUT_MS })
  }

  /** `file` as in `NameRequests`. */
  importKey(key: string, file: string): Promise<KeyReport> {
    return this.json('POST', '/keys/import', { body: { key, file }, timeoutMs: ANSWER_TIMEOUT_MS })
  }

  exportKey(key: string): Promise<{ file: string }> {
    return this.json('POST', '/keys/export', { body: { key }, timeoutMs: ANSWER_TIMEOUT_MS })
  }

  removeKey(key: string): Promise<KeyReport> {
    return this.json('POST', '/keys/remove', { body: { key }, timeoutMs: ANSWER_TIMEOUT_MS })
  }

  prefetch(cid: string, onProgress: (p: FetchProgress) => void): Promise<PrefetchResult> {
    return this.lines('/prefetch', { body: { cid } }, onProgress)
  }

  fsck(options: { repair: boolean }, onProgress: (p: FsckProgress) => void): Promise<FsckReport> {
    return this.lines('/fsck', { body: options }, onProgress)
  }

  gc(onProgress: (p: GcProgress) => void): Promise<GcReport> {
    return this.lines('/gc', {}, onProgress)
  }

  unmount(options: { lazy: boolean }): Promise<UnmountResult> {
    return this.json('POST', '/unmount', { body: options })
  }

  upgrade(request: UpgradeRequest): Promise<UpgradeResult> {
    return this.json('POST', '/upgrade', { body: request })
  }

  private async json<T>(method: string, path: string, options: RequestOptions): Promise<T> {
    const response = await this.send(method, path, options)
    return JSON.parse(await textOf(response)) as T
  }

  private async lines<P, R>(
    path: string,
    options: RequestOptions,
    onProgress: (progress: P) => void,
  ): Promise<R> {
    try {
      const response = await this.send('POST', path, options)
      for await (const text of linesOf(response)) {
        const line = JSON.parse(text) as Line<P, R>
        if ('error' in line) throw fromWire(line.error)
        if ('result' in line) return line.result
        onProgress(line.progress)
      }
      throw connectionLost(undefined)
    } catch (err) {
      if (options.signal?.aborted === true) throw new CidfsError('INTERRUPTED', 'interrupted', { cause: err })
      throw (isStream(options.body) && options.body.errored) || err // an unreadable file ends the upload, too
    }
  }

  /** The response, once its head is there and says that it is an answer. */
  private async send(method: string, path: string, options: RequestOptions = {}): Promise<IncomingMessage> {
    const { body } = options
    for (const end = performance.now() + SUCCESSION_MS; ; await sleep(20)) {
      try {
        return await this.sendOnce(method, path, options)
      } catch (err) {
        // the next daemon of the mount has not begun to listen
        if (!isAbsent(err) || isStream(body) || performance.now() > end || !(await isKept(this.daemon)))
          throw err
      }
    }
  }

  private async sendOnce(method: string, path: string, options: RequestOptions): Promise<IncomingMessage> {
    const { body, timeoutMs, signal } = options
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const request = httpRequest({ socketPath: this.daemon.socket, method, path, agent: false, signal })
      const fail = (err: unknown) => reject(connectionLost(err))
      request.once('response', resolve)
      request.on('error', fail)
      if (timeoutMs !== undefined)
        request.setTimeout(timeoutMs, () => request.destroy(notAnswering(timeoutMs)))
      if (isStream(body)) pipeline(body, request).catch(fail)
      else request.end(body === undefined ? undefined : JSON.stringify(body))
    })
    if (response.statusCode === 200) return response
    throw fromWire((JSON.parse(await textOf(response)) as { error: WireError }).error)
  }
}

function isStream(body: Readable | object | undefined): body is Readable {
  return body !== undefined && 'pipe' in body
}

async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Uint8Array[] = []
  for await (const chunk of untilComplete(response)) chunks.push(chunk)
  return Buffer.concat(chunks).toString('utf8')
}

async function* untilComplete(response: IncomingMessage): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of response) yield chunk as Buffer
  } catch (err) {
    throw connectionLost(err)
  }
  if (!response.complete) throw connectionLost(undefined)
}

/** Leaving the loop early destroys the response, and with it an upload that the daemon did not read. */
async function* linesOf(response: IncomingMessage): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of untilComplete(response)) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n')
    rest = lines.pop()!
    yield* lines
  }
}

function fromWire({ code, message }: WireError): Error {
  return code === 'INTERNAL' ? new Error(`the daemon failed: ${message}`) : new CidfsError(code, message)
}

function notAnswering(timeoutMs: number): CidfsError {
  return new CidfsError('TIMEOUT', `the daemon does not answer (waited ${timeoutMs / 1000} s)`)
}

/** Nobody listens: the request has not been sent. */
function isAbsent(err: unknown): boolean {
  const { code } = ((err as Error).cause ?? {}) as NodeJS.ErrnoException
  return code === 'ECONNREFUSED' || code === 'ENOENT'
}

function connectionLost(cause: unknown): CidfsError {
  if (cause instanceof CidfsError) return cause
  const code = (cause as NodeJS.ErrnoException | undefined)?.code
  if (code === 'ECONNREFUSED' || code === 'ENOENT') {
    return new CidfsError('NOT_RUNNING', 'no daemon answers there; start one with: cidfs mount <dir>', {
      cause,
    })
  }
  if (code === 'EACCES') return new CidfsError('PERMISSION', 'the daemon belongs to another user', { cause })
  const reason = cause === undefined ? '' : `: ${messageOf(cause)}`
  return new CidfsError('NOT_RUNNING', `the daemon ended the connection${reason}`, { cause })
}
