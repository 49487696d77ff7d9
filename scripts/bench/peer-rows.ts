/**
 * Reading the large file from one Kubo by bitswap, as Kubo's own mount and `ipfs cat` do; and reading much more than
 * memory and disk are to hold.
 *
 * Invariant: the connection exists before a measurement begins, on all sides; what is read was on none of them.
 */
import type { StatusReport } from '../../src/daemon/control-protocol.js'
import type { Mount } from '../../test/support/mount.js'
import { until } from '../../test/support/until.js'
import { MIB, renewBig } from './content.js'
import { freshMount } from './fresh-mount.js'
import { fromPeer } from './from-peer.js'
import { readAll, type Seconds, timeCommand } from './probe.js'
import { cpuSeconds, memoryOf } from './processes.js'
import type { Row } from './row.js'
import type { Setting } from './setting.js'

const GIB = 2 ** 30
const CONNECT_MS = 20_000
/** Times as good as Kubo's mount, and as `ipfs cat`. */
const FLOORS = { mount: 2.5, cat: 1.2 }
/** Of the main thread, 99 in 100 times. */
const STALL_SECONDS = 0.02
/** What is streamed in all, and the most that the daemon may hold of it in memory. */
const STREAMED_BIG_FILES = 16
const STREAM_MEMORY_BYTES = 300 * MIB

export async function coldReadFromPeer(setting: Setting): Promise<Row> {
  const { bigBytes: sizeBytes } = setting.sizes
  const [kubos, cid, args] = [await setting.kubos(), await setting.bigCid(), await peerArgs(setting)]
  const cat = kubos.reader.node.command(['cat', cid])
  const measure = (mount: Mount) => readMeasured(mount, mount.path('ipfs', cid), sizeBytes)
  const contenders = [
    freshMount(setting, 'cidfs', { args }, measure, connected),
    fromPeer(setting, kubos, 'Kubo', () => readAll(`${kubos.reader.ipfs}/${cid}`, sizeBytes)),
    fromPeer(setting, kubos, 'ipfs cat', () => timeCommand(cat)),
  ]
  const rate = { key: 'seconds', unit: 'rate', sizeBytes } as const
  const outputs: Row['outputs'] = [
    { ...rate, title: 'read, cold, from a peer', floor: FLOORS.mount },
    { ...rate, title: 'the same, to `ipfs cat`', theirs: 'ipfs cat', floor: FLOORS.cat },
    { key: 'cpuPerGib', title: 'CPU per GiB of it', unit: 'seconds' },
    { key: 'stall', title: 'main thread late, p99', unit: 'milliseconds', atMost: STALL_SECONDS },
    { key: 'stallMax', title: 'main thread late, most', unit: 'milliseconds' },
  ]
  return { name: 'cold-peer', outputs, contenders, ...setting.machine.cacheNote }
}

/** The large file again and again, never the same; what was read is dropped, so that the disk holds one. */
export async function streamFromPeer(setting: Setting): Promise<Row> {
  const args = await peerArgs(setting)
  const contender = freshMount(setting, 'cidfs', { args }, mount => stream(setting, mount), connected)
  const outputs: Row['outputs'] = [
    {
      key: 'peak',
      title: `memory (RSS), at most, of ${STREAMED_BIG_FILES} large files`,
      unit: 'bytes',
      atMost: STREAM_MEMORY_BYTES,
    },
    { key: 'end', title: 'memory (RSS) at their end', unit: 'bytes' },
  ]
  return { name: 'stream-peer', outputs, contenders: [{ ...contender, rounds: 1 }] }
}

async function peerArgs(setting: Setting): Promise<string[]> {
  const [address] = await (await setting.kubos()).provider.node.addresses()
  return ['--peer', address!]
}

async function connected(mount: Mount): Promise<void> {
  const isConnected = async () =>
    (await statusOf(mount)).node?.peers.some(peer => peer.bitswap && peer.named) === true
  await until('the peer is connected', isConnected, CONNECT_MS)
}

function statusOf(mount: Mount): Promise<StatusReport> {
  return mount.json<StatusReport>(['status', mount.dir])
}

async function readMeasured(mount: Mount, path: string, sizeBytes: number): Promise<Seconds> {
  const before = await cpuSeconds(mount.pid)
  const { seconds } = await readAll(path, sizeBytes)
  const cpu = (await cpuSeconds(mount.pid)) - before
  const { p99Ms, maxMs } = (await statusOf(mount)).mainThread
  return {
    seconds: seconds!,
    cpuPerGib: (cpu * GIB) / sizeBytes,
    stall: p99Ms / 1000,
    stallMax: maxMs / 1000,
  }
}

async function stream(setting: Setting, mount: Mount): Promise<{ peak: number; end: number }> {
  const { provider } = await setting.kubos()
  const { bigBytes } = setting.sizes
  const file = await setting.bigToStream()
  for (let i = 0; i < STREAMED_BIG_FILES; i++) {
    renewBig(file, bigBytes)
    const cid = await provider.node.add(file, ['--pin=false'])
    await readAll(mount.path('ipfs', cid), bigBytes)
    await mount.json(['gc', mount.dir])
    await provider.node.ipfs(['repo', 'gc', '--quiet'])
  }
  const { rssBytes, peakBytes } = await memoryOf(mount.pid)
  return { peak: peakBytes, end: rssBytes }
}
