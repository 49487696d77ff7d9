/**
 * What the node does besides connecting: identify, ping, the DHTs, mDNS.
 *
 * Invariant: a DHT that only knows private networks is not asked about the public one, and the reverse; what a DHT
 * peer sends is cut off at a size that nothing honest has.
 */
import { identify } from '@libp2p/identify'
import type { Libp2p, PeerInfo } from '@libp2p/interface'
import {
  type KadDHT,
  type KadDHTInit,
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
import { limitStreams } from './stream-limits.js'

type Services = NonNullable<Libp2pOptions['services']>

const AMINO = '/ipfs/kad/1.0.0'
const LAN = '/ipfs/lan/kad/1.0.0'
/** Names of the services, and what `status` calls them. */
const DHTS = { amino: 'DHT', lan: 'DHT of the local network' }
/** All that one stream of a DHT peer brings: hundreds of providers with their addresses. */
const MAX_MESSAGE_BYTES = 512 * 1024

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
  const amino = limitedDht({
    ...common,
    protocol: AMINO,
    peerInfoMapper: dial === 'any' ? passthroughMapper : removePrivateAddressesMapper,
    logPrefix: 'libp2p:dht-amino',
    datastorePrefix: '/dht-amino',
  })
  const lan = limitedDht({
    ...common,
    protocol: LAN,
    peerInfoMapper: dial === 'any' ? passthroughMapper : removePublicAddressesMapper,
    logPrefix: 'libp2p:dht-lan',
    datastorePrefix: '/dht-lan',
  })
  return (dial === 'private' ? { lan } : { amino, lan }) as unknown as Services
}

function limitedDht(init: KadDHTInit) {
  const create = kadDHT(init)
  return (components: Parameters<typeof create>[0]) => create(limitStreams(components, MAX_MESSAGE_BYTES))
}

/** The DHTs that the node has, as routers. */
export function dhtRouters(node: Libp2p): Router[] {
  const services = node.services as Record<string, unknown>
  return Object.entries(DHTS)
    .filter(([service]) => services[service] !== undefined)
    .map(([service, name]) => new DhtRouter(name, services[service] as KadDHT))
}
