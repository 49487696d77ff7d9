/**
 * Whom the node may dial.
 *
 * Invariant: an address is dialled when the configuration names it, when mDNS found its peer on a network of ours,
 * or when it is of the kind that the configuration lets records name: by default public IP addresses only. That
 * the peer is a named one is not enough: anybody can publish an address for anybody.
 * Why here: libp2p asks the gater at the last moment, whatever way an address took to get there.
 */
import type { ConnectionGater, PeerId } from '@libp2p/interface'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { LRUCache } from 'lru-cache'
import type { NodeConfig } from './node-config.js'
import { peerIdIn } from './peer-address.js'
import { isIpAddress, isPublicAddress } from './public-address.js'

/** Peers of a local network that are remembered. */
const MAX_NEARBY = 1024
/** How long a peer that was dropped stays out. */
const BAN_MS = 60_000
const MAX_BANNED = 4096

export class Gater implements ConnectionGater {
  readonly #named: ReadonlySet<string>
  /** Peers whose address is whatever their `/dnsaddr` says. */
  readonly #resolved: ReadonlySet<string>
  readonly #nearby = new LRUCache<string, true>({ max: MAX_NEARBY })
  readonly #banned = new LRUCache<string, true>({ max: MAX_BANNED, ttl: BAN_MS })
  readonly #dial: NodeConfig['dial']

  constructor({ peers, bootstrap, dial }: Pick<NodeConfig, 'peers' | 'bootstrap' | 'dial'>) {
    const isDnsaddr = (text: string) => text.startsWith('/dnsaddr/')
    this.#named = new Set([...peers, ...bootstrap].map(text => withoutPeer(multiaddr(text))))
    this.#resolved = new Set(peers.filter(isDnsaddr).map(text => peerIdIn(multiaddr(text)) ?? ''))
    this.#dial = dial
  }

  /** mDNS found it: its private addresses are on a network that we are on. */
  addNearby(peerId: string): void {
    this.#nearby.set(peerId, true)
  }

  /** It misbehaved: no connection with it for a minute, whoever dials. */
  ban(peerId: string): void {
    this.#banned.set(peerId, true)
  }

  /** Whether this address may be dialled. `peerId`: whose it is said to be. */
  allows(address: Multiaddr, peerId = peerIdIn(address)): boolean {
    if (this.#named.has(withoutPeer(address))) return true
    if (peerId !== undefined && this.#resolved.has(peerId)) return true
    if (!isIpAddress(address)) return false
    if (this.#dial === 'any') return true
    if (isPublicAddress(address)) return this.#dial === 'public'
    return this.#dial === 'private' || (peerId !== undefined && this.#nearby.has(peerId))
  }

  denyDialPeer = (peer: PeerId): boolean => this.#banned.has(peer.toString())

  denyInboundEncryptedConnection = (peer: PeerId): boolean => this.#banned.has(peer.toString())

  denyDialMultiaddr = (address: Multiaddr): boolean => !this.allows(address)

  /** What is not to be dialled need not be remembered. */
  filterMultiaddrForPeer = (peer: PeerId, address: Multiaddr): boolean =>
    this.allows(address, peer.toString())
}

function withoutPeer(address: Multiaddr): string {
  const text = address.toString()
  const at = text.lastIndexOf('/p2p/')
  return at === -1 ? text : text.slice(0, at)
}
