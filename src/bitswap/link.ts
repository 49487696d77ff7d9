/**
 * A peer as bitswap sees it: messages go out on one stream of ours, and come in on streams that the peer opened.
 *
 * Invariant: bitswap knows peers by their id only, and no transport. Whoever owns the connections tells a
 * `BitswapHandler` of each peer that speaks bitswap, once, and of its end, once.
 * Why: the same client and server run over libp2p's streams, over a faster transport, and over pairs in memory.
 */

export type BitswapVersion = '1.2.0' | '1.1.0' | '1.0.0'

export interface PeerLink {
  /** base58btc or CID text of the peer id, as shown to users. */
  readonly peerId: string
  /** What was negotiated for the stream that we send on. */
  readonly version: BitswapVersion
  /**
   * Sends one message, without its length prefix, in pieces. Resolves when the transport takes the next one.
   * @throws Error when the peer is gone.
   */
  send(pieces: readonly Uint8Array[]): Promise<void>
  /** Ends every connection to the peer, for a reason that is logged. */
  drop(reason: string): void
}

/** The consumer of one stream that the peer opened. */
export interface InboundStream {
  /**
   * The next bytes, cut anywhere. They are the transport's again after the call has returned.
   * A promise holds the stream back until it resolves. An error ends the stream, and costs the peer its link.
   */
  data(chunk: Uint8Array): undefined | Promise<void>
  /** No more bytes. `error` undefined: the peer ended it in order. */
  end(error?: Error): void
}

export interface BitswapHandler {
  connected(link: PeerLink): void
  disconnected(peerId: string): void
  /**
   * The peer opened a stream. Also possible before `connected`: what it wants is answered then.
   * @throws Error when it has too many streams already.
   */
  inbound(peerId: string, version: BitswapVersion): InboundStream
}
