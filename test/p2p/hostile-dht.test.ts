/** A peer of the DHT that answers whatever it likes. */
import '../../src/core/with-resolvers.js'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import type { Libp2p, Stream } from '@libp2p/interface'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { base58btc } from 'multiformats/bases/base58'
import t, { type Test } from 'tap'
import { CODEC_RAW, cidOf } from '../../src/core/cid.js'
import type { Provider } from '../../src/p2p/routing.js'
import { until } from '../support/until.js'
import { startHost } from './support.js'

t.setTimeout(60_000)

const PROTOCOL = '/ipfs/lan/kad/1.0.0'
const PEER = base58btc.baseDecode('12D3KooWRf4pNDSgHhYcrJbAShTYsjo5Uwo8oe4uYXXUMwa4VagH')
const CID = cidOf(CODEC_RAW, Uint8Array.of(1))

/** Fields of `dht.proto`. */
const TYPE = 1
const CLOSER_PEERS = 8
const PROVIDER_PEERS = 9
const GET_PROVIDERS = 3

function varint(value: number): Buffer {
  const bytes = []
  for (; value > 0x7f; value >>>= 7) bytes.push((value & 0x7f) | 0x80)
  return Buffer.from([...bytes, value])
}

function field(number: number, bytes: Uint8Array): Buffer {
  return Buffer.concat([varint((number << 3) | 2), varint(bytes.length), bytes])
}

function peer(id: Uint8Array, addresses: Uint8Array[]): Buffer {
  return Buffer.concat([field(1, id), ...addresses.map(address => field(2, address))])
}

function answer(...fields: Buffer[]): Buffer {
  const body = Buffer.concat([varint(TYPE << 3), varint(GET_PROVIDERS), ...fields])
  return Buffer.concat([varint(body.length), body])
}

const ADDRESSES = Array.from({ length: 10_000 }, (_, i) => multiaddr(`/ip4/127.0.0.1/tcp/${i + 1}`).bytes)

/** Peer ids that nobody has. */
function strangers(count: number): Uint8Array[] {
  return Array.from({ length: count }, (_, i) => {
    const id = Uint8Array.from(PEER)
    new DataView(id.buffer).setUint32(id.length - 4, i)
    return id
  })
}

const ANSWERS: Record<string, { bytes: Buffer; most: number }> = {
  'ten thousand addresses of one provider': {
    bytes: answer(field(PROVIDER_PEERS, peer(PEER, ADDRESSES))),
    most: 1,
  },
  'a thousand providers': {
    bytes: answer(...strangers(1_000).map(id => field(PROVIDER_PEERS, peer(id, ADDRESSES.slice(0, 20))))),
    most: 32,
  },
  'four megabytes of addresses': {
    bytes: answer(field(PROVIDER_PEERS, peer(PEER, Array(40).fill(ADDRESSES).flat()))),
    most: 0,
  },
  'a thousand closer peers that are not there': {
    bytes: answer(...strangers(1_000).map(id => field(CLOSER_PEERS, peer(id, ADDRESSES.slice(0, 2))))),
    most: 0,
  },
  'addresses that are none': {
    bytes: answer(field(PROVIDER_PEERS, peer(PEER, [Buffer.from('nonsense'), Buffer.alloc(0)]))),
    most: 1,
  },
  'a provider that is none': { bytes: answer(field(PROVIDER_PEERS, peer(Buffer.from('x'), []))), most: 0 },
  'bytes that are no message': { bytes: Buffer.from([5, 0xff, 0xff, 0xff, 0xff, 0xff]), most: 0 },
  'a message that never ends': { bytes: Buffer.concat([varint(0x7fffffff), Buffer.alloc(100_000)]), most: 0 },
}

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

function heldBytes(): number {
  collectGarbage()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

async function hostilePeer(t: Test, bytes: Buffer): Promise<Libp2p> {
  const node = await createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: { identify: identify(), ping: ping() },
  })
  t.teardown(() => node.stop())
  await node.handle(PROTOCOL, (stream: Stream) => {
    stream.addEventListener('message', () => stream.writeStatus === 'writable' && stream.send(bytes))
  })
  return node
}

for (const [what, { bytes, most }] of Object.entries(ANSWERS)) {
  t.test(`a DHT peer that sends ${what} costs a lookup nothing but time`, async t => {
    const hostile = await hostilePeer(t, bytes)
    const { host } = await startHost(t, { peers: hostile.getMultiaddrs().map(String) })
    await until('it is in the routing table', () => host.status().routers[0]!.tableSize === 1)
    const before = heldBytes()
    const found: Provider[] = []
    for await (const provider of host.findProviders(CID, AbortSignal.timeout(3_000))) found.push(provider)
    t.ok(found.length <= most, `${found.length} providers`)
    t.ok(found.every(({ addrs }) => addrs.length <= 16))
    t.ok(await until('nothing of it is kept', () => heldBytes() - before < 24 * 2 ** 20, 20_000))
    t.equal(host.status().state, 'running')
  })
}

t.test('a DHT server reads no more of a stranger than an honest message has', async t => {
  const server = await startHost(t, { dht: 'server' })
  const stranger = await hostilePeer(t, Buffer.alloc(0))
  const streams: Stream[] = []
  for (let i = 0; i < 20; i++) {
    const stream = await stranger.dialProtocol(
      server.host.addresses.map(text => multiaddr(text)),
      PROTOCOL,
    )
    stream.send(ANSWERS['four megabytes of addresses']!.bytes)
    streams.push(stream)
  }
  t.ok(await until('every stream is cut off', () => streams.every(({ status }) => status !== 'open'), 20_000))
  const friend = await startHost(t, { peers: server.host.addresses })
  t.ok(await until('others are answered', () => friend.host.status().routers[0]!.tableSize === 1, 20_000))
})
