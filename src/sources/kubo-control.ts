/**
 * What publishing asks of a Kubo: take these blocks, pin this root, unpin that one.
 *
 * Invariant: `importAndPin` returns only after Kubo has said that it stored the blocks and that the pin is
 * recursive and complete; repeating it, or `unpin`, after any failure is safe.
 * Why two clients: `kubo-rpc-client` speaks the control calls, but holds a whole upload in memory and has no
 * working timeout, so CARs are streamed through `undici` and every call has a timeout of ours.
 *
 * Specification: https://docs.ipfs.tech/reference/kubo/rpc/
 */
import { randomBytes } from 'node:crypto'
import type { KuboRPCClient } from 'kubo-rpc-client'
import { errors, Pool } from 'undici'
import type { CID } from '../core/cid.js'
import { deadline } from '../core/deadline.js'
import { CidfsError, messageOf } from '../core/errors.js'
import { type HttpAddress, parseKuboUrl } from './config.js'
import { socketBaseUrl } from './socket-fetch.js'

export interface KuboTimeouts {
  /** Milliseconds for calls that Kubo answers from memory. */
  callMs?: number
  /** For walking and pinning a DAG whose blocks it holds. */
  pinMs?: number
  /** Silence in the middle of an upload, and from its end to the answer. */
  stallMs?: number
}

export interface ImportOptions {
  /** Ends it with `INTERRUPTED`; Kubo keeps the blocks that arrived, unpinned. */
  signal?: AbortSignal | undefined
  /** Name of the pin. */
  name?: string | undefined
}

const DEFAULT_TIMEOUTS = { callMs: 10_000, pinMs: 10 * 60_000, stallMs: 2 * 60_000 }

export class KuboControl {
  readonly name: string
  readonly #address: HttpAddress
  readonly #timeouts: Required<KuboTimeouts>
  readonly #pool: Pool
  #client: Promise<KuboRPCClient> | undefined

  /**
   * Dials nothing yet.
   * @throws CidfsError `BAD_CONFIG`.
   */
  constructor(url: string, timeouts: KuboTimeouts = {}) {
    this.#address = parseKuboUrl(url)
    this.name = `kubo ${this.#address.name}`
    this.#timeouts = { ...DEFAULT_TIMEOUTS, ...timeouts }
    const { origin, socketPath } = this.#address
    this.#pool = new Pool(origin, {
      connections: 4,
      headersTimeout: this.#timeouts.stallMs,
      bodyTimeout: this.#timeouts.stallMs,
      ...(socketPath === undefined ? {} : { socketPath }),
    })
  }

  /** The version of Kubo, such as `0.43.0`. @throws CidfsError `BACKEND`. */
  async version(): Promise<string> {
    const { version } = await this.#call('version', (kubo, signal) => kubo.version({ signal }))
    return version
  }

  /** Its peer ID. @throws CidfsError `BACKEND`. */
  async id(): Promise<string> {
    const { id } = await this.#call('id', (kubo, signal) => kubo.id({ signal }))
    return id.toString()
  }

  /** Whether the block is in its repository; it does not look anywhere else. @throws CidfsError `BACKEND`. */
  async has(cid: CID): Promise<boolean> {
    try {
      const searchParams = new URLSearchParams({ offline: 'true' })
      await this.#call('block/stat', (kubo, signal) => kubo.block.stat(cid, { signal, searchParams }))
      return true
    } catch (err) {
      if (/not found|could not find/i.test(messageOf(err))) return false
      throw err
    }
  }

  /** Whether the CID is the root of a recursive pin. @throws CidfsError `BACKEND`. */
  async isPinned(cid: CID): Promise<boolean> {
    return await this.#call('pin/ls', async (kubo, signal) => {
      try {
        for await (const _ of kubo.pin.ls({ paths: cid, type: 'recursive', signal })) return true
        return false
      } catch (err) {
        if (/is not pinned/.test(messageOf(err))) return false
        throw err
      }
    })
  }

  /**
   * Streams a CAR into the repository and pins `root` recursively.
   * @throws CidfsError `BACKEND`, `INTERRUPTED`; what `car` throws is the cause of a `BACKEND`.
   */
  async importAndPin(root: CID, car: AsyncIterable<Uint8Array>, options: ImportOptions = {}): Promise<void> {
    await this.#import(car, options.signal)
    await this.pin(root, options)
  }

  /** Pins recursively what the repository holds, or can get. @throws CidfsError `BACKEND`, `INTERRUPTED`. */
  async pin(root: CID, { signal, name }: ImportOptions = {}): Promise<void> {
    const add = (kubo: KuboRPCClient, limit: AbortSignal): Promise<CID> =>
      kubo.pin.add(root, { recursive: true, signal: limit, ...(name === undefined ? {} : { name }) })
    await this.#call('pin/add', add, { timeoutMs: this.#timeouts.pinMs, signal })
  }

  /** Removes a recursive pin; fine when there is none. @throws CidfsError `BACKEND`, `INTERRUPTED`. */
  async unpin(cid: CID, signal?: AbortSignal): Promise<void> {
    const remove = (kubo: KuboRPCClient, limit: AbortSignal): Promise<CID> =>
      kubo.pin.rm(cid, { recursive: true, signal: limit })
    try {
      await this.#call('pin/rm', remove, { timeoutMs: this.#timeouts.pinMs, signal })
    } catch (err) {
      if (!/not pinned/.test(messageOf(err))) throw err
    }
  }

  /** Cuts every connection of uploads. */
  async close(): Promise<void> {
    await this.#pool.destroy()
  }

  async #import(car: AsyncIterable<Uint8Array>, signal: AbortSignal | undefined): Promise<void> {
    const boundary = `cidfs-${randomBytes(16).toString('hex')}`
    const { authorization, pathPrefix } = this.#address
    try {
      const response = await this.#pool.request({
        method: 'POST',
        path: `${pathPrefix}/api/v0/dag/import?pin-roots=false&stats=true`,
        headers: {
          'user-agent': 'cidfs',
          'content-type': `multipart/form-data; boundary=${boundary}`,
          ...(authorization === undefined ? {} : { authorization }),
        },
        // undici takes any async iterable; its types do not say so.
        body: multipart(boundary, car) as unknown as Buffer,
        signal,
      })
      checkImported(response.statusCode, await response.body.text())
    } catch (err) {
      throw this.#error('dag/import', err, signal)
    }
  }

  async #call<T>(
    command: string,
    fn: (kubo: KuboRPCClient, signal: AbortSignal) => Promise<T>,
    options: { timeoutMs?: number; signal?: AbortSignal | undefined } = {},
  ): Promise<T> {
    const { timeoutMs = this.#timeouts.callMs, signal } = options
    const limit = deadline(timeoutMs, signal)
    try {
      return await fn(await this.#rpc(), limit)
    } catch (err) {
      if (limit.aborted && !signal?.aborted) {
        throw this.#error(command, new Error(`no answer within ${timeoutMs} ms`, { cause: err }), signal)
      }
      throw this.#error(command, err, signal)
    }
  }

  /** Loaded when it is first needed: it brings much code along that a mount without Kubo never uses. */
  #rpc(): Promise<KuboRPCClient> {
    this.#client ??= import('kubo-rpc-client').then(({ create }) => create(this.#clientOptions()))
    return this.#client
  }

  #clientOptions(): { url: string; headers: Record<string, string> } {
    const { origin, pathPrefix, socketPath, authorization } = this.#address
    const base = socketPath === undefined ? origin + pathPrefix : socketBaseUrl(socketPath)
    return { url: `${base}/api/v0`, headers: authorization === undefined ? {} : { authorization } }
  }

  #error(command: string, err: unknown, signal: AbortSignal | undefined): CidfsError {
    if (signal?.aborted) return new CidfsError('INTERRUPTED', `${command} was interrupted`, { cause: err })
    return new CidfsError('BACKEND', `${this.name}: ${command}: ${plainMessage(err)}`, { cause: err })
  }
}

/** The message that says what happened, under the `fetch failed` of fetch. */
function plainMessage(err: unknown): string {
  if (err instanceof errors.HeadersTimeoutError || err instanceof errors.BodyTimeoutError) {
    return 'no answer in time'
  }
  if (err instanceof TypeError && err.cause !== undefined) return plainMessage(err.cause)
  if (err instanceof AggregateError && err.errors.length > 0) return plainMessage(err.errors[0])
  return messageOf(err)
}

/** A form with one file, as `dag/import` wants it. */
async function* multipart(boundary: string, file: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const disposition = 'content-disposition: form-data; name="file"; filename="blocks.car"'
  yield Buffer.from(`--${boundary}\r\n${disposition}\r\ncontent-type: application/vnd.ipld.car\r\n\r\n`)
  yield* file
  yield Buffer.from(`\r\n--${boundary}--\r\n`)
}

/** Kubo begins a 200 before it has read everything: only the statistics at the end say that it went well. */
function checkImported(status: number, body: string): void {
  const lines = body.split('\n').filter(line => line.trim() !== '')
  if (status === 200 && lines.some(line => line.includes('"Stats"'))) return
  const message = /"Message":"((?:[^"\\]|\\.)*)"/.exec(body)?.[1] ?? lines[0]?.slice(0, 300)
  throw new Error(message ?? `HTTP ${status} without an answer`)
}
