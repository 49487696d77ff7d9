/** `ls -l` of a large directory: from the network, from the disk, again. */
import { freshMount } from './fresh-mount.js'
import { fromPeer } from './from-peer.js'
import { timeCommand } from './probe.js'
import { dropped } from './read-rows.js'
import type { Contender, Row } from './row.js'
import type { Setting } from './setting.js'

/** Kubo's mount asks for the files one after the other, which takes minutes. */
const KUBO_LIMIT_S = 15

export async function coldList(setting: Setting): Promise<Row> {
  const [kubos, cid] = [await setting.kubos(), await setting.entriesCid()]
  const options = { gateways: [kubos.provider.node.gatewayUrl] }
  const slow = () => list(setting, `${kubos.reader.ipfs}/${cid}`, KUBO_LIMIT_S)
  const contenders = [
    freshMount(setting, 'cidfs', options, mount => list(setting, mount.path('ipfs', cid))),
    dropped(setting, 'raw', async () => list(setting, await setting.entries())),
    { ...fromPeer(setting, kubos, 'Kubo', slow), rounds: 1 },
  ]
  return { name: 'cold-list', outputs: [output('cold')], contenders, ...setting.machine.cacheNote }
}

export async function warmList(setting: Setting): Promise<Row> {
  const places = await localPlaces(setting)
  const contenders = places.map(({ name, path, pids }) =>
    dropped(setting, name, () => list(setting, path), pids),
  )
  return { name: 'warm-list', outputs: [output('warm')], contenders, ...setting.machine.cacheNote }
}

export async function hotList(setting: Setting): Promise<Row> {
  const contenders = (await localPlaces(setting)).map(({ name, path, pids }): Contender => {
    const prepare = async () => void (await list(setting, path))
    return { name, prepare, measure: () => list(setting, path), ...(pids && { pids }) }
  })
  return { name: 'hot-list', outputs: [output('again')], contenders }
}

async function localPlaces(
  setting: Setting,
): Promise<{ name: string; path: string; pids?: () => number[] }[]> {
  const { mount, entries } = await setting.local()
  const ours = { name: 'cidfs', path: entries, pids: () => [mount.pid] }
  const raw = { name: 'raw', path: await setting.entries() }
  if (!setting.withKubo) return [ours, raw]
  const { node, ipfs } = (await setting.kubos()).provider
  return [ours, raw, { name: 'Kubo', path: `${ipfs}/${await setting.entriesCid()}`, pids: () => [node.pid] }]
}

function list({ sizes }: Setting, path: string, limitSeconds?: number) {
  return timeCommand(['ls', '-l', path], { linesExpected: sizes.entries + 1, limitSeconds })
}

function output(state: string) {
  return { key: 'seconds', title: `ls -l, ${state}`, unit: 'milliseconds' } as const
}
