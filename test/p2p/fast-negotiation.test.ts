import '../../src/core/with-resolvers.js'
import { randomBytes } from 'node:crypto'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import type { Connection, Libp2p, Stream } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { createLibp2p } from 'libp2p'
import t, { type Test } from 'tap'
import { takeStreams } from '../../src/p2p/fast-negotiation.js'
import { until } from '../support/until.js'

const TAKEN = '/cidfs/test/taken'
const OTHER = '/cidfs/test/other'
const HEADER = '\x13/multistream/1.0.0\n'

async function startNode(t: Test): Promise<Libp2p> {
  const node = await createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [tls()],
    streamMuxers: [yamux()],
    services: { identify: identify() },
  })
  t.teardown(() => node.stop())
  return node
}

/** What came on a stream, and whether its end. */
interface Heard {
  protocol: string
  bytes: Buffer
  ended: boolean
}

function hear(stream: Stream): Heard {
  const heard: Heard = { protocol: stream.protocol, bytes: Buffer.alloc(0), ended: false }
  stream.addEventListener('message', ({ data }) => {
    heard.bytes = Buffer.concat([heard.bytes, data.subarray()])
  })
  stream.addEventListener('end', () => {
    heard.ended = true
    void stream.close().catch(() => {})
  })
  return heard
}

/** A node that takes streams of one protocol itself and leaves another to libp2p, and one to open streams. */
async function startPair(t: Test, onTake: (stream: Stream) => void = () => {}) {
  const [listener, dialler] = [await startNode(t), await startNode(t)]
  const taken: Heard[] = []
  const negotiated: Heard[] = []
  listener.addEventListener('connection:open', ({ detail }) => {
    takeStreams(detail, [TAKEN], (stream, connection) => {
      if (!connection.remotePeer.equals(dialler.peerId)) throw new Error('of another connection')
      taken.push(hear(stream))
      onTake(stream)
    })
  })
  for (const protocol of [TAKEN, OTHER]) {
    const options = { maxInboundStreams: 10_000 }
    await listener.handle(protocol, stream => void negotiated.push(hear(stream)), options)
  }
  const connection = await dialler.dial(listener.getMultiaddrs()[0]!)
  return { listener, dialler, connection, taken, negotiated }
}

/** A stream on which nothing has been said. */
function bareStream(connection: Connection): Promise<Stream> {
  const { muxer } = connection as unknown as { muxer: { createStream(): Promise<Stream> } }
  return muxer.createStream()
}

function proposal(protocol: string): string {
  return `${HEADER}${String.fromCharCode(protocol.length + 1)}${protocol}\n`
}

t.test('a proposal and what follows at once are taken; the answer and every byte arrive', async t => {
  const { connection, taken, negotiated } = await startPair(t)
  const stream = await bareStream(connection)
  const reply = hear(stream)
  const bytes = randomBytes(300_000)
  stream.send(Buffer.concat([Buffer.from(proposal(TAKEN), 'latin1'), bytes.subarray(0, 1000)]))
  stream.send(bytes.subarray(1000))
  await stream.close()
  await until('it has ended there', () => taken[0]?.ended)
  t.same(taken, [{ protocol: TAKEN, bytes, ended: true }])
  await until('the answer came', () => reply.bytes.toString('latin1') === proposal(TAKEN))
  await until('it has ended here', () => reply.ended)
  t.same(negotiated, [])
})

t.test('a proposal with nothing behind it is taken too', async t => {
  const { dialler, listener, taken } = await startPair(t)
  const stream = await dialler.dialProtocol(listener.getMultiaddrs()[0]!, TAKEN)
  stream.send(Buffer.from('hello'))
  await until('it came', () => taken[0]?.bytes.toString() === 'hello')
  t.equal(stream.protocol, TAKEN)
})

t.test('every other stream is left to libp2p, with all its bytes', async t => {
  const { dialler, listener, connection, taken, negotiated } = await startPair(t)
  const address = listener.getMultiaddrs()[0]!
  const other = await dialler.dialProtocol(address, OTHER)
  other.send(Buffer.from('other'))
  await until('a stream of another protocol came', () => negotiated[0]?.bytes.toString() === 'other')
  const pieces = await bareStream(connection)
  for (const piece of proposal(TAKEN)) {
    pieces.send(Buffer.from(piece, 'latin1'))
    await new Promise(setImmediate)
  }
  pieces.send(Buffer.from('in pieces'))
  await until('a proposal in pieces was negotiated', () => negotiated[1]?.bytes.toString() === 'in pieces')
  const second = await dialler.dialProtocol(address, ['/cidfs/test/unknown', TAKEN])
  second.send(Buffer.from('second choice'))
  await until('so was a second choice', () => negotiated[2]?.bytes.toString() === 'second choice')
  t.same(taken, [])
})

t.test('streams that say nothing do not keep others from being taken, and nonsense ends', async t => {
  const { connection, taken, negotiated } = await startPair(t)
  for (let i = 0; i < 100; i++) await bareStream(connection)
  const nonsense = await bareStream(connection)
  nonsense.send(randomBytes(5000))
  await until('nonsense was reset', () => nonsense.status !== 'open')
  for (let opened = 1; taken.length === 0; opened++) {
    const stream = await bareStream(connection)
    stream.send(Buffer.from(proposal(TAKEN), 'latin1'))
    await until('it arrived, one way or the other', () => taken.length + negotiated.length === opened)
  }
})

t.test('a stream that is refused, or that is cut while it is looked at, ends alone', async t => {
  const refuse = () => {
    throw new Error('no more of them')
  }
  const { connection } = await startPair(t, refuse)
  const cut = await bareStream(connection)
  cut.abort(new Error('changed my mind'))
  const stream = await bareStream(connection)
  stream.send(Buffer.from(proposal(TAKEN), 'latin1'))
  await until('it was reset', () => stream.status !== 'open')
  t.equal(connection.status, 'open')
})
