/** The older versions of the protocol, spoken with a real Kubo: it takes what it is offered. */
import '../../src/core/with-resolvers.js'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import type { Connection, Stream } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import t, { type Test } from 'tap'
import { Bitswap } from '../../src/bitswap/bitswap.js'
import { linksOf } from '../../src/bitswap/dag-links.js'
import type { BitswapVersion, PeerLink } from '../../src/bitswap/link.js'
import { CID, CODEC_DAG_PB, parseCid } from '../../src/core/cid.js'
import { FileSupply, frame, type TestBlock } from '../bitswap/support.js'
import { Dag, pattern, sha256 } from '../support/dag.js'
import { KuboNode, missingKubo } from '../support/kubo.js'
import { atEnd, tempDir } from '../support/temp.js'

t.setTimeout(110_000)
const skip = await missingKubo()
const MIB = 1024 * 1024

/** A node that speaks one version only, connected to a Kubo. */
async function connect(
  t: Test,
  kubo: KuboNode,
  version: BitswapVersion,
  supply: FileSupply,
): Promise<Bitswap> {
  const protocol = `/ipfs/bitswap/${version}`
  const bitswap = new Bitswap({ supply })
  const node = await createLibp2p({
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: { identify: identify() },
  })
  atEnd(t, async () => {
    await bitswap.close()
    await node.stop()
  })
  await node.handle(protocol, (stream, { remotePeer }) => receive(bitswap, stream, `${remotePeer}`, version))
  const connection = await node.dial(multiaddr((await kubo.addresses())[0]!))
  bitswap.connected(linkOver(connection, protocol, version))
  return bitswap
}

function receive(bitswap: Bitswap, stream: Stream, peerId: string, version: BitswapVersion): void {
  const inbound = bitswap.inbound(peerId, version)
  stream.addEventListener('message', ({ data }) => void inbound.data(data.subarray()))
  stream.addEventListener('close', () => inbound.end())
}

function linkOver(connection: Connection, protocol: string, version: BitswapVersion): PeerLink {
  let out: Promise<Stream> | undefined
  return {
    peerId: `${connection.remotePeer}`,
    version,
    send: async pieces => {
      out ??= connection.newStream(protocol)
      const stream = await out
      if (!stream.send(frame(pieces))) await stream.onDrain()
    },
    drop: reason => connection.abort(new Error(reason)),
  }
}

for (const version of ['1.1.0', '1.0.0'] as const) {
  t.test(`blocks are read from a Kubo, and sent to it, over ${version}`, { skip }, async t => {
    const kubo = await KuboNode.start(t)
    const [dir, content] = [await tempDir(t), pattern(3 * MIB, 1)]
    await writeFile(join(dir, 'file'), content)
    const root = parseCid(await kubo.add(join(dir, 'file'), ['--cid-version=0', '--raw-leaves=false']))
    const ours: TestBlock[] = []
    const dag = new Dag({ add: (cid, bytes) => ours.push({ cid, bytes }) })
    const ourContent = pattern(MIB, 2)
    const ourRoot = await dag.import([{ content: ourContent }], {
      cidVersion: 0,
      rawLeaves: false,
      profile: 'unixfs-v0-2015',
    })
    const bitswap = await connect(t, kubo, version, await FileSupply.create(dir, ours))
    const get = (cid: CID) => bitswap.client.get(cid, { signal: AbortSignal.timeout(20_000) })

    const leaves = linksOf(await get(root)).map(bytes => CID.decode(bytes))
    t.equal(leaves.length, 12)
    const sizes = (await Promise.all(leaves.map(get))).map(bytes => bytes.length)
    t.ok(sizes.every(size => size > 256 * 1024))
    t.equal(sha256(await kubo.cat(`/ipfs/${ourRoot}`)), sha256(ourContent))
    t.equal(bitswap.report.served.blocks, ours.length)
    t.equal(ourRoot.code, CODEC_DAG_PB)
    t.same(bitswap.report.banned, [])
  })
}
