/**
 * What the node does besides connecting: identify, ping, the DHTs, mDNS.
 *
 * Invariant: a DHT that only knows private networks is not asked about the public one, and the reverse; what a peer
 * answers to a question of ours is cut off at a size that no honest answer has.
 */
import { identify } from '@libp2p/identify'
import type { Libp2p, PeerInfo } from '@libp2p/interface'
import {
  type KadDHT,
  kadDHT,
  passthroughMapper,
  removePrivateAddressesMapper,
  removePublicAddressesMapper,
} from '@libp2p/kad-dht'
import { mdns } from '@libp2p/mdns'
import { ping } from '@libp2p/ping'
import { ipnsSelector } from 'ipns/selector'
import { ipnsValidator } from 'ipns/validator'
import type { Libp2pOptions } from 'libp2p'
import { DhtRouter } from './dht-router.js'
import type { NodeConfig } from './node-config.js'
import type { Router } from './routing.js'

type Services = NonNullable<Libp2pOptions['services']>

const AMINO = '/ipfs/kad/1.0.0'
const LAN = '/ipfs/lan/kad/1.0.0'
/** Names of the services, and what `status` calls them. */
const DHTS = { amino: 'DHT', lan: 'DHT of the local network' }
/** One answer of a DHT peer: hundreds of providers with their addresses. */
const MAX_ANSWER_BYTES = 512 * 1024

/** `onNearby` hears of peers on the local network. */
export function services(config: NodeConfig, onNearby: (peer: PeerInfo) => void): Services {
  const services: Services = { identify: identify(), ping: ping() }
  if (config.dht !== 'off') Object.assign(services, dhts(config))
  if (config.mdns) {
    services.mdns = components => {
      const service = mdns()(components)
      // heard before libp2p stores the addresses, so that the gater lets them in
      service.addEventListener('peer', ({ detail }) => onNearby(detail))
      return service
    }
  }
  return services
}

/** A node that may dial private addresses only has no use for the public DHT. */
function dhts({ dht, dial }: NodeConfig): Services {
  const common = {
    clientMode: dht !== 'server',
    allowQueryWithZeroPeers: true,
    validators: { ipns: ipnsValidator },
    selectors: { ipns: ipnsSelector },
  }
  const amino = kadDHT({
    ...common,
    protocol: AMINO,
    peerInfoMapper: dial === 'any' ? passthroughMapper : removePrivateAddressesMapper,
    logPrefix: 'libp2p:dht-amino',
    datastorePrefix: '/dht-amino',
  })
  const lan = kadDHT({
    ...common,
    protocol: LAN,
    peerInfoMapper: dial === 'any' ? passthroughMapper : removePublicAddressesMapper,
    logPrefix: 'libp2p:dht-lan',
    datastorePrefix: '/dht-lan',
  })
  return (dial === 'private' ? { lan } : { amino, lan }) as unknown as Services
}

/** The DHTs that the node has, as routers. */
export function dhtRouters(node: Libp2p): Router[] {
  const services = node.services as Record<string, unknown>
  return Object.entries(DHTS)
    .filter(([service]) => services[service] !== undefined)
    .map(([service, name]) => new DhtRouter(name, services[service] as KadDHT))
}

/**
 * Ends streams on which a DHT peer answers at more length than it may. kad-dht itself would read gigabytes.
 * Only streams that we opened: on them nothing comes before its reader asks for it.
 */
export function limitAnswers(node: Libp2p): void {
  for (const protocol of [AMINO, LAN]) {
    node.use(protocol, (stream, connection, next) => {
      let bytes = 0
      if (stream.direction === 'outbound') {
        stream.addEventListener('message', ({ data }) => {
          bytes += data.byteLength
          if (bytes > MAX_ANSWER_BYTES)
            stream.abort(new Error(`it answered more than ${MAX_ANSWER_BYTES} bytes`))
        })
      }
      next(stream, connection)
    })
  }
}
