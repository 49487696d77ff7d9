import '../../src/core/with-resolvers.js'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import type { Libp2p, Stream } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import t, { type Test } from 'tap'
import { drained } from '../../src/p2p/drained.js'
import { fastTls } from '../../src/p2p/fast-tls.js'
import { KuboNode, missingKubo } from '../support/kubo.js'
import { until } from '../support/until.js'

const ECHO = '/cidfs/test/echo'
const MIB = 2 ** 20
const MULTISTREAM = '\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n'
const TIMEOUT_MS = 5000
const HELD_BACK_MS = 300
const IDLE_MS = 3000

type Encrypters = { fast: ReturnType<typeof fastTls>; stock: ReturnType<typeof tls> }
const ENCRYPTERS: Encrypters = { fast: fastTls(), stock: tls() }

/** A node on loopback that echoes; it ends with the test. */
async function startNode(t: Test, encrypter: keyof Encrypters, idleMs?: number): Promise<Libp2p> {
  const limits = idleMs && { inboundSocketInactivityTimeout: idleMs, outboundSocketInactivityTimeout: idleMs }
  const node = await createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp(limits || {})],
    connectionEncrypters: [ENCRYPTERS[encrypter]],
    streamMuxers: [yamux({ enableKeepAlive: idleMs === undefined })],
    connectionMonitor: { enabled: idleMs === undefined },
    connectionManager: { inboundUpgradeTimeout: TIMEOUT_MS },
    services: { identify: identify() },
  })
  t.teardown(() => node.stop())
  await node.handle(ECHO, echo)
  return node
}

/** Sends back what comes, as fast as it is taken. */
async function echo(stream: Stream): Promise<void> {
  stream.addEventListener('message', ({ data }) => {
    if (stream.send(data.subarray().slice())) return
    stream.pause()
    drained(stream).then(
      () => stream.resume(),
      () => {},
    )
  })
  stream.addEventListener('remoteCloseWrite', () => void stream.close().catch(() => {}))
}

function addressOf(node: Libp2p): Multiaddr {
  return node.getMultiaddrs()[0]!
}

/** Sends so many bytes, waiting for room, and returns whether they came back. */
async function isEchoed(node: Libp2p, to: Multiaddr, sizeBytes: number): Promise<boolean> {
  const stream = await node.dialProtocol(to, ECHO, { signal: AbortSignal.timeout(TIMEOUT_MS) })
  const sent = randomBytes(sizeBytes)
  const received: Uint8Array[] = []
  let receivedBytes = 0
  stream.addEventListener('message', ({ data }) => {
    received.push(data.subarray().slice())
    receivedBytes += data.byteLength
  })
  for (let at = 0; at < sent.length; at += 128 * 1024) {
    if (!stream.send(sent.subarray(at, at + 128 * 1024))) await drained(stream)
  }
  await until('everything came back', () => receivedBytes >= sizeBytes, 20_000)
  await stream.close()
  return Buffer.concat(received).equals(sent)
}

/** Whether TLS works on the socket of a connection, not on a stream of JavaScript: only a socket has a port. */
function isOnSocket(node: Libp2p): boolean[] {
  return node.getConnections().map(connection => {
    const { muxer } = connection as unknown as { muxer: { maConn: { socket: Socket } } }
    return muxer.maConn.socket.remotePort !== undefined
  })
}

/** Whether there is room again before long. */
async function isDrained(stream: Stream): Promise<boolean> {
  return Promise.race([drained(stream).then(() => true), sleep(HELD_BACK_MS, false)])
}

function sockets(): number {
  return process.getActiveResourcesInfo().filter(name => name === 'TCPSocketWrap').length
}

/** A server of plain sockets, all of which end with the test. */
async function listen(t: Test, onConnection: (socket: Socket) => void): Promise<Multiaddr> {
  const server = createServer(socket => {
    socket.on('error', () => {})
    t.teardown(() => socket.destroy())
    onConnection(socket)
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  t.teardown(() => server.close())
  return multiaddr(`/ip4/127.0.0.1/tcp/${(server.address() as AddressInfo).port}`)
}

/** A socket to a node that has chosen TLS and waits for what we say. */
async function dialRaw(t: Test, node: Libp2p): Promise<Socket> {
  const { port, host } = toNetAddress(addressOf(node))
  const socket = connectTcp(port, host)
  socket.on('error', () => {})
  t.teardown(() => socket.destroy())
  socket.write(MULTISTREAM)
  let heard = ''
  while (heard.length < MULTISTREAM.length) heard += String((await once(socket, 'data'))[0])
  t.equal(heard, MULTISTREAM)
  return socket
}

function toNetAddress(address: Multiaddr): { host: string; port: number } {
  const [, , host, , port] = address.toString().split('/')
  return { host: host!, port: Number(port) }
}

for (const [dialler, listener] of [
  ['fast', 'fast'],
  ['fast', 'stock'],
  ['stock', 'fast'],
] as const) {
  t.test(`${dialler} dials ${listener}: each knows the other, and bytes pass both ways`, async t => {
    const [a, b] = [await startNode(t, dialler), await startNode(t, listener)]
    t.equal(await isEchoed(a, addressOf(b), 16 * MIB), true)
    const [there] = a.getConnections()
    t.equal(there?.encryption, '/tls/1.0.0')
    t.equal(there?.multiplexer, '/yamux/1.0.0')
    t.ok(there?.remotePeer.equals(b.peerId))
    t.ok(b.getConnections()[0]?.remotePeer.equals(a.peerId))
    t.same([isOnSocket(a), isOnSocket(b)], [[dialler === 'fast'], [listener === 'fast']])
  })
}

t.test('a peer that is not whom we dialled is refused, and no socket is left', async t => {
  const [a, b, c] = [await startNode(t, 'fast'), await startNode(t, 'fast'), await startNode(t, 'fast')]
  const { host, port } = toNetAddress(addressOf(b))
  const before = sockets()
  const wrong = multiaddr(`/ip4/${host}/tcp/${port}/p2p/${c.peerId}`)
  await t.rejects(a.dial(wrong, { signal: AbortSignal.timeout(TIMEOUT_MS) }))
  await until('both ends are gone', () => sockets() <= before)
  t.same(a.getConnections(), [])
  t.equal(await isEchoed(a, addressOf(b), 1000), true, 'it can be dialled as itself')
})

t.test('one who shows no certificate, talks nonsense or hangs up gets nowhere', async t => {
  const node = await startNode(t, 'fast')
  const before = sockets()
  const anonymous = connectTls({
    socket: await dialRaw(t, node),
    rejectUnauthorized: false,
    ALPNProtocols: ['/yamux/1.0.0'],
  })
  anonymous.on('error', () => {}).resume()
  await until('it is shown the door', () => anonymous.closed)
  const nonsense = await dialRaw(t, node)
  nonsense.write(randomBytes(100_000))
  await until('so is nonsense', () => nonsense.closed)
  const gone = await dialRaw(t, node)
  gone.destroy()
  await until('no socket is left', () => sockets() <= before)
  t.same(node.getConnections(), [])
})

t.test('a peer that says nothing is given up in time, whoever dialled', async t => {
  const node = await startNode(t, 'fast')
  const before = sockets()
  const silent = await dialRaw(t, node)
  const mute = await listen(t, socket => socket.once('data', () => socket.write(MULTISTREAM)))
  await t.rejects(node.dial(mute, { signal: AbortSignal.timeout(300) }))
  await until('the one who dialled us is gone, too', () => silent.closed, TIMEOUT_MS * 2)
  silent.destroy()
  await until('no socket is left', () => sockets() <= before)
})

t.test('a reader that holds back holds the sender back, and loses nothing', async t => {
  const [a, b] = [await startNode(t, 'fast'), await startNode(t, 'fast')]
  let receivedBytes = 0
  let held: Stream | undefined
  await b.handle('/cidfs/test/sink', stream => {
    held = stream
    stream.addEventListener('message', ({ data }) => {
      receivedBytes += data.byteLength
    })
    stream.pause()
  })
  const stream = await a.dialProtocol(addressOf(b), '/cidfs/test/sink')
  await until('it was opened there', () => held !== undefined)
  let sentBytes = 0
  for (let taken = true; taken && sentBytes < 64 * MIB; sentBytes += MIB / 16) {
    if (!stream.send(randomBytes(MIB / 16))) taken = await isDrained(stream)
  }
  t.ok(sentBytes < 8 * MIB, `${sentBytes} bytes were taken`)
  t.equal(receivedBytes, 0)
  held?.resume()
  await until('all of it arrives', () => receivedBytes === sentBytes)
})

t.test('a connection that is cut in the middle leaves nothing behind', async t => {
  const [a, b] = [await startNode(t, 'fast'), await startNode(t, 'fast')]
  const before = sockets()
  for (const cut of [a, b]) {
    const stream = await a.dialProtocol(addressOf(b), ECHO)
    const closed = once(stream as unknown as EventTarget, 'close')
    for (let i = 0; i < 64 && stream.send(randomBytes(MIB / 16)); i++);
    for (const connection of cut.getConnections()) connection.abort(new Error('cut'))
    await closed
    await until('both have noticed', () => a.getConnections().length + b.getConnections().length === 0)
    await until('no socket is left', () => sockets() <= before)
  }
})

t.test('a connection that is used outlives the limit for idle ones, and no other does', async t => {
  const [a, b] = [await startNode(t, 'fast', IDLE_MS), await startNode(t, 'fast', IDLE_MS)]
  const stream = await a.dialProtocol(addressOf(b), ECHO)
  for (const end = performance.now() + IDLE_MS * 1.5; performance.now() < end; ) {
    const answer = once(stream as unknown as EventTarget, 'message')
    stream.send(Buffer.from('are you there?'))
    await answer
    await sleep(IDLE_MS / 100)
  }
  t.same([a.getConnections().length, b.getConnections().length], [1, 1])
  const gone = () => a.getConnections().length + b.getConnections().length === 0
  await until('it ends when it is idle', gone, IDLE_MS * 5)
})

t.test('Kubo and we find one another over TLS, whoever dials', { skip: await missingKubo() }, async t => {
  const kubo = await KuboNode.start(t)
  const [address] = await kubo.addresses()
  const [dialler, dialled] = [await startNode(t, 'fast'), await startNode(t, 'fast')]
  await dialler.dial(multiaddr(address), { signal: AbortSignal.timeout(TIMEOUT_MS) })
  await kubo.ipfs(['swarm', 'connect', addressOf(dialled).toString()])
  for (const node of [dialler, dialled]) {
    const [connection] = node.getConnections()
    t.equal(connection?.remotePeer.toString(), await kubo.peerId())
    t.equal(connection?.encryption, '/tls/1.0.0')
    t.same(isOnSocket(node), [true])
    const identified = async () => (await node.peerStore.get(connection!.remotePeer)).protocols
    await until('it was identified', async () => (await identified()).includes('/ipfs/bitswap/1.2.0'))
  }
})
