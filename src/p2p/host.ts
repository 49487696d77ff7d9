/**
 * The embedded node: libp2p with what IPFS needs of it, started and stopped as one.
 *
 * Invariant: it dials whom the gater allows, holds no more connections than its limits, and when `stop` has
 * resolved there is no connection, listener or timer of it. It knows nothing of blocks: bitswap hears of peers
 * through `BitswapLinks`, and asks `routing` who has what.
 * Why composed here from libp2p's parts: what is not needed (relays, WebRTC, a peer store on disk) is not loaded.
 */
import '../core/with-resolvers.js'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import type { Libp2p, PeerInfo } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p, type Libp2pOptions } from 'libp2p'
import type { Discovery } from '../bitswap/discovery.js'
import type { BitswapHandler } from '../bitswap/link.js'
import { orInterrupted } from '../core/interrupted.js'
import { logger } from '../core/log.js'
import { BitswapLinks } from './bitswap-links.js'
import { BoundedDatastore } from './bounded-datastore.js'
import { fastTls } from './fast-tls.js'
import { Gater } from './gater.js'
import { loadOrCreateKey } from './identity.js'
import { listenAddresses } from './listen-addresses.js'
import type { NodeConfig } from './node-config.js'
import type { NodeStatus, PeerStatus } from './node-status.js'
import { addressOf } from './peer-address.js'
import { Peering } from './peering.js'
import { isPublicAddress } from './public-address.js'
import { type Provider, type Router, Routing } from './routing.js'
import { dhtRouters, services } from './services.js'

const log = logger('p2p:host')

const MAX_CONNECTIONS = 200
const MAX_PARALLEL_DIALS = 32
const MAX_DIAL_QUEUE = 256
const DIAL_TIMEOUT_MS = 10_000
const INBOUND_TIMEOUT_MS = 5_000
/** New connections per second from one address, and those not yet negotiated. */
const MAX_INBOUND_RATE = 20
const MAX_INBOUND_PENDING = 32
/** Streams that a connection may open to us, and what may wait on each for a reader that holds back. */
const MAX_INBOUND_STREAMS = 256
const MAX_UNREAD_BYTES = 1024 * 1024
/** Bootstrap peers are dialled while fewer peers than this are connected. */
const ENOUGH_PEERS = 8
/** Peers of the local network that are dialled at a time when mDNS finds them. */
const MAX_NEARBY_DIALS = 16
/** Of peers in `status`. */
const MAX_PEERS_NAMED = 100

export interface HostOptions {
  /** Hears of the peers that speak bitswap. */
  bitswap: BitswapHandler
  /** Routers besides the DHTs. */
  routers?: readonly Router[]
}

export class Host implements Discovery {
  readonly routing: Routing
  readonly links: BitswapLinks
  readonly #node: Libp2p
  readonly #gater: Gater
  readonly #peering: Peering
  readonly #bootstrap: Peering
  #nearbyDials = 0

  private constructor(config: NodeConfig, node: Libp2p, gater: Gater, options: HostOptions) {
    this.#node = node
    this.#gater = gater
    this.routing = new Routing([...dhtRouters(node), ...(options.routers ?? [])])
    this.links = new BitswapLinks(node, options.bitswap, peerId => gater.ban(peerId))
    this.#peering = new Peering(node, config.peers)
    this.#bootstrap = new Peering(node, config.bootstrap, () => node.getPeers().length < ENOUGH_PEERS)
  }

  /**
   * Returns when it listens; peers come by and by.
   * @throws Error when it cannot listen or its key cannot be read.
   */
  static async start(config: NodeConfig, options: HostOptions): Promise<Host> {
    const gater = new Gater(config)
    const nearby: { found: (peer: PeerInfo) => void } = { found: () => {} }
    const node = await createLibp2p({
      ...(await libp2pOptions(config, gater)),
      services: services(config, peer => nearby.found(peer)),
      start: false,
    })
    const host = new Host(config, node, gater, options)
    nearby.found = peer => void host.#dialNearby(peer)
    try {
      // first, so that no peer connects that hears nothing of bitswap
      await host.links.start()
      await node.start()
    } catch (err) {
      await host.stop()
      throw err
    }
    host.#peering.start()
    host.#bootstrap.start()
    log('%s listens on %o', node.peerId, node.getMultiaddrs().map(String))
    return host
  }

  get peerId(): string {
    return this.#node.peerId.toString()
  }

  /** Multiaddrs with our peer id. */
  get addresses(): string[] {
    return this.#node.getMultiaddrs().map(String)
  }

  findProviders(cid: Parameters<Routing['findProviders']>[0], signal: AbortSignal): AsyncIterable<Provider> {
    return this.routing.findProviders(cid, signal)
  }

  /** See `Discovery`. Addresses that must not be dialled are passed over; without any, routing is asked for some. */
  async connect({ id, addrs }: { id: string; addrs: readonly string[] }, signal: AbortSignal): Promise<void> {
    const addresses = addrs.map(text => addressOf(id, text)).filter(address => address !== undefined)
    await this.#node.dial(addresses.length > 0 ? addresses : multiaddr(`/p2p/${id}`), { signal })
    await orInterrupted(this.links.settled(id), signal)
  }

  get #reachable(): NodeStatus['reachable'] {
    const addresses = this.#node.getMultiaddrs()
    if (addresses.some(isPublicAddress)) return 'public'
    return addresses.length > 0 ? 'local' : 'no'
  }

  status(): NodeStatus {
    const connections = this.#node.getConnections()
    return {
      state: 'running',
      error: null,
      peerId: this.peerId,
      addresses: this.addresses,
      reachable: this.#reachable,
      peers: this.#peers(),
      missing: this.#peering.missing(),
      connections: connections.length,
      bytesIn: this.links.bytesIn,
      bytesOut: this.links.bytesOut,
      routers: this.routing.status(),
    }
  }

  async stop(): Promise<void> {
    this.#peering.stop()
    this.#bootstrap.stop()
    this.links.stop()
    await this.#node.stop()
  }

  /** Each peer once, named ones first. */
  #peers(): PeerStatus[] {
    const peers = new Map<string, PeerStatus>()
    for (const { remotePeer, remoteAddr, direction } of this.#node.getConnections()) {
      const id = remotePeer.toString()
      const named = this.#peering.has(id)
      const bitswap = this.links.has(id)
      if (!peers.has(id)) peers.set(id, { id, address: remoteAddr.toString(), direction, named, bitswap })
    }
    return [...peers.values()].sort((a, b) => Number(b.named) - Number(a.named)).slice(0, MAX_PEERS_NAMED)
  }

  async #dialNearby({ id, multiaddrs }: PeerInfo): Promise<void> {
    this.#gater.addNearby(id.toString())
    if (this.#nearbyDials >= MAX_NEARBY_DIALS || this.#node.getConnections(id).length > 0) return
    this.#nearbyDials++
    try {
      await this.#node.dial(multiaddrs, { signal: AbortSignal.timeout(DIAL_TIMEOUT_MS) })
    } catch (err) {
      log('%s nearby: %O', id, err)
    } finally {
      this.#nearbyDials--
    }
  }
}

async function libp2pOptions(config: NodeConfig, gater: Gater): Promise<Libp2pOptions> {
  return {
    privateKey: await loadOrCreateKey(config.stateDir),
    nodeInfo: { userAgent: config.userAgent },
    addresses: { listen: await listenAddresses(config), appendAnnounce: config.announce },
    transports: [tcp()],
    connectionEncrypters: [fastTls(), noise()],
    streamMuxers: [
      yamux({
        maxInboundStreams: MAX_INBOUND_STREAMS,
        streamOptions: { maxStreamWindowSize: MAX_UNREAD_BYTES },
      }),
    ],
    connectionGater: gater,
    datastore: new BoundedDatastore(),
    connectionManager: {
      maxConnections: MAX_CONNECTIONS,
      maxParallelDials: MAX_PARALLEL_DIALS,
      maxDialQueueLength: MAX_DIAL_QUEUE,
      dialTimeout: DIAL_TIMEOUT_MS,
      inboundUpgradeTimeout: INBOUND_TIMEOUT_MS,
      inboundConnectionThreshold: MAX_INBOUND_RATE,
      maxIncomingPendingConnections: MAX_INBOUND_PENDING,
    },
  }
}
