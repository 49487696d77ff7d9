/**
 * libp2p's connections as bitswap's links.
 *
 * Invariant: the handler hears of a peer that speaks bitswap once, and of its end once. We send to a peer on one
 * stream, opened with the first message, and opened once more for a message that meets a broken one. Messages that
 * wait for a slow peer are bounded, and a peer that takes nothing for too long is dropped.
 */
import type { Connection, IdentifyResult, Libp2p, PeerId, Stream, StreamCloseEvent } from '@libp2p/interface'
import { Uint8ArrayList } from 'uint8arraylist'
import { MAX_STREAMS_PER_PEER } from '../bitswap/limits.js'
import type { BitswapHandler, BitswapVersion, InboundStream, PeerLink } from '../bitswap/link.js'
import { deadline } from '../core/deadline.js'
import { messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { withResolvers } from '../core/with-resolvers.js'
import { drained } from './drained.js'
import { takeStreams } from './fast-negotiation.js'

const log = logger('p2p:bitswap')

/** Best first. */
const VERSIONS = ['1.2.0', '1.1.0', '1.0.0'] as const
const PREFIX = '/ipfs/bitswap/'
/** The protocol of old nodes has no version in its name. */
const BARE = '/ipfs/bitswap'
const PROTOCOLS = [...VERSIONS.map(version => PREFIX + version), BARE]

/** Unsent messages to one peer, in bytes; the one that exceeds them is refused. */
const MAX_QUEUED_BYTES = 16 * 1024 * 1024
const OPEN_TIMEOUT_MS = 10_000
/** How long a peer may leave our bytes untouched. */
const STALLED_MS = 30_000
/** How long identification of a new connection is waited for. */
const IDENTIFY_MS = 5_000

export class BitswapLinks {
  bytesIn = 0
  bytesOut = 0
  readonly #node: Libp2p
  readonly #handler: BitswapHandler
  readonly #onDrop: (peerId: string, reason: string) => void
  readonly #links = new Map<string, Link>()
  readonly #identified = new Map<string, ReturnType<typeof withResolvers<void>>>()

  constructor(node: Libp2p, handler: BitswapHandler, onDrop: (peerId: string, reason: string) => void) {
    this.#node = node
    this.#handler = handler
    this.#onDrop = onDrop
  }

  async start(): Promise<void> {
    this.#node.addEventListener('peer:identify', this.#onIdentify)
    this.#node.addEventListener('peer:disconnect', this.#onDisconnect)
    this.#node.addEventListener('connection:open', this.#onOpen)
    const options = { maxInboundStreams: MAX_STREAMS_PER_PEER, force: true as const }
    await this.#node.handle(PROTOCOLS, (stream, connection) => this.#receive(stream, connection), options)
  }

  stop(): void {
    this.#node.removeEventListener('peer:identify', this.#onIdentify)
    this.#node.removeEventListener('peer:disconnect', this.#onDisconnect)
    this.#node.removeEventListener('connection:open', this.#onOpen)
    for (const id of [...this.#links.keys()]) this.#gone(id)
    for (const { resolve } of this.#identified.values()) resolve()
  }

  /** Whether the peer is connected and speaks bitswap. */
  has(peerId: string): boolean {
    return this.#links.has(peerId)
  }

  /** Resolves when it is known whether the peer, which is connected, speaks bitswap, or after a few seconds. */
  async settled(peerId: string): Promise<void> {
    if (this.#links.has(peerId)) return
    const waiting = this.#identified.get(peerId) ?? withResolvers<void>()
    this.#identified.set(peerId, waiting)
    const timer = setTimeout(waiting.resolve, IDENTIFY_MS)
    await waiting.promise
    clearTimeout(timer)
    this.#identified.delete(peerId)
  }

  /** Streams of bitswap do not wait for libp2p to negotiate them. */
  #onOpen = ({ detail }: CustomEvent<Connection>): void => {
    takeStreams(detail, PROTOCOLS, (stream, connection) => this.#receive(stream, connection))
  }

  #onIdentify = ({ detail: { peerId, protocols } }: CustomEvent<IdentifyResult>): void => {
    const version = VERSIONS.find(version => protocols.includes(PREFIX + version))
    if (version !== undefined) this.#add(peerId, version, PREFIX + version)
    else if (protocols.includes(BARE)) this.#add(peerId, '1.0.0', BARE)
    this.#identified.get(peerId.toString())?.resolve()
  }

  #add(peerId: PeerId, version: BitswapVersion, protocol: string): void {
    const id = peerId.toString()
    // it may be gone again: identification takes a while
    if (this.#links.has(id) || this.#node.getConnections(peerId).length === 0) return
    const link = new Link(this.#node, peerId, version, protocol, {
      sent: sizeBytes => {
        this.bytesOut += sizeBytes
      },
      dropped: reason => this.#onDrop(id, reason),
    })
    this.#links.set(id, link)
    this.#handler.connected(link)
  }

  #onDisconnect = ({ detail }: CustomEvent<PeerId>): void => {
    this.#identified.get(detail.toString())?.resolve()
    this.#gone(detail.toString())
  }

  #gone(id: string): void {
    const link = this.#links.get(id)
    if (link === undefined) return
    this.#links.delete(id)
    link.end()
    this.#handler.disconnected(id)
  }

  #receive(stream: Stream, { remotePeer }: Connection): void {
    const id = remotePeer.toString()
    const version = VERSIONS.find(version => stream.protocol === PREFIX + version) ?? '1.0.0'
    const inbound = this.#handler.inbound(id, version)
    receive(stream, inbound, {
      received: sizeBytes => {
        this.bytesIn += sizeBytes
      },
      failed: err => {
        drop(this.#node, remotePeer, messageOf(err))
        this.#onDrop(id, messageOf(err))
      },
    })
    this.#add(remotePeer, version, stream.protocol)
  }
}

/** Feeds what comes on a stream to its consumer, no faster than it takes it. */
function receive(
  stream: Stream,
  inbound: InboundStream,
  on: { received(sizeBytes: number): void; failed(err: unknown): void },
): void {
  let ended = false
  const end = (error?: Error) => {
    if (ended) return
    ended = true
    inbound.end(error)
  }
  const fail = (err: unknown) => {
    const error = err instanceof Error ? err : new Error(String(err))
    end(error)
    stream.abort(error)
    on.failed(error)
  }
  /** Whether it was taken at once. */
  const feed = (pieces: readonly Uint8Array[]): boolean => {
    for (let i = 0; i < pieces.length && !ended; i++) {
      const held = inbound.data(pieces[i]!)
      if (held === undefined) continue
      stream.pause()
      const rest = pieces.slice(i + 1).map(piece => piece.slice())
      held.then(() => feed(rest) && resume(stream)).catch(fail)
      return false
    }
    return true
  }
  stream.addEventListener('message', ({ data }) => {
    on.received(data.byteLength)
    try {
      feed(data instanceof Uint8Array ? [data] : [...data])
    } catch (err) {
      fail(err)
    }
  })
  stream.addEventListener('end', () => {
    end()
    stream.close().catch(() => {})
  })
  stream.addEventListener('close', ({ error }: StreamCloseEvent) => end(error))
}

function resume(stream: Stream): void {
  if (stream.readStatus === 'paused') stream.resume()
}

/** Ends every connection to a peer. */
function drop(node: Libp2p, peerId: PeerId, reason: string): void {
  log('%s is dropped: %s', peerId, reason)
  for (const connection of node.getConnections(peerId)) connection.abort(new Error(reason))
}

class Link implements PeerLink {
  readonly peerId: string
  readonly version: BitswapVersion
  readonly #node: Libp2p
  readonly #peer: PeerId
  readonly #protocol: string
  readonly #on: { sent(sizeBytes: number): void; dropped(reason: string): void }
  readonly #ended = new AbortController()
  #stream: Stream | undefined
  #queuedBytes = 0
  #tail: Promise<unknown> = Promise.resolve()

  constructor(
    node: Libp2p,
    peer: PeerId,
    version: BitswapVersion,
    protocol: string,
    on: { sent(sizeBytes: number): void; dropped(reason: string): void },
  ) {
    this.#node = node
    this.#peer = peer
    this.#protocol = protocol
    this.#on = on
    this.peerId = peer.toString()
    this.version = version
  }

  async send(pieces: readonly Uint8Array[]): Promise<void> {
    const message = framed(pieces)
    const sizeBytes = message.byteLength
    if (this.#queuedBytes > 0 && this.#queuedBytes + sizeBytes > MAX_QUEUED_BYTES) {
      throw new Error('too much waits to be sent to this peer')
    }
    this.#queuedBytes += sizeBytes
    const turn = this.#tail.then(() => this.#write(message))
    this.#tail = turn.catch(() => {})
    try {
      await turn
      this.#on.sent(sizeBytes)
    } finally {
      this.#queuedBytes -= sizeBytes
    }
  }

  drop(reason: string): void {
    drop(this.#node, this.#peer, reason)
    this.#on.dropped(reason)
  }

  end(): void {
    this.#ended.abort(new Error('the peer is gone'))
    this.#stream?.abort(new Error('the peer is gone'))
    this.#stream = undefined
  }

  /** A message that a broken stream took in part begins anew on the next one, as the protocol wants it. */
  async #write(message: Uint8ArrayList): Promise<void> {
    const stream = this.#stream
    if (stream?.writeStatus === 'writable') {
      try {
        return await this.#writeTo(stream, message)
      } catch (err) {
        log('%s: the stream broke: %s', this.peerId, messageOf(err))
      }
    }
    await this.#writeTo(await this.#open(), message)
  }

  async #writeTo(stream: Stream, message: Uint8ArrayList): Promise<void> {
    this.#ended.signal.throwIfAborted()
    if (stream.send(message)) return
    const stalled = AbortSignal.timeout(STALLED_MS)
    try {
      await drained(stream, AbortSignal.any([stalled, this.#ended.signal]))
    } catch (err) {
      if (stalled.aborted) this.drop(`it took nothing for ${STALLED_MS} ms`)
      throw err
    }
  }

  async #open(): Promise<Stream> {
    this.#ended.signal.throwIfAborted()
    const signal = deadline(OPEN_TIMEOUT_MS, this.#ended.signal)
    const stream = await this.#node.dialProtocol(this.#peer, this.#protocol, { signal })
    // answers come on a stream of the peer's
    stream.closeRead().catch(() => {})
    this.#stream = stream
    return stream
  }
}

/** With its length in front, as an unsigned varint. */
function framed(pieces: readonly Uint8Array[]): Uint8ArrayList {
  let length = pieces.reduce((sum, piece) => sum + piece.length, 0)
  const prefix: number[] = []
  for (; length > 0x7f; length >>>= 7) prefix.push((length & 0x7f) | 0x80)
  prefix.push(length)
  return new Uint8ArrayList(Uint8Array.from(prefix), ...pieces)
}
