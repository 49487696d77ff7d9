/**
 * The options of the embedded node, and what they come to.
 *
 * Invariant: isolated, the node exists only if something is named for it, and contacts nothing else; otherwise it
 * joins the public network. `none` stands for an empty list, which is not the same as leaving the option out.
 */
import { type NodeConfig, unusable } from '../p2p/node-config.js'
import type { Values } from './config.js'
import { BadValue, type Option, readHttpUrl } from './config-values.js'
import { VERSION } from './version.js'

/** Those that Kubo starts from as well. */
export const DEFAULT_BOOTSTRAP = [
  '/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN',
  '/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb',
  '/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt',
  '/ip4/104.131.131.82/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ',
]
/** As Kubo's default. */
export const DEFAULT_ROUTERS = ['https://delegated-ipfs.dev']
/** The port that IPFS nodes are expected on. */
export const DEFAULT_LISTEN = ['/ip4/0.0.0.0/tcp/4001', '/ip6/::/tcp/4001']

const NONE = 'none'

export const NODE_OPTIONS: readonly Option[] = [
  {
    name: 'node',
    argument: 'WHEN',
    help: 'on: be a peer of the IPFS network, to fetch from others and to serve them; off: gateways and Kubo only (default: on)',
    read: oneOf('on', 'off'),
  },
  {
    name: 'peer',
    argument: 'MULTIADDR',
    repeatable: true,
    help: 'peer to stay connected with, like /ip4/192.0.2.1/tcp/4001/p2p/12D3Koo… (repeatable)',
    read: readAddress('dial'),
  },
  {
    name: 'listen',
    argument: 'MULTIADDR',
    repeatable: true,
    help: 'address to serve peers on, or none (default: TCP port 4001, another where it is taken; repeatable)',
    read: orNone(readAddress('listen')),
  },
  {
    name: 'announce',
    argument: 'MULTIADDR',
    repeatable: true,
    help: 'address that others reach this node at, if it is not one it listens on: a forwarded port (repeatable)',
    read: readAddress('listen'),
  },
  {
    name: 'bootstrap',
    argument: 'MULTIADDR',
    repeatable: true,
    help: 'peer to find the network with, or none; replaces the default list (repeatable)',
    read: orNone(readAddress('dial')),
  },
  {
    name: 'router',
    argument: 'URL',
    repeatable: true,
    help: 'server to ask who has a block (/routing/v1), or none; replaces the default one (repeatable)',
    read: orNone(readHttpUrl),
  },
  {
    name: 'dht',
    argument: 'MODE',
    help: 'client: ask the DHT; server: answer for it as well, for nodes that others can reach; off (default: client)',
    read: oneOf('client', 'server', 'off'),
  },
  {
    name: 'mdns',
    argument: 'WHEN',
    help: 'on or off: find peers on the local network (default: on)',
    read: oneOf('on', 'off'),
  },
  {
    name: 'serve',
    argument: 'WHAT',
    help: 'what peers get: all that is held here, what is pinned, or nothing (all, pinned, off; default: all)',
    read: oneOf('all', 'pinned', 'off'),
  },
  {
    name: 'provide',
    argument: 'WHAT',
    help: 'what the network is told that it is here: roots of pins, all their blocks, or nothing (roots, all, off; default: roots)',
    read: oneOf('roots', 'all', 'off'),
  },
  {
    name: 'dial-private',
    help: 'dial private addresses, too, that strangers publish for themselves',
    read: value => {
      if (typeof value !== 'boolean') throw new BadValue('must be true or false')
      return value
    },
  },
]

/** What the values of the options come to; undefined: no node. The state directory is the caller's to set. */
export function nodeConfig(values: Values, isolated: boolean): NodeConfig | undefined {
  const list = (name: string) => (values.get(name) as string[] | undefined)?.filter(item => item !== NONE)
  const text = (name: string) => values.get(name) as string | undefined
  const peers = list('peer') ?? []
  const listen = list('listen')
  const bootstrap = list('bootstrap') ?? (isolated ? [] : DEFAULT_BOOTSTRAP)
  const routers = list('router') ?? (isolated ? [] : DEFAULT_ROUTERS)
  const mdns = (text('mdns') ?? (isolated ? 'off' : 'on')) === 'on'
  const named = [peers, listen ?? [], bootstrap, routers].some(({ length }) => length > 0) || mdns
  if (text('node') === 'off' || !named) return undefined
  return {
    stateDir: '',
    userAgent: `cidfs/${VERSION}`,
    listen: listen ?? (isolated ? [] : DEFAULT_LISTEN),
    listenElsewhere: listen === undefined,
    announce: list('announce') ?? [],
    bootstrap: [...new Set(bootstrap)],
    peers: [...new Set(peers)],
    routers: [...new Set(routers)],
    dht: (text('dht') as NodeConfig['dht'] | undefined) ?? 'client',
    mdns,
    serve: (text('serve') as NodeConfig['serve'] | undefined) ?? 'all',
    dial: values.get('dial-private') === true ? 'any' : isolated ? 'private' : 'public',
  }
}

function readAddress(use: 'dial' | 'listen') {
  return (value: unknown): string => {
    const why = typeof value === 'string' ? unusable(value, use) : 'must be a multiaddr'
    if (why !== undefined) throw new BadValue(why)
    return value as string
  }
}

function orNone(read: (value: unknown) => string) {
  return (value: unknown): string => (value === NONE ? NONE : read(value))
}

function oneOf(...allowed: string[]) {
  return (value: unknown): string => {
    if (typeof value === 'string' && allowed.includes(value)) return value
    throw new BadValue(`must be ${allowed.map(name => JSON.stringify(name)).join(' or ')}`)
  }
}
