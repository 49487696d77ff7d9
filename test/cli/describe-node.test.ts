import t from 'tap'
import { describeNode } from '../../src/cli/describe-node.js'
import type { NodeReport } from '../../src/daemon/node-services.js'
import { NODE_OFF } from '../../src/p2p/node-status.js'

const PROVIDING = { what: 'roots', provided: 3, queued: 1, lastError: null, paused: null } as const
const RUNNING: NodeReport = {
  ...NODE_OFF,
  state: 'running',
  peerId: '12D3KooWx',
  addresses: ['/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWx'],
  connections: 2,
  bytesIn: 2048,
  peers: [
    { id: 'a', address: '/ip4/192.0.2.2/tcp/1', direction: 'outbound', named: true, bitswap: true },
    { id: 'b', address: '/ip4/192.0.2.3/tcp/1', direction: 'inbound', named: false, bitswap: false },
  ],
  missing: [{ id: 'c', error: 'connection refused' }],
  routers: [{ name: 'DHT', lookups: 2, found: 1, errors: 1, lastError: 'late', tableSize: 30 }],
  providing: PROVIDING,
  serve: 'all',
}

t.test('a node that runs shows whom it knows, where it listens, and what does not work', async t => {
  const text = describeNode(RUNNING).join('\n')
  for (const part of [
    '12D3KooWx: 2 connections, 1 with bitswap; 2.0 KiB in',
    'listen   /ip4/192.0.2.1/tcp/4001',
    'c is not connected (last: connection refused)',
    'DHT: knows 30 peers, 2 lookups, 1 provider found, 1 failure (last: late)',
    'roots of pins: 3 records out, 1 on the way',
  ])
    t.match(text, part)
})

t.test('a node that does not run says why; without one there is nothing to say', async t => {
  const waiting: NodeReport = { ...RUNNING, state: 'waiting', error: 'EADDRINUSE' }
  t.same(describeNode(waiting), ['  node     waiting: EADDRINUSE'])
  t.same(describeNode(null), [])
})

t.test('why nothing is provided is shown', async t => {
  const paused = { ...PROVIDING, paused: 'no peer is connected', lastError: 'two\nlines' }
  const text = describeNode({ ...RUNNING, addresses: [], providing: paused }).join('\n')
  t.match(text, 'not now: no peer is connected')
  t.match(text, 'nowhere: others cannot dial this node')
  t.match(text, /\(last: two.{1,3}lines\)/)
})
