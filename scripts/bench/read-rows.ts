/** Reading the large file: from the network, from the disk, from memory; and at random places. */

import { freshMount } from './fresh-mount.js'
import { fromPeer } from './from-peer.js'
import { type Measured, readAll, readRandomly, type Seconds, timeCommand } from './probe.js'
import type { Contender, Row } from './row.js'
import type { Setting } from './setting.js'
import { percentile } from './statistics.js'

const RANDOM_BYTES = 128 * 1024
/** Times as good as Kubo's mount. */
const FLOOR = 5
const GATEWAY_FLOOR = 4

/** `reader` of the Kubos has nothing, and is connected to `provider`, which serves cidfs as well. */
export async function coldRead(setting: Setting): Promise<Row> {
  const { bigBytes: sizeBytes } = setting.sizes
  const [kubos, cid, big] = [await setting.kubos(), await setting.bigCid(), await setting.big()]
  const { gatewayUrl, rpcUrl } = kubos.provider.node
  const read = (path: string) => readAll(path, sizeBytes)
  const cat = kubos.reader.node.command(['cat', cid])
  const contenders = [
    freshMount(setting, 'cidfs', { gateways: [gatewayUrl] }, mount => read(mount.path('ipfs', cid))),
    freshMount(setting, 'by RPC', { kubo: rpcUrl }, mount => read(mount.path('ipfs', cid))),
    dropped(setting, 'raw', () => read(big)),
    fromPeer(setting, kubos, 'Kubo', () => read(`${kubos.reader.ipfs}/${cid}`)),
    fromPeer(setting, kubos, 'ipfs cat', () => timeCommand(cat)),
  ]
  const rate = { key: 'seconds', unit: 'rate', sizeBytes } as const
  const outputs = [
    { ...rate, title: 'read, cold, from a gateway', floor: GATEWAY_FLOOR },
    { ...rate, title: 'read, cold, from the RPC', ours: 'by RPC' },
  ]
  return { name: 'cold-read', outputs, contenders, ...setting.machine.cacheNote }
}

/** A contender that finds nothing in the page cache. */
export function dropped(
  setting: Setting,
  name: string,
  measure: (round: number) => Promise<Measured>,
  pids?: () => number[],
): Contender {
  return { name, prepare: () => setting.dropCaches(), measure, ...(pids && { pids }) }
}

export async function warmRead(setting: Setting): Promise<Row> {
  const { bigBytes: sizeBytes } = setting.sizes
  const [local, big] = [await setting.local(), await setting.big()]
  const contenders = [
    dropped(
      setting,
      'cidfs',
      () => readAll(local.big, sizeBytes),
      () => [local.mount.pid],
    ),
    dropped(setting, 'raw', () => readAll(big, sizeBytes)),
    ...(setting.withKubo ? await warmKubo(setting) : []),
  ]
  const output = { key: 'seconds', title: 'read, warm', unit: 'rate', sizeBytes, floor: FLOOR } as const
  return { name: 'warm-read', outputs: [output], contenders, ...setting.machine.cacheNote }
}

async function warmKubo(setting: Setting): Promise<Contender[]> {
  const { node, ipfs } = (await setting.kubos()).provider
  const cid = await setting.bigCid()
  const pids = () => [node.pid]
  const curl = ['curl', '--silent', '--fail', '--output', '/dev/null', `${node.gatewayUrl}/ipfs/${cid}`]
  return [
    dropped(setting, 'Kubo', () => readAll(`${ipfs}/${cid}`, setting.sizes.bigBytes), pids),
    dropped(setting, 'ipfs cat', () => timeCommand(node.command(['cat', cid])), pids),
    dropped(setting, 'gateway', () => timeCommand(curl), pids),
  ]
}

export async function hotRead(setting: Setting): Promise<Row> {
  const { bigBytes: sizeBytes } = setting.sizes
  const local = await setting.local()
  const contenders = [
    twice('cidfs', local.big, sizeBytes, () => [local.mount.pid]),
    twice('raw', await setting.big(), sizeBytes),
  ]
  if (setting.withKubo) {
    const { node, ipfs } = (await setting.kubos()).provider
    contenders.push(twice('Kubo', `${ipfs}/${await setting.bigCid()}`, sizeBytes, () => [node.pid]))
  }
  const output = { key: 'seconds', title: 'read, hot', unit: 'rate', sizeBytes } as const
  return { name: 'hot-read', outputs: [output], contenders }
}

/** Reads once to fill the page cache, and measures the second time. */
function twice(name: string, path: string, sizeBytes: number, pids?: () => number[]): Contender {
  return {
    name,
    prepare: async () => void (await readAll(path, sizeBytes)),
    measure: () => readAll(path, sizeBytes),
    ...(pids && { pids }),
  }
}

export async function randomRead(setting: Setting): Promise<Row> {
  const local = await setting.local()
  const measure = (path: string) => (round: number) => randomly(path, setting.sizes.randomReads, round)
  const contenders = [
    dropped(setting, 'cidfs', measure(local.big), () => [local.mount.pid]),
    dropped(setting, 'raw', measure(await setting.big())),
  ]
  if (setting.withKubo) {
    const { node, ipfs } = (await setting.kubos()).provider
    const path = `${ipfs}/${await setting.bigCid()}`
    contenders.push(dropped(setting, 'Kubo', measure(path), () => [node.pid]))
  }
  const outputs = [
    { key: 'p50', title: 'random 128 KiB, p50', unit: 'milliseconds', floor: FLOOR } as const,
    { key: 'p99', title: 'random 128 KiB, p99', unit: 'milliseconds' } as const,
  ]
  return { name: 'random-read', outputs, contenders, ...setting.machine.cacheNote }
}

async function randomly(path: string, count: number, round: number): Promise<Seconds> {
  const latencies = await readRandomly(path, RANDOM_BYTES, count, round)
  return { p50: percentile(latencies, 50), p99: percentile(latencies, 99) }
}
