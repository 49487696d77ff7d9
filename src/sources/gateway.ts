/**
 * A trustless HTTP gateway as a source of raw blocks.
 *
 * Invariant: one block per request, `GET /ipfs/<cid>?format=raw`; nothing but the configured server is ever
 * contacted, also when it answers with a redirect.
 * Why: raw blocks are the one thing every gateway can serve and every reader can verify by itself.
 *
 * Specification: https://specs.ipfs.tech/http-gateways/trustless-gateway/
 */
import type { CID } from '../core/cid.js'
import { MAX_BLOCK_BYTES } from '../core/limits.js'
import type { HttpAddress } from './config.js'
import { type HttpAnswer, HttpOrigin, type HttpRequest } from './http-origin.js'
import { type AskOptions, type Source, SourceError } from './source.js'

const RAW_BLOCK = 'application/vnd.ipld.raw'
const MAX_REDIRECTS = 3
/** The empty identity CID: gateways answer it without looking anything up. */
const PROBE_CID = 'bafkqaaa'

/** Statuses by which a gateway says that it cannot find the block, not that it is ill. */
const ABSENT = new Set([404, 410, 412, 451, 504])

export class GatewaySource implements Source {
  readonly name: string
  readonly kind = 'gateway'
  readonly maxInFlight: number
  readonly costMs = 40
  readonly #address: HttpAddress
  readonly #http: HttpOrigin

  constructor(address: HttpAddress, maxInFlight = 32) {
    this.name = address.name
    this.maxInFlight = maxInFlight
    this.#address = address
    this.#http = new HttpOrigin(address, maxInFlight)
  }

  async get(cid: CID, { signal }: AskOptions): Promise<Uint8Array> {
    return await this.#getBlock(cid.toString(), signal)
  }

  async probe({ signal }: AskOptions): Promise<void> {
    await this.#getBlock(PROBE_CID, signal).catch((err: unknown) => {
      // Whatever it thinks of the CID, it is there.
      if (!(err instanceof SourceError && err.kind === 'absent')) throw err
    })
  }

  async has(cid: CID, { signal }: AskOptions): Promise<boolean> {
    const request = { method: 'HEAD', accept: RAW_BLOCK, limitBytes: 0, signal } as const
    const answer = await getFromGateway(this.#http, this.#address, `/ipfs/${cid}?format=raw`, request)
    if (answer.status === 200) return true
    const failure = statusError(answer)
    if (failure.kind === 'absent') return false
    throw failure
  }

  async close(): Promise<void> {
    await this.#http.close()
  }

  async #getBlock(cidText: string, signal: AbortSignal): Promise<Uint8Array> {
    const path = `/ipfs/${cidText}?format=raw`
    const request = { method: 'GET', accept: RAW_BLOCK, limitBytes: MAX_BLOCK_BYTES, signal } as const
    const answer = await getFromGateway(this.#http, this.#address, path, request)
    if (answer.status === 200) return answer.body
    throw statusError(answer)
  }
}

/**
 * The answer to a request for a path of a gateway, whatever it is, once no redirect is left.
 * @throws SourceError as `HttpOrigin.request`; `failed` for redirects to others, or without end.
 */
export async function getFromGateway(
  http: HttpOrigin,
  address: HttpAddress,
  path: string,
  request: Omit<HttpRequest, 'path' | 'host'>,
): Promise<HttpAnswer> {
  let target: Target = { path, host: pathGatewayHost(address) }
  for (let redirects = 0; ; redirects++) {
    const answer = await http.request({ ...request, ...target })
    if (answer.status < 300 || answer.status >= 400) return answer
    if (redirects === MAX_REDIRECTS) throw new SourceError('failed', 'redirects without end')
    target = redirectTarget(address, answer)
  }
}

interface Target {
  path: string
  host: string | undefined
}

/**
 * Kubo treats `localhost` as a subdomain gateway, and answers each path there with a redirect to a host name of
 * the CID. Called by its address, it serves the path at once.
 */
function pathGatewayHost(address: HttpAddress): string | undefined {
  const { protocol, hostname, port } = new URL(address.origin)
  if (protocol !== 'http:' || hostname !== 'localhost') return undefined
  return port === '' ? '127.0.0.1' : `127.0.0.1:${port}`
}

/**
 * Where a redirect leads: the same origin, or a subdomain of it. That one is asked through the same connection,
 * by its name in the `Host` header, so that no redirect can make us dial another machine.
 */
function redirectTarget(address: HttpAddress, answer: HttpAnswer): Target {
  const location = String(answer.headers.location ?? '')
  const base = new URL(address.origin)
  const url = location !== '' && URL.canParse(location, address.origin) ? new URL(location, base) : undefined
  const sameServer =
    url !== undefined &&
    url.protocol === base.protocol &&
    url.port === base.port &&
    (url.hostname === base.hostname || url.hostname.endsWith(`.${base.hostname}`))
  if (!sameServer) throw new SourceError('failed', `redirects to another server (${location || 'nowhere'})`)
  const path = url.pathname + url.search
  // The request adds the prefix again.
  const inside = path.startsWith(`${address.pathPrefix}/`) ? path.slice(address.pathPrefix.length) : path
  return { path: inside, host: url.host }
}

function statusError({ status, body }: HttpAnswer): SourceError {
  const said = firstLine(body)
  if (ABSENT.has(status) || (status === 500 && NOT_FOUND.test(said))) {
    return new SourceError('absent', `not found (${status})`)
  }
  return new SourceError('failed', `HTTP ${status}${said === '' ? '' : `: ${said}`}`)
}

const NOT_FOUND = /not found|could not find/i

/** The start of an error body, fit for a message. */
export function firstLine(body: Uint8Array): string {
  const text = Buffer.from(body.buffer, body.byteOffset, Math.min(body.byteLength, 300)).toString()
  const line = text.split('\n', 1)[0] ?? ''
  return line.startsWith('<') ? '' : line.replace(/[^\x20-\x7e]/g, ' ').trim()
}
