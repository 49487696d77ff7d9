/**
 * Neighbours that misbehave, on real connections, beside a Kubo that does not: they are dropped, and what they were
 * asked for comes from it.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { BitswapHandler, BitswapVersion, InboundStream, PeerLink } from '../../src/bitswap/link.js'
import { MessageParser, type WantEntry } from '../../src/bitswap/message-parser.js'
import { encodeMessage, type OutgoingMessage } from '../../src/bitswap/message-writer.js'
import type { StatusReport } from '../../src/daemon/control-protocol.js'
import { Host } from '../../src/p2p/host.js'
import { Recorder } from '../bitswap/support.js'
import { pattern, sha256 } from '../support/dag.js'
import { KuboNode, missingKubo } from '../support/kubo.js'
import { Mount } from '../support/mount.js'
import { atEnd, tempDir } from '../support/temp.js'
import { until } from '../support/until.js'

t.setTimeout(110_000)
const skip = await missingKubo()
const MIB = 1024 * 1024
const RAW_SHA256 = Uint8Array.of(1, 0x55, 0x12, 32)

/** What a neighbour sends for a block that it was asked for; undefined: nothing. */
type Misdeed = (link: PeerLink) => Promise<void> | undefined

/** A node that says it has everything, and does something else than to send it. */
class BadNeighbour implements BitswapHandler {
  asked = 0
  connections = 0
  ends = 0
  readonly #misdeed: Misdeed
  #link: PeerLink | undefined

  constructor(misdeed: Misdeed) {
    this.#misdeed = misdeed
  }

  static async start(t: Test, misdeed: Misdeed): Promise<{ neighbour: BadNeighbour; address: string }> {
    const neighbour = new BadNeighbour(misdeed)
    const config = {
      stateDir: await tempDir(t),
      userAgent: 'bad',
      listen: ['/ip4/127.0.0.1/tcp/0'],
      listenElsewhere: false,
      bootstrap: [],
      peers: [],
      routers: [],
      dht: 'off',
      mdns: false,
      serve: 'off',
      dial: 'any',
    } as const
    const host = await Host.start(
      { ...config, listen: [...config.listen], bootstrap: [], peers: [], routers: [] },
      { bitswap: neighbour },
    )
    atEnd(t, () => host.stop())
    return { neighbour, address: host.addresses[0]! }
  }

  connected(link: PeerLink): void {
    this.#link = link
    this.connections++
  }

  disconnected(): void {
    this.ends++
    this.#link = undefined
  }

  inbound(_peerId: string, _version: BitswapVersion): InboundStream {
    const parser = new MessageParser(
      Object.assign(new Recorder(), { want: (entry: WantEntry) => this.#answer(entry) }),
    )
    return { data: chunk => void parser.push(chunk), end: () => {} }
  }

  #answer({ cid, cancel, have }: WantEntry): void {
    const link = this.#link
    if (link === undefined || cancel) return
    if (!have) this.asked++
    const sent = have ? say(link, { presences: [{ cid, has: true }] }) : this.#misdeed(link)
    sent?.catch(() => {}) // it has been dropped
  }
}

function say(link: PeerLink, message: OutgoingMessage): Promise<void> {
  return link.send(encodeMessage(message))
}

const MISDEEDS: Record<string, Misdeed> = {
  'wrong bytes': link => say(link, { blocks: [{ prefix: RAW_SHA256, bytes: pattern(MIB, 666) }] }),
  'garbage frames': link => link.send([Buffer.alloc(1000, 0xff)]),
  'nothing at all': () => undefined,
  // a block of 2 MiB is announced, and a little of it sent: the length of the frame is that of what was sent
  'half of a message': link => link.send([Uint8Array.of(0x1a, 0x80, 0x80, 0x40), new Uint8Array(100)]),
}

async function digest(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path)) hash.update(chunk)
  return hash.digest('hex')
}

t.test(
  'neighbours that send wrong bytes, garbage or nothing are dropped, and a good one is read from',
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
    for (const [what, neighbour] of bad) {
      t.ok(neighbour.asked > 0, `${what}: asked for ${neighbour.asked} blocks`)
      await until(`${what}: dropped`, () => neighbour.ends > 0, 30_000)
    }
    t.equal(await digest(mount.path('ipfs', cid)), sha256(content), 'and what was read stays right')
  },
)
