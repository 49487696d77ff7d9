/**
 * All peers that bitswap is connected to, or can find, as one source of blocks.
 *
 * Invariant: what it returns has been hashed already, since bitswap knows a block by nothing else. Which peer is
 * asked, and when another one as well, is bitswap's affair; the engine races the peers as a whole against gateways.
 */
import { type BitswapClient, WantError } from '../bitswap/client.js'
import type { CID } from '../core/cid.js'
import { type AskOptions, type FailureKind, type Source, SourceError } from './source.js'

const KINDS: Record<WantError['kind'], FailureKind> = {
  absent: 'absent',
  alone: 'unreachable',
  closed: 'failed',
}

export class PeersSource implements Source {
  readonly name = 'peers'
  readonly kind = 'peer'
  readonly verifies = true
  /** More than one peer is asked for at a time: the rest waits here, those that are read first. */
  readonly maxInFlight = 512
  readonly costMs = 30
  readonly #client: BitswapClient

  /** The client is closed by whoever made it. */
  constructor(client: BitswapClient) {
    this.#client = client
  }

  async get(cid: CID, { signal, priority = 'demand' }: AskOptions): Promise<Uint8Array> {
    try {
      return await this.#client.get(cid, { signal, urgency: priority })
    } catch (err) {
      if (err instanceof WantError) throw new SourceError(KINDS[err.kind], err.message)
      throw err
    }
  }

  raise(cid: CID): void {
    this.#client.raise(cid)
  }

  async probe(): Promise<void> {
    if (this.#client.connections === 0) throw new SourceError('unreachable', 'no peer is connected')
  }

  async close(): Promise<void> {
    this.#client.close()
  }
}
