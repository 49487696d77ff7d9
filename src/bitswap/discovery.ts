/** What bitswap asks of routing when nobody who is connected has a block. */
import type { CID } from '../core/cid.js'

export interface Provider {
  /** Peer id as text, as in `PeerLink.peerId`. */
  readonly id: string
  /** Multiaddrs; may be empty when the dialler knows better. */
  readonly addrs: readonly string[]
}

export interface Discovery {
  /** Peers that are said to have the block, as they are found; ends when nobody else is to be expected. */
  findProviders(cid: CID, signal: AbortSignal): AsyncIterable<Provider>
  /**
   * Opens a connection; `BitswapHandler.connected` has been called before it resolves if the peer speaks bitswap.
   * @throws Error when the peer cannot be reached or must not be.
   */
  connect(provider: Provider, signal: AbortSignal): Promise<void>
}
