import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import t from 'tap'
import { CODEC_RAW, cidOf } from '../../src/core/cid.js'
import { until } from '../support/until.js'
import { startHost } from './support.js'

t.setTimeout(60_000)

const CID = cidOf(CODEC_RAW, Uint8Array.of(1))
const soon = () => AbortSignal.timeout(10_000)
const provider = (host: { peerId: string; addresses: string[] }) => ({
  id: host.peerId,
  addrs: host.addresses,
})

t.test('two nodes that connect hear of each other once, and of the end once', async t => {
  const a = await startHost(t)
  const b = await startHost(t)
  await a.host.connect(provider(b.host), soon())
  t.ok(a.bitswap.links.has(b.host.peerId), 'it is known when connect resolves')
  await until('the other has heard', () => b.bitswap.links.has(a.host.peerId))
  await a.host.connect(provider(b.host), soon())
  t.same(a.bitswap.events, [`+${b.host.peerId}`])
  t.equal(a.bitswap.links.get(b.host.peerId)?.version, '1.2.0')
  await b.host.stop()
  await until('the end is told', () => a.bitswap.events.length === 2)
  t.same(a.bitswap.events, [`+${b.host.peerId}`, `-${b.host.peerId}`])
  t.same(b.bitswap.events, [`+${a.host.peerId}`, `-${a.host.peerId}`], 'also here, where it stopped')
})

t.test('messages arrive whole, in order, and are counted', async t => {
  const a = await startHost(t)
  const b = await startHost(t)
  await a.host.connect(provider(b.host), soon())
  const link = a.bitswap.links.get(b.host.peerId)!
  const messages = Array.from({ length: 50 }, (_, i) => Buffer.alloc(1 + i * 3_000, i))
  await Promise.all(messages.map(message => link.send([message.subarray(0, 1), message.subarray(1)])))
  const expected = Buffer.concat(messages.flatMap(message => [varint(message.length), message]))
  await until('all have come', () => b.bitswap.receivedBytes(a.host.peerId) === expected.length)
  t.ok(Buffer.concat(b.bitswap.received.get(a.host.peerId)!).equals(expected))
  t.equal(a.host.status().bytesOut, expected.length)
  t.equal(b.host.status().bytesIn, expected.length)
})

t.test('a consumer that waits holds the sender back', async t => {
  const a = await startHost(t)
  const b = await startHost(t)
  let release = () => {}
  b.bitswap.take = () => new Promise(resolve => (release = resolve))
  await a.host.connect(provider(b.host), soon())
  const link = a.bitswap.links.get(b.host.peerId)!
  const block = new Uint8Array(2 * 1024 * 1024)
  const sent = Promise.allSettled(Array.from({ length: 20 }, () => link.send([block])))
  await until('something has come', () => b.bitswap.received.size > 0)
  const came = b.bitswap.receivedBytes(a.host.peerId)
  t.ok(came < 4 * 1024 * 1024, `${came} bytes came`)
  b.bitswap.take = () => undefined
  release()
  const results = await sent
  const taken = results.filter(({ status }) => status === 'fulfilled').length
  t.ok(taken >= 1 && taken < 20, `${taken} of 20 messages: the rest exceeded the queue`)
  const total = taken * (block.length + varint(block.length).length)
  t.ok(await until('what was taken has come', () => b.bitswap.receivedBytes(a.host.peerId) === total))
})

t.test('a peer that is dropped is gone at both ends, and stays out for a while', async t => {
  const a = await startHost(t)
  const b = await startHost(t)
  await a.host.connect(provider(b.host), soon())
  await until('both know', () => b.bitswap.links.size === 1)
  a.bitswap.links.get(b.host.peerId)!.drop('it sent nonsense')
  await until('both have heard', () => a.bitswap.links.size + b.bitswap.links.size === 0)
  await t.rejects(a.host.connect(provider(b.host), soon()), /gater/)
  await t.rejects(
    b.host.connect(provider(a.host), soon()).then(() => {
      if (!b.bitswap.links.has(a.host.peerId)) throw new Error('not let in')
    }),
  )
  t.equal(a.bitswap.links.size, 0)
})

t.test('a consumer that throws costs the peer its connection', async t => {
  const a = await startHost(t)
  const b = await startHost(t)
  b.bitswap.take = () => {
    throw new Error('nonsense')
  }
  await a.host.connect(provider(b.host), soon())
  await a.bitswap.links.get(b.host.peerId)!.send([Uint8Array.of(1)])
  await until('it is dropped', () => a.bitswap.links.size === 0)
  t.equal(b.bitswap.ended, 1)
})

t.test('a send to a peer that is gone fails', async t => {
  const a = await startHost(t)
  const b = await startHost(t)
  await a.host.connect(provider(b.host), soon())
  const link = a.bitswap.links.get(b.host.peerId)!
  await b.host.stop()
  await until('it is gone', () => a.bitswap.links.size === 0)
  await t.rejects(link.send([Uint8Array.of(1)]))
})

t.test('a private address that a record names is not even tried', async t => {
  let knocks = 0
  const server = createServer(socket => {
    knocks++
    socket.destroy()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => void server.close())
  const { port } = server.address() as AddressInfo
  const addrs = [`/ip4/127.0.0.1/tcp/${port}`, `/dns4/localhost/tcp/${port}`, `/ip6/::1/tcp/${port}`]
  const id = (await startHost(t)).host.peerId
  const open = await startHost(t, { dial: 'public', dht: 'off' })
  await t.rejects(open.host.connect({ id, addrs }, soon()), /gater/)
  t.equal(knocks, 0)
  const isolated = await startHost(t)
  await t.rejects(isolated.host.connect({ id, addrs }, soon()))
  t.equal(knocks, 1, 'an isolated node may')
})

t.test('addresses that are nonsense, or of another peer, are passed over', async t => {
  const a = await startHost(t)
  const b = await startHost(t)
  const other = (await startHost(t)).host
  const addrs = ['', '/', 'x', '/ip4/1.2.3/tcp/1', '/ip4/127.0.0.1/tcp/99999', ...other.addresses]
  await a.host.connect({ id: b.host.peerId, addrs: [...addrs, ...b.host.addresses] }, soon())
  t.same([...a.bitswap.links.keys()], [b.host.peerId])
  await t.rejects(a.host.connect({ id: 'nonsense', addrs: [] }, soon()))
})

t.test('one that claims to be another peer is not let in', async t => {
  const a = await startHost(t)
  const b = await startHost(t)
  const claimed = (await startHost(t)).host.peerId
  const addrs = b.host.addresses.map(address => address.replace(/\/p2p\/.*/, ''))
  await t.rejects(a.host.connect({ id: claimed, addrs }, soon()))
  t.equal(a.bitswap.links.size, 0)
})

t.test('named peers are dialled at the start, shown when they are missing, and dialled again', async t => {
  const b = await startHost(t)
  const a = await startHost(t, { peers: b.host.addresses })
  await until('they are connected', () => a.bitswap.links.size === 1)
  t.match(a.host.status().peers, [{ id: b.host.peerId, named: true, bitswap: true, direction: 'outbound' }])
  t.same(a.host.status().missing, [])
  await b.host.stop()
  await until('it is missed', () => a.host.status().missing.length === 1)
  await until('the reason is known', () => a.host.status().missing[0]?.error !== null)
})

t.test('bootstrap peers are dialled, at the address that is configured', async t => {
  const b = await startHost(t)
  const a = await startHost(t, { bootstrap: b.host.addresses, dial: 'public' })
  await until('they are connected', () => a.bitswap.links.size === 1)
  t.match(a.host.status().peers, [{ id: b.host.peerId, named: false }])
})

t.test('a DHT server tells others who provides what, and where peers are', async t => {
  const server = await startHost(t, { dht: 'server' })
  const holder = await startHost(t, { dht: 'server', peers: server.host.addresses })
  const seeker = await startHost(t, { peers: server.host.addresses })
  const tables = () => [holder, seeker].every(({ host }) => host.status().routers[0]!.tableSize! > 0)
  await until('all know the server', tables)
  t.ok((await holder.host.routing.provide(CID, soon())) >= 1)
  const found = []
  for await (const peer of seeker.host.findProviders(CID, soon())) found.push(peer)
  t.match(found, [{ id: holder.host.peerId, addrs: [/^\/ip4\/127\.0\.0\.1\/tcp\//] }])
  await seeker.host.connect({ id: holder.host.peerId, addrs: [] }, soon())
  t.ok(seeker.bitswap.links.has(holder.host.peerId), 'found by its id alone')
})

t.test('without any peer of the DHT a lookup ends after the time to find one, with nothing', async t => {
  const { host } = await startHost(t)
  const found = []
  for await (const peer of host.findProviders(CID, AbortSignal.timeout(30_000))) found.push(peer)
  t.same(found, [])
  t.match(host.status().routers, [{ tableSize: 0, errors: 1, lastError: /no peer of this DHT/ }])
})

function varint(value: number): Buffer {
  const bytes = []
  for (; value > 0x7f; value >>>= 7) bytes.push((value & 0x7f) | 0x80)
  return Buffer.from([...bytes, value])
}

t.test('an address that is announced is told to peers', async t => {
  const announced = '/ip4/8.8.8.8/tcp/4001'
  const a = await startHost(t, { announce: [announced] })
  t.equal(a.host.status().reachable, 'public')
  t.ok(a.host.addresses.some(address => address.startsWith(announced)))
  t.equal((await startHost(t)).host.status().reachable, 'local')
  t.equal((await startHost(t, { listen: [] })).host.status().reachable, 'no')
})
