/**
 * The main thread's side of the network worker.
 *
 * Invariant: every `fetch` ends, at the latest a moment after its deadline, whatever becomes of the worker. When
 * the worker dies it is started again, after a growing pause, and asked again for what was in flight.
 * Why lazily started: the thread takes tens of milliseconds to load, which no mount should wait for.
 */
import { Worker } from 'node:worker_threads'
import { isReusable } from '../core/block-memory.js'
import type { CID } from '../core/cid.js'
import { CidfsError, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { type CallOptions, Calls, type Handlers, isCallMessage } from './calls.js'
import { checkSourcesConfig, parseGatewayUrl, parseKuboUrl, type SourcesConfig } from './config.js'
import type { Priority, SourceStatus } from './source.js'
import type { FromWorker, MainMethods, ToWorker, WorkerConfig, WorkerMethods } from './worker-protocol.js'

const log = logger('sources:client')

/** Times a fetch is handed to a new worker before it is thought to be what kills them. */
const MAX_RESTARTS_PER_FETCH = 2
const FIRST_RESTART_MS = 50
const MAX_RESTART_MS = 5_000
/** A worker that lived this long starts the series of pauses anew. */
const STABLE_MS = 30_000
/** How much later than the worker's own deadline a fetch is given up here. */
const GRACE_MS = 1_000
const STATUS_TIMEOUT_MS = 3_000
const CLOSE_TIMEOUT_MS = 3_000
const RESTARTING = 'the network worker is being restarted'

export interface FetchOptions {
  /** Ends the fetch with `INTERRUPTED`. */
  signal?: AbortSignal | undefined
  /** Milliseconds; the configured read deadline when absent. */
  deadlineMs?: number | undefined
  /** `demand` when absent. */
  priority?: Priority | undefined
}

/** What the rest of the program needs of the network. */
export interface Network {
  fetch(cid: CID, options?: FetchOptions): Promise<Uint8Array>
  /** A fetch that was started as read-ahead, known by its signal, has become one that somebody waits for. */
  raise(signal: AbortSignal): void
  /** Nobody reads these bytes of a `fetch` any more; they are gone afterwards. */
  release?(bytes: Uint8Array): void
}

interface Pending {
  cid: CID
  priority: Priority
  /** `performance.now()` */
  deadlineAt: number
  restarts: number
  signal: AbortSignal | undefined
  resolve(bytes: Uint8Array): void
  reject(err: unknown): void
}

export class NetworkClient implements Network {
  readonly #config: SourcesConfig
  readonly #spawn: (config: WorkerConfig) => Worker
  readonly #pending = new Map<number, Pending>()
  readonly #bySignal = new Map<AbortSignal, number>()
  readonly #statusRequests = new Map<number, (sources: SourceStatus[]) => void>()
  readonly #served: Handlers<MainMethods> = {}
  readonly #calls = new Calls<WorkerMethods, MainMethods>(message => this.#post(message), this.#served)
  #worker: Worker | undefined
  #startedAt = 0
  #restartTimer: NodeJS.Timeout | undefined
  #restartMs = FIRST_RESTART_MS
  #nextId = 1
  #closed = false

  /**
   * Dials nothing yet.
   * @throws CidfsError `BAD_CONFIG`.
   */
  constructor(config: SourcesConfig, spawn = spawnWorker) {
    checkSourcesConfig(config)
    this.#config = config
    this.#spawn = spawn
  }

  /** Nobody can be asked: offline, or no source is configured. */
  get unavailable(): string | undefined {
    if (this.#config.offline) return 'offline, and the block is not held here'
    const { gateways, kubo, node } = this.#config
    if (gateways.length > 0 || kubo !== undefined || node !== undefined) return undefined
    return 'no source is configured, and the block is not held here'
  }

  /** Starts the worker ahead of the first fetch; nothing waits for it. */
  start(): void {
    if (this.#worker !== undefined || this.#restartTimer !== undefined) return
    if (this.#closed || this.unavailable !== undefined) return
    this.#startedAt = performance.now()
    const { gateways, kubo, node } = this.#config
    const worker = this.#spawn({ gateways, kubo, node })
    this.#worker = worker
    worker.on('message', (message: FromWorker) => this.#receive(message))
    worker.on('error', err => log('worker: %s', messageOf(err)))
    worker.on('exit', code => this.#exited(worker, code))
    this.#updateRef()
  }

  /**
   * The verified block, in memory of its own.
   * @throws CidfsError `UNREACHABLE`, `TIMEOUT`, `BAD_BLOCK`, `INTERRUPTED`, `UNSUPPORTED_HASH`.
   */
  async fetch(cid: CID, options: FetchOptions = {}): Promise<Uint8Array> {
    const { signal, deadlineMs = this.#config.readDeadlineMs, priority = 'demand' } = options
    if (this.unavailable !== undefined) throw this.#error('UNREACHABLE', this.unavailable, cid)
    if (this.#closed) throw this.#error('INTERRUPTED', 'shutting down', cid)
    if (signal?.aborted) throw this.#error('INTERRUPTED', 'interrupted', cid)
    const id = this.#nextId++
    const deadlineAt = performance.now() + deadlineMs
    let onAbort: (() => void) | undefined
    let timer: NodeJS.Timeout | undefined
    try {
      return await new Promise<Uint8Array>((resolve, reject) => {
        this.#pending.set(id, { cid, priority, deadlineAt, restarts: 0, signal, resolve, reject })
        onAbort = () => this.#drop(id, this.#error('INTERRUPTED', 'interrupted', cid))
        signal?.addEventListener('abort', onAbort)
        if (signal !== undefined) this.#bySignal.set(signal, id)
        const late = `block ${cid} did not come within ${deadlineMs} ms`
        timer = setTimeout(() => this.#drop(id, this.#error('TIMEOUT', late, cid)), deadlineMs + GRACE_MS)
        this.start()
        this.#send(id)
      })
    } finally {
      clearTimeout(timer)
      if (onAbort !== undefined) signal?.removeEventListener('abort', onAbort)
      if (signal !== undefined) this.#bySignal.delete(signal)
      this.#pending.delete(id)
      this.#updateRef()
    }
  }

  /** What the worker may ask of this thread. May be called several times, for different methods. */
  serve(handlers: Handlers<MainMethods>): void {
    Object.assign(this.#served, handlers)
  }

  /**
   * Asks something else than a block. Starts the worker.
   * @throws CidfsError what the worker answers; `UNREACHABLE` when there is none, `TIMEOUT`, `INTERRUPTED`.
   */
  async call<K extends keyof WorkerMethods>(
    method: K,
    args: Parameters<WorkerMethods[K]>[0],
    options: CallOptions = {},
  ): Promise<ReturnType<WorkerMethods[K]>> {
    if (this.unavailable !== undefined) throw new CidfsError('UNREACHABLE', this.unavailable)
    if (this.#closed) throw new CidfsError('INTERRUPTED', 'shutting down')
    this.start()
    if (this.#worker === undefined) throw new CidfsError('UNREACHABLE', RESTARTING)
    const answer = this.#calls.call(method, args as never, options)
    this.#updateRef()
    try {
      return (await answer) as ReturnType<WorkerMethods[K]>
    } finally {
      this.#updateRef()
    }
  }

  raise(signal: AbortSignal): void {
    const id = this.#bySignal.get(signal)
    const pending = id === undefined ? undefined : this.#pending.get(id)
    if (id === undefined || pending === undefined || pending.priority === 'demand') return
    pending.priority = 'demand'
    this.#post({ op: 'raise', id })
  }

  release(bytes: Uint8Array): void {
    if (!isReusable(bytes)) return
    const buffer = bytes.buffer as ArrayBuffer
    this.#worker?.postMessage({ op: 'reuse', buffer } satisfies ToWorker, [buffer])
  }

  /** One line per configured source; an unresponsive worker is reported as such, never waited for. */
  async status(): Promise<SourceStatus[]> {
    if (this.unavailable !== undefined || this.#closed) return []
    this.start()
    if (this.#worker === undefined) return this.#unknown(RESTARTING)
    const id = this.#nextId++
    let timer: NodeJS.Timeout | undefined
    try {
      return await new Promise<SourceStatus[]>(resolve => {
        this.#statusRequests.set(id, resolve)
        timer = setTimeout(
          () => resolve(this.#unknown('the network worker does not answer')),
          STATUS_TIMEOUT_MS,
        )
        this.#updateRef()
        this.#post({ op: 'status', id })
      })
    } finally {
      clearTimeout(timer)
      this.#statusRequests.delete(id)
      this.#updateRef()
    }
  }

  /** Ends the worker; what is in flight fails with `INTERRUPTED`. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#restartTimer)
    for (const [id, { cid }] of this.#pending)
      this.#drop(id, this.#error('INTERRUPTED', 'shutting down', cid))
    for (const resolve of this.#statusRequests.values()) resolve([])
    this.#calls.end(new CidfsError('INTERRUPTED', 'shutting down'))
    const worker = this.#worker
    if (worker === undefined) return
    worker.ref()
    const exited = new Promise<void>(resolve => worker.once('exit', () => resolve()))
    this.#post({ op: 'close' })
    const timer = setTimeout(() => void worker.terminate(), CLOSE_TIMEOUT_MS)
    await exited
    clearTimeout(timer)
  }

  #receive(message: FromWorker): void {
    if (isCallMessage(message)) {
      this.#calls.receive(message)
      return
    }
    // Nobody is there any more when it was cancelled while the answer was on its way.
    const pending = this.#pending.get(message.id)
    if (message.op === 'status') this.#statusRequests.get(message.id)?.(message.sources)
    else if (message.op === 'block') pending?.resolve(message.bytes)
    else pending?.reject(this.#error(message.code, message.message, pending.cid))
  }

  #send(id: number): void {
    const pending = this.#pending.get(id)
    if (pending === undefined) return
    const deadlineMs = Math.max(1, pending.deadlineAt - performance.now())
    this.#post({ op: 'fetch', id, cid: pending.cid.bytes, deadlineMs, priority: pending.priority })
  }

  #post(message: ToWorker): void {
    this.#worker?.postMessage(message)
  }

  /** Fails a fetch here and forgets it there. */
  #drop(id: number, error: CidfsError): void {
    this.#post({ op: 'cancel', id })
    this.#pending.get(id)?.reject(error)
  }

  #exited(worker: Worker, code: number): void {
    if (this.#worker !== worker) return
    this.#worker = undefined
    if (this.#closed) return
    const livedMs = performance.now() - this.#startedAt
    if (livedMs > STABLE_MS) this.#restartMs = FIRST_RESTART_MS
    log('the network worker ended with code %d after %d ms', code, livedMs)
    for (const resolve of this.#statusRequests.values()) {
      resolve(this.#unknown(RESTARTING))
    }
    for (const pending of this.#pending.values()) this.#countRestart(pending)
    this.#calls.end(new CidfsError('UNREACHABLE', 'the network worker ended'))
    this.#restartTimer = setTimeout(() => this.#restart(), this.#restartMs)
    this.#restartTimer.unref()
    this.#restartMs = Math.min(MAX_RESTART_MS, this.#restartMs * 2)
  }

  #countRestart(pending: Pending): void {
    if (++pending.restarts <= MAX_RESTARTS_PER_FETCH) return
    pending.reject(this.#error('UNREACHABLE', 'the network worker crashed repeatedly', pending.cid))
  }

  #restart(): void {
    this.#restartTimer = undefined
    if (this.#pending.size > 0 || this.#config.node !== undefined) this.start()
    for (const id of this.#pending.keys()) this.#send(id)
  }

  /** A process may end while nothing is asked of the worker. */
  #updateRef(): void {
    const asked = this.#pending.size + this.#statusRequests.size + this.#calls.pending
    if (asked > 0) this.#worker?.ref()
    else this.#worker?.unref()
  }

  #unknown(why: string): SourceStatus[] {
    const { gateways, kubo, node } = this.#config
    const sources = gateways.map(url => ({ name: parseGatewayUrl(url).name, kind: 'gateway' as const }))
    const all: Pick<SourceStatus, 'name' | 'kind'>[] = [
      ...(node === undefined ? [] : [{ name: 'peers', kind: 'peer' as const }]),
      ...(kubo === undefined ? [] : [{ name: kuboName(kubo), kind: 'kubo' as const }]),
      ...sources,
    ]
    return all.map(source => ({
      ...source,
      state: 'failed',
      inFlight: 0,
      blocks: 0,
      bytes: 0,
      rateBytesPerSecond: 0,
      latencyMsP50: undefined,
      errors: 0,
      lastError: why,
      lastErrorAt: Date.now(),
    }))
  }

  #error(code: CidfsError['code'], message: string, cid: CID): CidfsError {
    return new CidfsError(code, message, { cid: cid.toString() })
  }
}

function kuboName(url: string): string {
  return `kubo ${parseKuboUrl(url).name}`
}

function spawnWorker(config: WorkerConfig): Worker {
  return new Worker(new URL('./worker.js', import.meta.url), { workerData: config, name: 'cidfs-network' })
}
