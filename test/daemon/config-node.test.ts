import t from 'tap'
import { loadConfig, type RawOptions } from '../../src/daemon/config.js'
import { DEFAULT_BOOTSTRAP, DEFAULT_LISTEN, DEFAULT_ROUTERS } from '../../src/daemon/config-node.js'
import { unusable } from '../../src/p2p/node-config.js'

/** An environment that has no configuration. */
const EMPTY = { HOME: '/nonexistent' }
const PEER = '/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWRf4pNDSgHhYcrJbAShTYsjo5Uwo8oe4uYXXUMwa4VagH'

async function node(options: RawOptions) {
  return (await loadConfig('/mnt', options, EMPTY)).node
}

t.test('by default the node joins the public network, and dials public addresses only', async t => {
  t.match(await node({}), {
    stateDir: '/nonexistent/.local/share/cidfs/default',
    userAgent: /^cidfs\/\d/,
    listen: DEFAULT_LISTEN,
    listenElsewhere: true,
    bootstrap: DEFAULT_BOOTSTRAP,
    routers: DEFAULT_ROUTERS,
    dht: 'client',
    mdns: true,
    serve: 'all',
    dial: 'public',
  })
  t.equal((await node({ 'dial-private': true }))?.dial, 'any')
})

t.test('every default address can be used', async t => {
  for (const address of DEFAULT_BOOTSTRAP) t.equal(unusable(address, 'dial'), undefined, address)
  for (const address of DEFAULT_LISTEN) t.equal(unusable(address, 'listen'), undefined, address)
})

t.test('isolated there is a node only if something is named for it, and it knows nobody else', async t => {
  t.equal(await node({ isolated: true }), undefined)
  t.equal(await node({ isolated: true, serve: 'pinned', dht: 'server' }), undefined)
  const expected = { bootstrap: [], routers: [], listen: [], mdns: false, dial: 'private' }
  t.match(await node({ isolated: true, peer: [PEER] }), { ...expected, peers: [PEER] })
  t.match(await node({ isolated: true, mdns: 'on' }), { ...expected, mdns: true })
  t.match(await node({ isolated: true, router: ['http://127.0.0.1:1'] }), {
    ...expected,
    routers: ['http://127.0.0.1:1'],
  })
  t.match(await node({ isolated: true, listen: ['/ip4/127.0.0.1/tcp/0'] }), {
    ...expected,
    listen: ['/ip4/127.0.0.1/tcp/0'],
    listenElsewhere: false,
  })
})

t.test('"none" empties a list that has a default', async t => {
  const none = { bootstrap: 'none', router: ['none'], listen: 'none', mdns: 'off' }
  t.equal(await node(none), undefined, 'nobody is left')
  t.match(await node({ ...none, peer: PEER }), { bootstrap: [], routers: [], listen: [], peers: [PEER] })
})

t.test('an announced address is one that peers could listen on', async t => {
  t.match(await node({ announce: ['/ip4/192.0.2.1/tcp/4001'] }), { announce: ['/ip4/192.0.2.1/tcp/4001'] })
  await t.rejects(node({ announce: ['/dns4/example.org/udp/1'] }), {
    code: 'BAD_CONFIG',
    message: /--announce/,
  })
  t.equal(await node({ isolated: true, announce: ['/ip4/192.0.2.1/tcp/4001'] }), undefined)
})

t.test('the node can be switched off', async t => {
  t.equal(await node({ node: 'off', peer: [PEER] }), undefined)
})

const PEER_ID = '12D3KooWRf4pNDSgHhYcrJbAShTYsjo5Uwo8oe4uYXXUMwa4VagH'
const DIALLED: Record<string, RegExp | undefined> = {
  [`/ip4/127.0.0.1/tcp/1/p2p/${PEER_ID}`]: undefined,
  [`/ip6/::1/tcp/65535/p2p/${PEER_ID}`]: undefined,
  [`/dns4/example.org/tcp/4001/p2p/${PEER_ID}`]: undefined,
  [`/dnsaddr/example.org/p2p/${PEER_ID}`]: undefined,
  '/ip4/127.0.0.1/tcp/1/p2p/k51qzi5uqu5djdczd6zw0grmo23j2vkj9uzvujencg15s5rlkq0ss4ivll8wqw': undefined,
  '': /address for TCP/,
  nonsense: /address for TCP/,
  '/ip4/127.0.0.1/tcp/1': /id of the peer/,
  '/ip4/127.0.0.1/tcp/1/p2p/bafkqaaa': /names no peer/,
  '/ip4/127.0.0.1/tcp/1/p2p/12D3KooW': /names no peer/,
  [`/ip4/300.0.0.1/tcp/1/p2p/${PEER_ID}`]: /address for TCP/,
  [`/ip4/127.0.0.1/tcp/99999/p2p/${PEER_ID}`]: /address for TCP/,
  [`/ip4/127.0.0.1/tcp/1/ws/p2p/${PEER_ID}`]: /address for TCP/,
  [`/ip4/127.0.0.1/udp/1/quic-v1/p2p/${PEER_ID}`]: /address for TCP/,
  [`/ip4/127.0.0.1/tcp/1/p2p/${PEER_ID}/p2p-circuit/p2p/${PEER_ID}`]: /address for TCP/,
}

for (const [address, why] of Object.entries(DIALLED)) {
  t.test(
    `an address to dial: ${JSON.stringify(address)} is ${why === undefined ? 'taken' : 'refused'}`,
    async t => {
      const found = unusable(address, 'dial')
      if (why === undefined) t.equal(found, undefined)
      else t.match(found, why)
    },
  )
}
