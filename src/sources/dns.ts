/**
 * TXT records, from the system's resolver or over HTTPS.
 *
 * Invariant: `records` empty means that the name has none, as a server said; whatever else happens is an error.
 * An answer that does not come in time is one as well.
 * Why over HTTPS in both encodings: servers at `/dns-query` take messages (RFC 8484), some others only JSON.
 */
import { Resolver } from 'node:dns/promises'
import { CidfsError, messageOf } from '../core/errors.js'
import { type HttpAddress, parseHttpUrl } from './config.js'
import { checkRcode, decodeAnswer, encodeQuery, type TxtAnswer, type TxtRecord } from './dns-message.js'
import type { HttpAnswer, HttpOrigin } from './http-origin.js'

/** `system`, or the URL of a resolver. */
export type DnsSetting = string

export interface TxtResolver {
  /** As in messages: `dns …` */
  readonly name: string
  /** @throws CidfsError `UNREACHABLE`, `INTERRUPTED`. */
  resolve(name: string, signal: AbortSignal): Promise<TxtAnswer>
  close(): Promise<void>
}

/** The system's resolver does not tell how long an answer holds. */
const SYSTEM_TTL_MS = 60_000
const MAX_ANSWER_BYTES = 64 * 1024
const CONNECTIONS = 4
const MESSAGE = 'application/dns-message'
const JSON_MESSAGE = 'application/dns-json'
/** Statuses of those that take no messages. */
const NOT_UNDERSTOOD = new Set([400, 404, 406, 415])

/** @throws CidfsError `BAD_CONFIG`. */
export function txtResolver(setting: DnsSetting): TxtResolver {
  return setting === 'system' ? new SystemResolver() : new HttpResolver(setting)
}

export class SystemResolver implements TxtResolver {
  readonly name = 'the system DNS resolver'
  readonly #servers: string[] | undefined

  /** `servers` replace those of the system. */
  constructor(servers?: string[]) {
    this.#servers = servers
  }

  async resolve(name: string, signal: AbortSignal): Promise<TxtAnswer> {
    const resolver = new Resolver()
    if (this.#servers !== undefined) resolver.setServers(this.#servers)
    const cancel = () => resolver.cancel()
    signal.addEventListener('abort', cancel)
    try {
      if (signal.aborted) throw interrupted()
      const found = await resolver.resolveTxt(name)
      return { records: found.map(parts => ({ text: parts.join(''), ttlMs: SYSTEM_TTL_MS })) }
    } catch (err) {
      if (signal.aborted) throw interrupted()
      const { code = '' } = err as NodeJS.ErrnoException
      if (code === 'ENOTFOUND' || code === 'ENODATA') return { records: [] }
      throw new CidfsError('UNREACHABLE', `${this.name} failed (${code || messageOf(err)})`, { cause: err })
    } finally {
      signal.removeEventListener('abort', cancel)
    }
  }

  async close(): Promise<void> {}
}

class HttpResolver implements TxtResolver {
  readonly name: string
  readonly #address: HttpAddress
  /** Made when it is needed: loading undici takes a fifth of the start of a daemon. */
  #http: Promise<HttpOrigin> | undefined
  readonly #isAtRoot: boolean
  #takesMessages = true

  constructor(url: string) {
    const address = parseHttpUrl('dns', url)
    this.name = `dns ${address.name}`
    this.#isAtRoot = address.pathPrefix === ''
    this.#address = address
  }

  #origin(): Promise<HttpOrigin> {
    this.#http ??= import('./http-origin.js').then(
      ({ HttpOrigin }) => new HttpOrigin(this.#address, CONNECTIONS),
    )
    return this.#http
  }

  async resolve(name: string, signal: AbortSignal): Promise<TxtAnswer> {
    try {
      return await this.#ask(name, signal)
    } catch (err) {
      if (signal.aborted) throw interrupted()
      throw new CidfsError('UNREACHABLE', `${this.name}: ${messageOf(err)}`, { cause: err })
    }
  }

  async #ask(name: string, signal: AbortSignal): Promise<TxtAnswer> {
    if (this.#takesMessages) {
      const answer = await this.#get(`?dns=${encodeQuery(name).toString('base64url')}`, MESSAGE, signal)
      if (!NOT_UNDERSTOOD.has(answer.status)) return read(answer)
    }
    const answer = read(await this.#get(`?name=${name}&type=TXT`, JSON_MESSAGE, signal))
    this.#takesMessages = false
    return answer
  }

  async #get(query: string, accept: string, signal: AbortSignal): Promise<HttpAnswer> {
    const path = this.#isAtRoot ? `/${query}` : query
    const http = await this.#origin()
    return http.request({ method: 'GET', path, accept, signal, limitBytes: MAX_ANSWER_BYTES })
  }

  async close(): Promise<void> {
    await (await this.#http)?.close()
  }
}

function read({ status, headers, body }: HttpAnswer): TxtAnswer {
  if (status !== 200) throw new CidfsError('UNREACHABLE', `HTTP ${status}`)
  const isJson = /json/.test(String(headers['content-type'] ?? ''))
  return isJson ? readJson(Buffer.from(body).toString()) : decodeAnswer(body)
}

interface JsonAnswer {
  Status?: unknown
  Answer?: unknown
}

/** The format of Cloudflare and Google. */
function readJson(text: string): TxtAnswer {
  const parsed = parseJson(text)
  if (typeof parsed?.Status !== 'number') throw new CidfsError('UNREACHABLE', 'the answer is no DNS answer')
  checkRcode(parsed.Status)
  const answers = Array.isArray(parsed.Answer) ? (parsed.Answer as unknown[]).slice(0, 64) : []
  return { records: answers.map(jsonRecord).filter(record => record !== undefined) }
}

function parseJson(text: string): JsonAnswer | undefined {
  try {
    return JSON.parse(text) as JsonAnswer
  } catch {
    return undefined
  }
}

function jsonRecord(answer: unknown): TxtRecord | undefined {
  const { type, TTL, data } = (answer ?? {}) as Record<string, unknown>
  if (type !== 16 || typeof data !== 'string') return undefined
  return { text: unquoted(data), ttlMs: typeof TTL === 'number' && TTL >= 0 ? TTL * 1000 : 0 }
}

/** `"one" "two"`, as in zone files, or the bare text. */
function unquoted(data: string): string {
  if (!data.startsWith('"')) return data
  return [...data.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, part]) => part!.replace(/\\(.)/g, '$1')).join('')
}

function interrupted(): CidfsError {
  return new CidfsError('INTERRUPTED', 'interrupted')
}
