/**
 * What the embedded node is started with.
 *
 * Invariant: complete and checked: addresses are multiaddrs that this node can use, and `bootstrap` and `routers`
 * hold exactly what may be contacted. The daemon decides that; nothing here knows of options or defaults.
 * Why addresses are checked without libp2p: every command reads the configuration, few of them start the node.
 */
import { isIPv4, isIPv6 } from 'node:net'
import { peerIdText } from './peer-id-text.js'

export interface NodeConfig {
  /** Where its key lies. */
  stateDir: string
  /** What it calls itself among peers. */
  userAgent: string
  /** Multiaddrs; empty: nobody can dial us. */
  listen: string[]
  /** `listen` is the default, so that another port will do where its port is taken. */
  listenElsewhere: boolean
  /** Multiaddrs that others reach us at besides those that we listen on, as behind a router that forwards a port. */
  announce: string[]
  /** Multiaddrs of the first peers to be dialled, with peer ids. */
  bootstrap: string[]
  /** Multiaddrs of peers to stay connected with, with peer ids. */
  peers: string[]
  /** Base URLs of delegated routers (`/routing/v1`). */
  routers: string[]
  dht: 'client' | 'server' | 'off'
  mdns: boolean
  /** What peers get from us. */
  serve: 'all' | 'pinned' | 'off'
  /**
   * Which addresses may be dialled besides those that are configured and those found by mDNS: only public ones,
   * only private ones (for isolated networks), or any.
   */
  dial: 'public' | 'private' | 'any'
}

const EXAMPLES = {
  dial: '/ip4/192.0.2.1/tcp/4001/p2p/12D3Koo…',
  listen: '/ip4/0.0.0.0/tcp/4001',
}

/**
 * Why an address cannot be used by this node, as the end of a sentence; undefined when it can. What is dialled is
 * a host, a TCP port and the id of the peer; what is listened on, an IP address and a TCP port.
 */
export function unusable(text: string, use: 'dial' | 'listen'): string | undefined {
  const [empty, ...parts] = text.split('/')
  const wrong = `must be an address for TCP, like ${EXAMPLES[use]}`
  if (empty !== '' || parts.length % 2 !== 0) return wrong
  const [protocol = '', host = '', ...rest] = parts
  if (!isHost(protocol, host)) return wrong
  if (use === 'listen') return isIp(protocol) && isTcp(rest) ? undefined : wrong
  const peer = rest.splice(-2)
  if (peer[0] !== 'p2p') return 'must end in /p2p/ and the id of the peer'
  if (peerIdText(peer[1] ?? '') === undefined)
    return `names no peer: ${JSON.stringify(peer[1])} is not a peer id`
  return isTcp(rest) || (protocol === 'dnsaddr' && rest.length === 0) ? undefined : wrong
}

function isHost(protocol: string, host: string): boolean {
  if (protocol === 'ip4') return isIPv4(host)
  if (protocol === 'ip6') return isIPv6(host) && !host.includes('%')
  return ['dns', 'dns4', 'dns6', 'dnsaddr'].includes(protocol) && /^[\w.-]{1,253}$/.test(host)
}

function isIp(protocol: string): boolean {
  return protocol === 'ip4' || protocol === 'ip6'
}

function isTcp(parts: string[]): boolean {
  return parts.length === 2 && parts[0] === 'tcp' && /^\d{1,5}$/.test(parts[1]!) && Number(parts[1]) < 65_536
}
