/**
 * A Kubo as a source of blocks, through `block/get` of its RPC.
 *
 * Invariant: only reads; whatever Kubo does to find a block (its own repository, bitswap, routing) is its
 * affair, and ends when the request is aborted.
 * Why not `kubo-rpc-client` here: per block it is two to four times slower and ignores its own timeout.
 *
 * Specification: https://docs.ipfs.tech/reference/kubo/rpc/#api-v0-block-get
 */
import type { CID } from '../core/cid.js'
import { MAX_BLOCK_BYTES } from '../core/limits.js'
import type { HttpAddress } from './config.js'
import { firstLine } from './gateway.js'
import { type HttpAnswer, HttpOrigin } from './http-origin.js'
import { type AskOptions, type Source, SourceError } from './source.js'

const NOT_FOUND = /not found|could not find/i
const NO_RPC = 'there is no Kubo RPC at this address (HTTP 404)'

export class KuboSource implements Source {
  readonly name: string
  readonly kind = 'kubo'
  readonly maxInFlight: number
  readonly costMs = 10
  readonly #http: HttpOrigin

  constructor(address: HttpAddress, maxInFlight = 32) {
    this.name = `kubo ${address.name}`
    this.maxInFlight = maxInFlight
    this.#http = new HttpOrigin(address, maxInFlight)
  }

  async get(cid: CID, { signal }: AskOptions): Promise<Uint8Array> {
    return await this.#post(`block/get?arg=${cid.toString()}`, signal)
  }

  async probe({ signal }: AskOptions): Promise<void> {
    await this.#post('version', signal)
  }

  /** In its repository: it asks nobody. */
  async has(cid: CID, { signal }: AskOptions): Promise<boolean> {
    try {
      await this.#post(`block/stat?arg=${cid.toString()}&offline=true`, signal)
      return true
    } catch (err) {
      if (err instanceof SourceError && err.kind === 'absent') return false
      throw err
    }
  }

  async close(): Promise<void> {
    await this.#http.close()
  }

  async #post(command: string, signal: AbortSignal): Promise<Uint8Array> {
    const path = `/api/v0/${command}`
    const answer = await this.#http.request({ method: 'POST', path, signal, limitBytes: MAX_BLOCK_BYTES })
    if (answer.status !== 200) throw rpcError(answer)
    return answer.body
  }
}

/** Kubo answers every error of a command with 500 and a JSON message. */
function rpcError(answer: HttpAnswer): SourceError {
  const message = rpcMessage(answer)
  if (answer.status === 404) return new SourceError('failed', NO_RPC)
  if (answer.status === 500 && NOT_FOUND.test(message)) return new SourceError('absent', 'not found')
  return new SourceError('failed', `HTTP ${answer.status}${message === '' ? '' : `: ${message}`}`)
}

/** What Kubo says in the body of an error, in one line. */
export function rpcMessage(answer: HttpAnswer): string {
  try {
    const parsed: unknown = JSON.parse(Buffer.from(answer.body).toString())
    if (typeof parsed === 'object' && parsed !== null && 'Message' in parsed) return String(parsed.Message)
  } catch {
    // Not from a Kubo, or from one that answers in plain text: shown as it is.
  }
  return firstLine(answer.body)
}
