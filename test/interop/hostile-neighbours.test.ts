/**
 * Neighbours that misbehave, on real connections, beside a Kubo that does not: they are dropped, and what they were
 * asked for comes from it.
 */
import '../../src/core/with-resolvers.js'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import type { Connection, Stream } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { createLibp2p } from 'libp2p'
import t, { type Test } from 'tap'
import { MessageParser, type WantEntry } from '../../src/bitswap/message-parser.js'
import { encodeMessage } from '../../src/bitswap/message-writer.js'
import type { StatusReport } from '../../src/daemon/control-protocol.js'
import { frame, Recorder } from '../bitswap/support.js'
import { pattern, sha256 } from '../support/dag.js'
import { KuboNode, missingKubo } from '../support/kubo.js'
import { Mount } from '../support/mount.js'
import { atEnd, tempDir } from '../support/temp.js'
import { until } from '../support/until.js'

t.setTimeout(110_000)
const skip = await missingKubo()
const PROTOCOL = '/ipfs/bitswap/1.2.0'
const MIB = 1024 * 1024
const RAW_SHA256 = Uint8Array.of(1, 0x55, 0x12, 32)

/** What a neighbour sends for a block that it was asked for. */
type Misdeed = (send: (bytes: Uint8Array) => void) => void

/** A node that says it has everything, and does something else than to send it. */
class BadNeighbour {
  asked = 0
  ends = 0
  readonly #misdeed: Misdeed
  #out: Promise<Stream> | undefined

  private constructor(misdeed: Misdeed) {
    this.#misdeed = misdeed
  }

  static async start(t: Test, misdeed: Misdeed): Promise<{ neighbour: BadNeighbour; address: string }> {
    const node = await createLibp2p({
      addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
      transports: [tcp()],
      connectionEncrypters: [noise()],
      streamMuxers: [yamux()],
      services: { identify: identify() },
    })
    atEnd(t, () => Promise.resolve(node.stop()))
    const neighbour = new BadNeighbour(misdeed)
    await node.handle(PROTOCOL, (stream, connection) => neighbour.#receive(stream, connection))
    node.addEventListener('peer:disconnect', () => {
      neighbour.ends++
      neighbour.#out = undefined
    })
    return { neighbour, address: String(node.getMultiaddrs()[0]) }
  }

  #receive(stream: Stream, connection: Connection): void {
    const answer = (entry: WantEntry) => this.#answer(entry, connection)
    const parser = new MessageParser(Object.assign(new Recorder(), { want: answer }))
    stream.addEventListener('message', ({ data }) => parser.push(data.subarray()))
  }

  #answer({ cid, cancel, have }: WantEntry, connection: Connection): void {
    if (cancel) return
    if (!have) this.asked++
    this.#out ??= connection.newStream(PROTOCOL)
    const out = this.#out
    const send = (bytes: Uint8Array) => void out.then(stream => stream.send(bytes)).catch(() => {})
    send(frame(encodeMessage({ presences: [{ cid, has: true }] })))
    if (!have) this.#misdeed(send)
  }
}

const RUBBISH = frame(encodeMessage({ blocks: [{ prefix: RAW_SHA256, bytes: pattern(MIB, 666) }] }))
let halves = 0

const MISDEEDS: Record<string, Misdeed> = {
  'wrong bytes': send => send(RUBBISH),
  'garbage frames': send => send(Buffer.alloc(1000, 0xff)),
  'nothing at all': () => {},
  'half of a message, and nothing more': send => {
    if (halves++ === 0) send(RUBBISH.subarray(0, MIB / 2))
  },
}

async function digest(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path)) hash.update(chunk)
  return hash.digest('hex')
}

t.test(
  'neighbours that send wrong bytes, garbage, half or nothing are dropped, and a good one is read from',
  { skip },
  async t => {
    const content = pattern(48 * MIB, 31)
    const kubo = await KuboNode.start(t, { profiles: ['unixfs-v1-2025'] })
    const file = join(await tempDir(t), 'file')
    await writeFile(file, content)
    const cid = await kubo.add(file)
    const bad = new Map<string, BadNeighbour>()
    const args = ['--peer', (await kubo.addresses())[0]!]
    for (const [what, misdeed] of Object.entries(MISDEEDS)) {
      const { neighbour, address } = await BadNeighbour.start(t, misdeed)
      bad.set(what, neighbour)
      args.push('--peer', address)
    }
    const mount = await Mount.start(t, { args })
    await until('all are connected', async () => {
      const { node } = await mount.json<StatusReport>(['status', mount.dir])
      return node?.peers.filter(peer => peer.bitswap).length === bad.size + 1
    })
    const begin = performance.now()
    t.equal(await digest(mount.path('ipfs', cid)), sha256(content))
    t.comment(`${Math.round(performance.now() - begin)} ms`)
    for (const [what, neighbour] of bad)
      t.ok(neighbour.asked > 0, `${what}: asked for ${neighbour.asked} blocks`)
    const reasons = new Map<string, string>()
    const dropped = async (): Promise<boolean> => {
      const { node } = await mount.json<StatusReport>(['status', mount.dir])
      for (const { peerId, reason } of node?.bitswap?.banned ?? []) reasons.set(peerId, reason)
      return reasons.size === bad.size && [...bad.values()].every(neighbour => neighbour.ends > 0)
    }
    await until('all are dropped', dropped, 60_000)
    t.match((await mount.cli(['status', mount.dir])).stdout, /dropped {2}12D3KooW\w+: it /)
    const why = [...reasons.values()].join('; ')
    for (const reason of [/it broke the protocol/, /no block it was asked for/, /silent|does not send/])
      t.match(why, reason)
  },
)
