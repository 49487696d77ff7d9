/**
 * A server that knows who provides what: `GET /routing/v1/providers/<cid>`.
 *
 * Invariant: its answer is read as it comes, and no further than a bound on bytes and records; what is no record is
 * passed over. Providers without bitswap are left out: gateways have sources of their own.
 * Why not `@helia/delegated-routing-v1-http-api-client`: it reads answers of any length, and a few lines over the
 * HTTP client that is here anyway do the same for a tenth of the modules.
 *
 * Specification: https://specs.ipfs.tech/routing/http-routing-v1/
 */
import type { CID } from '../core/cid.js'
import { withResolvers } from '../core/with-resolvers.js'
import { MAX_ADDRESSES_READ, type Provider, type Router } from '../p2p/routing.js'
import type { HttpAddress } from './config.js'
import { HttpOrigin } from './http-origin.js'
import { SourceError } from './source.js'

const ACCEPT = 'application/x-ndjson, application/json;q=0.9'
const CONNECTIONS = 8
const MAX_ANSWER_BYTES = 2 * 1024 * 1024
const MAX_RECORDS = 64
/** A peer id, however it is spelled. */
const MAX_ID_LENGTH = 128
const MAX_ADDRESS_LENGTH = 512
const BITSWAP = 'transport-bitswap'

export class DelegatedRouter implements Router {
  readonly name: string
  readonly #http: HttpOrigin

  constructor(address: HttpAddress) {
    this.name = `router ${address.name}`
    this.#http = new HttpOrigin(address, CONNECTIONS)
  }

  /** @throws SourceError */
  async *findProviders(cid: CID, signal: AbortSignal): AsyncGenerator<Provider> {
    const enough = new AbortController()
    const records = new RecordQueue()
    const request = this.#http.request({
      method: 'GET',
      path: `/routing/v1/providers/${cid}`,
      accept: ACCEPT,
      limitBytes: MAX_ANSWER_BYTES,
      onChunk: chunk => records.push(chunk),
      signal: AbortSignal.any([signal, enough.signal]),
    })
    request.then(
      ({ status }) => records.end(statusError(status)),
      (err: unknown) => records.end(err),
    )
    try {
      yield* records.take(MAX_RECORDS)
    } finally {
      enough.abort()
    }
  }

  async close(): Promise<void> {
    await this.#http.close()
  }
}

/** 404 is how older servers say that they know of none. */
function statusError(status: number): SourceError | undefined {
  return status === 200 || status === 404 ? undefined : new SourceError('failed', `HTTP ${status}`)
}

/** Providers out of the chunks of an answer: a record per line, or one object with all of them. */
class RecordQueue {
  readonly #providers: Provider[] = []
  #text = ''
  #sawRecord = false
  #ended = false
  #error: unknown
  #news = withResolvers<void>()
  readonly #decoder = new TextDecoder()

  push(chunk: Uint8Array): void {
    this.#text += this.#decoder.decode(chunk, { stream: true })
    if (!chunk.includes(0x0a)) return
    const lines = this.#text.split('\n')
    // an object over several lines is no record in any of them, and is read at the end
    const records = lines.slice(0, -1).map(parse)
    if (!this.#sawRecord && !records.some(isRecord)) return
    this.#text = lines.at(-1) ?? ''
    this.#add(records)
  }

  end(error?: unknown): void {
    const last = parse(this.#text)
    const all = (last as { Providers?: unknown } | undefined)?.Providers
    this.#add(Array.isArray(all) ? all : [last])
    this.#ended = true
    this.#error = error
    this.#news.resolve()
  }

  /** @throws what `end` was given, after the providers that came before it. */
  async *take(max: number): AsyncGenerator<Provider> {
    for (let taken = 0; taken < max; ) {
      const { promise } = this.#news
      const next = this.#providers[taken]
      if (next !== undefined) {
        taken++
        yield next
      } else if (this.#ended) {
        if (this.#error !== undefined) throw this.#error
        return
      } else await promise
    }
  }

  #add(records: unknown[]): void {
    for (const record of records) {
      if (!isRecord(record)) continue
      this.#sawRecord = true
      const provider = providerOf(record)
      if (provider !== undefined && this.#providers.length < MAX_RECORDS) this.#providers.push(provider)
    }
    const { resolve } = this.#news
    this.#news = withResolvers()
    resolve()
  }
}

interface RouterRecord {
  ID: string
  Addrs?: unknown
  Protocols?: unknown
}

function isRecord(value: unknown): value is RouterRecord {
  const id = (value as { ID?: unknown } | null | undefined)?.ID
  return typeof id === 'string' && id !== '' && id.length <= MAX_ID_LENGTH
}

function providerOf({ ID: id, Addrs: addrs, Protocols: protocols }: RouterRecord): Provider | undefined {
  const speaks = Array.isArray(protocols) && protocols.length > 0 ? protocols.includes(BITSWAP) : true
  if (!speaks) return undefined
  const usable = (Array.isArray(addrs) ? addrs.slice(0, MAX_ADDRESSES_READ) : []).filter(isAddress)
  return { id, addrs: usable }
}

function isAddress(value: unknown): value is string {
  return typeof value === 'string' && value.startsWith('/') && value.length <= MAX_ADDRESS_LENGTH
}

function parse(line: string): unknown {
  try {
    return line.trim() === '' ? undefined : JSON.parse(line)
  } catch {
    return undefined
  }
}
