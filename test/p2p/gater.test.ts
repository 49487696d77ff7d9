import { multiaddr } from '@multiformats/multiaddr'
import t from 'tap'
import { Gater } from '../../src/p2p/gater.js'
import type { NodeConfig } from '../../src/p2p/node-config.js'
import { isPublicIp } from '../../src/p2p/public-address.js'

const PEER = '12D3KooWRf4pNDSgHhYcrJbAShTYsjo5Uwo8oe4uYXXUMwa4VagH'
const OTHER = '12D3KooWCFxpKzLhHns34tufqW4AE7JHwTF5b6FoceJZh1tGLhJW'

function gater(options: Partial<Pick<NodeConfig, 'peers' | 'bootstrap' | 'dial'>> = {}): Gater {
  return new Gater({ peers: [], bootstrap: [], dial: 'public', ...options })
}

const allows = (gater: Gater, address: string, peer = OTHER) =>
  !gater.denyDialMultiaddr(multiaddr(`${address}/p2p/${peer}`))

const PUBLIC = ['8.8.8.8', '1.1.1.1', '172.15.0.1', '172.32.0.1', '100.63.0.1', '2606:4700::1111', '2a00::1']
const PRIVATE = [
  ...['127.0.0.1', '127.255.255.255', '10.1.2.3', '172.16.0.1', '172.31.255.255', '192.168.0.1'],
  ...['169.254.169.254', '100.64.0.1', '0.0.0.0', '224.0.0.1', '255.255.255.255', '192.0.2.1', '198.18.0.1'],
  ...['::1', '::', '::ffff:127.0.0.1', '::127.0.0.1', 'fe80::1', 'fc00::1', 'fd12::1', 'ff02::1'],
  ...['64:ff9b::7f00:1', '2002:7f00:1::1', '2001:0:53aa::1', '2001:db8::1', 'localhost', 'example.org', ''],
]

t.test('what is not plainly a public unicast address is private', async t => {
  for (const host of PUBLIC) t.equal(isPublicIp(host), true, host)
  for (const host of PRIVATE) t.equal(isPublicIp(host), false, host)
})

t.test('by default an address of a record is dialled only if it is public', async t => {
  t.ok(allows(gater(), '/ip4/8.8.8.8/tcp/4001'))
  t.ok(allows(gater(), '/ip6/2606:4700::1111/tcp/4001'))
  for (const address of ['/ip4/127.0.0.1/tcp/22', '/ip4/192.168.1.1/tcp/80', '/ip6/::1/tcp/22']) {
    t.notOk(allows(gater(), address), address)
  }
  t.notOk(allows(gater(), '/dns4/localhost/tcp/22'), 'names lead anywhere')
  t.notOk(allows(gater(), '/dnsaddr/example.org'))
})

t.test('a configured address is dialled; others that somebody publishes for its peer are not', async t => {
  const peers = [`/ip4/192.168.1.5/tcp/4001/p2p/${PEER}`, `/dns4/nas.local/tcp/4001/p2p/${PEER}`]
  const configured = gater({ peers, bootstrap: [`/ip4/10.0.0.1/tcp/1/p2p/${OTHER}`] })
  t.ok(allows(configured, '/ip4/192.168.1.5/tcp/4001', PEER))
  t.ok(allows(configured, '/dns4/nas.local/tcp/4001', PEER))
  t.ok(allows(configured, '/ip4/10.0.0.1/tcp/1'))
  t.notOk(allows(configured, '/ip4/192.168.1.5/tcp/22', PEER))
  t.notOk(allows(configured, '/ip4/127.0.0.1/tcp/4001', PEER))
})

t.test('a peer named by a /dnsaddr is where that leads to', async t => {
  const configured = gater({ peers: [`/dnsaddr/my.lan/p2p/${PEER}`] })
  t.ok(allows(configured, '/ip4/192.168.1.5/tcp/4001', PEER))
  t.notOk(allows(configured, '/ip4/192.168.1.5/tcp/4001', OTHER))
  const bootstrap = gater({ bootstrap: [`/dnsaddr/bootstrap.example/p2p/${PEER}`] })
  t.notOk(allows(bootstrap, '/ip4/192.168.1.5/tcp/4001', PEER), 'a bootstrap peer is a stranger')
  t.ok(allows(bootstrap, '/dnsaddr/bootstrap.example', PEER))
})

t.test('the private addresses of a neighbour that mDNS found are dialled', async t => {
  const local = gater()
  t.notOk(allows(local, '/ip4/192.168.1.7/tcp/4001', PEER))
  local.addNearby(PEER)
  t.ok(allows(local, '/ip4/192.168.1.7/tcp/4001', PEER))
  t.notOk(allows(local, '/ip4/192.168.1.7/tcp/4001', OTHER))
  for (let i = 0; i < 5_000; i++) local.addNearby(`flood-${i}`)
  t.notOk(allows(local, '/ip4/192.168.1.7/tcp/4001', PEER), 'only so many are remembered')
})

t.test('isolated: private addresses only; any: both, and still no names', async t => {
  const isolated = gater({ dial: 'private' })
  t.ok(allows(isolated, '/ip4/127.0.0.1/tcp/1'))
  t.notOk(allows(isolated, '/ip4/8.8.8.8/tcp/1'))
  const any = gater({ dial: 'any' })
  t.ok(allows(any, '/ip4/127.0.0.1/tcp/1'))
  t.ok(allows(any, '/ip4/8.8.8.8/tcp/1'))
  t.notOk(allows(any, '/dns4/example.org/tcp/1'))
})
