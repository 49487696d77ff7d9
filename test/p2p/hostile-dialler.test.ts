/** What strangers do to the port that a node listens on, and to a node that dials them. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { multiaddr } from '@multiformats/multiaddr'
import t from 'tap'
import { until } from '../support/until.js'
import { startHost } from './support.js'

t.setTimeout(60_000)

const ROUNDS = 40

/** A line of multistream-select. */
function line(text: string): Buffer {
  const body = Buffer.from(`${text}\n`)
  return Buffer.concat([Buffer.of(body.length), body])
}

const MULTISTREAM = line('/multistream/1.0.0')
const TLS = line('/tls/1.0.0')

let diallers = 0

/**
 * From an address of its own each time: connections of one address are limited per second. Undefined when too many
 * are being negotiated.
 */
async function dial(port: number): Promise<Socket | undefined> {
  diallers++
  const localAddress = `127.0.${1 + (diallers >> 8)}.${1 + (diallers % 250)}`
  const socket = connect({ host: '127.0.0.1', port, localAddress })
  socket.on('error', () => {})
  const connected = await once(socket, 'connect').then(
    () => true,
    () => false,
  )
  return connected ? socket : undefined
}

/** Until the node has chosen TLS. */
async function chooseTls(socket: Socket): Promise<void> {
  socket.write(Buffer.concat([MULTISTREAM, TLS]))
  let answer = ''
  while (!answer.endsWith('/tls/1.0.0\n')) {
    const [chunk] = (await once(socket, 'data')) as [Buffer]
    answer += chunk
  }
  socket.removeAllListeners('data')
}

/** A handshake that the node takes part in, without a certificate of ours. */
async function handshake(socket: Socket): Promise<ReturnType<typeof connectTls>> {
  await chooseTls(socket)
  const secure = connectTls({ socket, rejectUnauthorized: false, ALPNProtocols: ['/yamux/1.0.0', 'libp2p'] })
  secure.on('error', () => {})
  await once(secure, 'secureConnect')
  return secure
}

const ACTS: Record<string, (socket: Socket) => Promise<unknown>> = {
  'sends noise': async socket => socket.write(randomBytes(1 + Math.floor(Math.random() * 5_000))),
  'sends noise after the header': async socket =>
    socket.write(Buffer.concat([MULTISTREAM, randomBytes(500)])),
  'asks for what nobody speaks': async socket =>
    socket.write(Buffer.concat([MULTISTREAM, ...Array.from({ length: 100 }, () => line('/x'))])),
  'sends noise instead of a handshake': async socket => {
    await chooseTls(socket)
    socket.write(randomBytes(2_000))
  },
  'hangs up before the handshake': async socket => {
    await chooseTls(socket)
    socket.resetAndDestroy()
  },
  'shows no certificate': async socket => {
    await handshake(socket)
  },
  'shows no certificate and goes on': async socket => {
    const secure = await handshake(socket)
    secure.write(randomBytes(5_000))
  },
  'hangs up in the middle of the handshake': async socket => {
    await chooseTls(socket)
    const secure = connectTls({ socket, rejectUnauthorized: false })
    secure.on('error', () => {})
    await once(secure, 'keylog')
    await new Promise(resolve => setImmediate(resolve)) // this event runs inside of OpenSSL
    socket.resetAndDestroy()
  },
  'hangs up after the handshake': async socket => {
    await handshake(socket)
    socket.resetAndDestroy()
  },
}

for (const [what, act] of Object.entries(ACTS)) {
  t.test(`one that ${what} is not let in, and hurts nobody else`, async t => {
    const { host, bitswap } = await startHost(t, { dht: 'off' })
    const port = Number(multiaddr(host.addresses[0]!).getComponents()[1]?.value)
    const sockets: Socket[] = []
    t.teardown(() => sockets.forEach(socket => void socket.destroy()))
    for (let i = 0; i < ROUNDS; i++) {
      const socket = await dial(port)
      if (socket === undefined) continue
      sockets.push(socket)
      await act(socket)
    }
    const friend = await startHost(t, { dht: 'off' })
    const address = { id: host.peerId, addrs: host.addresses }
    const tryToConnect = async () => {
      await friend.host.connect(address, AbortSignal.timeout(5_000)).catch(() => {})
      return bitswap.links.has(friend.host.peerId)
    }
    t.ok(await until('a peer in good order is let in', tryToConnect, 20_000))
    t.equal(host.status().connections, 1)
  })
}

const GREETINGS: Record<string, (socket: Socket) => void> = {
  'sends noise': socket => void socket.write(randomBytes(5_000)),
  'sends noise after the header': socket =>
    void socket.write(Buffer.concat([MULTISTREAM, TLS, randomBytes(3_000)])),
  'hangs up': socket => socket.resetAndDestroy(),
  'says yes to TLS and hangs up': socket =>
    void socket.write(Buffer.concat([MULTISTREAM, TLS]), () => socket.resetAndDestroy()),
  'says nothing': () => {},
}

for (const [what, greet] of Object.entries(GREETINGS)) {
  t.test(`one that is dialled and ${what} costs the dialler nothing but time`, async t => {
    const sockets = new Set<Socket>()
    const server = createServer(socket => {
      sockets.add(socket.on('error', () => {}).resume())
      greet(socket)
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.teardown(() => {
      for (const socket of sockets) socket.destroy()
      server.close()
    })
    const { host } = await startHost(t, { dht: 'off' })
    const id = (await startHost(t, { dht: 'off' })).host.peerId
    const addrs = [`/ip4/127.0.0.1/tcp/${(server.address() as AddressInfo).port}`]
    for (let i = 0; i < 5; i++) await t.rejects(host.connect({ id, addrs }, AbortSignal.timeout(1_000)))
    await until('its sockets are closed', () => [...sockets].every(({ destroyed }) => destroyed), 20_000)
    t.equal(host.status().connections, 0)
  })
}
