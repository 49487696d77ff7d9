/**
 * The configuration of the network sources, checked.
 *
 * Invariant: what passes here can be dialled; every other module takes parsed addresses only. Errors name the
 * option and what is wrong with it in one line. Credentials in a URL become a header and are never printed.
 */
import { CidfsError } from '../core/errors.js'
import type { NodeConfig } from '../p2p/node-config.js'

export interface SourcesConfig {
  /** Trustless gateways, `http://` or `https://`, in order of preference. */
  gateways: string[]
  /** RPC address of a Kubo, `http://…` or `unix:/path`. */
  kubo?: string | undefined
  /** Milliseconds a read waits for a block before `TIMEOUT`. */
  readDeadlineMs: number
  /** Ask nobody. */
  offline: boolean
  /** The embedded IPFS node; undefined: none. */
  node?: NodeConfig | undefined
}

/** Where an HTTP server is, and what to put before every path and into every request. */
export interface HttpAddress {
  /** As shown to the user, without credentials. */
  name: string
  /** Scheme, host and port. */
  origin: string
  /** Empty, or begins with `/` and ends without. */
  pathPrefix: string
  socketPath?: string
  authorization?: string
}

export const DEFAULT_READ_DEADLINE_MS = 30_000

/**
 * Checks all of a configuration without dialling anything.
 * @throws CidfsError `BAD_CONFIG`.
 */
export function checkSourcesConfig(config: SourcesConfig): void {
  const names = config.gateways.map(text => parseGatewayUrl(text).name)
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined) throw bad('gateway', twice, 'it is named twice')
  if (config.kubo !== undefined) parseKuboUrl(config.kubo)
  for (const router of config.node?.routers ?? []) parseRouterUrl(router)
  if (!(config.readDeadlineMs > 0)) {
    throw new CidfsError('BAD_CONFIG', `the read deadline must be above 0 ms, not ${config.readDeadlineMs}`)
  }
}

/**
 * The address of a trustless gateway; `/ipfs` at the end of its path may be written or left out.
 * @throws CidfsError `BAD_CONFIG`.
 */
export function parseGatewayUrl(text: string): HttpAddress {
  return parseHttpUrl('gateway', text, /\/ipfs$/)
}

/**
 * The address of a delegated router; `/routing/v1` at the end of its path may be written or left out.
 * @throws CidfsError `BAD_CONFIG`.
 */
export function parseRouterUrl(text: string): HttpAddress {
  return parseHttpUrl('router', text, /\/routing\/v1$/)
}

/**
 * The address of a Kubo RPC; `/api/v0` at the end of its path may be written or left out.
 * @throws CidfsError `BAD_CONFIG`.
 */
export function parseKuboUrl(text: string): HttpAddress {
  if (!text.startsWith('unix:')) return parseHttpUrl('kubo', text, /\/api\/v0$/)
  const socketPath = text.slice('unix:'.length).replace(/^\/\/(?=\/)/, '')
  if (!socketPath.startsWith('/')) throw bad('kubo', text, 'after "unix:" comes an absolute path')
  return { name: `unix:${socketPath}`, origin: 'http://localhost', pathPrefix: '', socketPath }
}

/**
 * The address of an HTTP server, without what `suffix` matches at the end of its path.
 * @throws CidfsError `BAD_CONFIG` that names the option.
 */
export function parseHttpUrl(option: string, text: string, suffix = /$/): HttpAddress {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined) throw bad(option, text, 'it is not a URL')
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw bad(option, redacted(url), `the scheme must be http or https, not "${url.protocol.slice(0, -1)}"`)
  }
  if (url.search !== '' || url.hash !== '')
    throw bad(option, redacted(url), 'a query or fragment has no place in it')
  const pathPrefix = url.pathname.replace(/\/+$/, '').replace(suffix, '')
  const address: HttpAddress = { name: url.origin + pathPrefix, origin: url.origin, pathPrefix }
  if (url.username !== '') address.authorization = basicAuthorization(url)
  return address
}

function basicAuthorization(url: URL): string {
  const credentials = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`
  return `Basic ${Buffer.from(credentials).toString('base64')}`
}

function redacted(url: URL): string {
  return url.href.replace(/\/\/[^/]*@/, '//')
}

function bad(option: string, text: string, why: string): CidfsError {
  return new CidfsError('BAD_CONFIG', `${option} ${JSON.stringify(text)} cannot be used: ${why}`)
}
