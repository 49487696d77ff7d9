/**
 * Bitswap as one thing: the client and the server on the same links.
 *
 * Invariant: a peer has at most `MAX_STREAMS_PER_PEER` streams that are listened to, each with one parser, and the
 * blocks that have come in part take at most `MAX_PARTIAL_BYTES` together. A stream that breaks the protocol, or
 * stops in the middle of a message, costs the peer its link.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { BitswapClient, type ClientOptions, type PeerReport } from './client.js'
import { PeerStream } from './inbound-stream.js'
import { MAX_PARTIAL_BYTES, MAX_STREAMS_PER_PEER } from './limits.js'
import type { BitswapHandler, BitswapVersion, InboundStream, PeerLink } from './link.js'
import { ProtocolError } from './message-parser.js'
import { SendQueue } from './send-queue.js'
import { BitswapServer, type ServerReport } from './server.js'
import type { BlockSupply } from './supply.js'

const SWEEP_MS = 5_000
/** How long the first wants of a peer wait until it is known how to answer. */
const CONNECT_MS = 10_000

export interface BitswapOptions extends ClientOptions {
  /** What is served; nothing when absent. */
  supply?: BlockSupply | undefined
}

export interface BitswapReport {
  peers: PeerReport[]
  /** Peers that are left alone, and why. */
  banned: { peerId: string; reason: string }[]
  duplicateBytes: number
  served: ServerReport
}

export class Bitswap implements BitswapHandler {
  readonly client: BitswapClient
  readonly #server: BitswapServer
  readonly #links = new Map<string, PeerLink>()
  readonly #streams = new Map<string, Set<PeerStream>>()
  /** Those who wait for the link of a peer. */
  readonly #awaited = new Map<string, (() => void)[]>()
  readonly #sweeper: NodeJS.Timeout

  constructor({ supply, ...options }: BitswapOptions = {}) {
    this.client = new BitswapClient(options)
    this.#server = new BitswapServer(supply ?? NOTHING)
    this.#sweeper = setInterval(() => this.#sweep(), SWEEP_MS)
    this.#sweeper.unref()
  }

  connected(link: PeerLink): void {
    const sender = new SendQueue(link)
    this.#links.set(link.peerId, link)
    this.#server.connected(link, sender)
    this.client.connected(link, sender)
    for (const resolve of this.#awaited.get(link.peerId) ?? []) resolve()
    this.#awaited.delete(link.peerId)
  }

  /** The peer may have sent its wants before it was known that it takes answers. */
  async #connection(peerId: string): Promise<void> {
    if (this.#links.has(peerId)) return
    const connected = new Promise<void>(resolve => {
      this.#awaited.set(peerId, [...(this.#awaited.get(peerId) ?? []), resolve])
    })
    await Promise.race([connected, sleep(CONNECT_MS, undefined, { ref: false })])
    this.#awaited.delete(peerId)
  }

  disconnected(peerId: string): void {
    this.#links.delete(peerId)
    this.client.disconnected(peerId)
    this.#server.disconnected(peerId)
  }

  inbound(peerId: string, _version: BitswapVersion): InboundStream {
    const streams = this.#streams.get(peerId) ?? new Set()
    if (streams.size >= MAX_STREAMS_PER_PEER)
      throw new ProtocolError(`more than ${MAX_STREAMS_PER_PEER} streams`)
    const stream: PeerStream = new PeerStream(peerId, {
      client: this.client,
      server: this.#server,
      connection: this.#links.has(peerId) ? undefined : this.#connection(peerId),
      mayKeep: length => this.#partialBytes() + length <= MAX_PARTIAL_BYTES,
      ended: () => streams.delete(stream) && streams.size === 0 && this.#streams.delete(peerId),
    })
    this.#streams.set(peerId, streams.add(stream))
    return stream
  }

  get report(): BitswapReport {
    const { peers, banned, duplicateBytes } = this.client
    return { peers, banned, duplicateBytes, served: this.#server.report }
  }

  /** Every want fails, nothing is served any more. The links are left to their owner. */
  async close(): Promise<void> {
    clearInterval(this.#sweeper)
    this.client.close()
    await this.#server.close()
  }

  #partialBytes(): number {
    let bytes = 0
    for (const streams of this.#streams.values()) for (const stream of streams) bytes += stream.partialBytes
    return bytes
  }

  #sweep(): void {
    const now = performance.now()
    for (const [peerId, streams] of this.#streams) {
      if ([...streams].some(stream => stream.isStuck(now))) {
        this.client.offended(peerId, 'it stopped in the middle of a message')
      }
    }
  }
}

const NOTHING: BlockSupply = { locate: async () => [] }
