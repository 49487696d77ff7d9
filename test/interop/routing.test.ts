/** Providers that are found through real routers: a DHT of Kubo nodes, and Kubo's own delegated routing server. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { askOne } from '../mount/ask.js'
import { LOOPBACK, stage, status } from '../mount/neighbour.js'
import { pattern, sha256 } from '../support/dag.js'
import { KuboNode, missingKubo } from '../support/kubo.js'
import { Mount } from '../support/mount.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'

t.setTimeout(180_000)

const skip = await missingKubo()
/** A DHT of nodes that all live on this machine. */
const DHT = { Routing: { Type: 'dht', LoopbackAddressesOnLanDHT: true } }

/** Kubo nodes whose DHT knows all of them. */
async function kubos(t: Test, count: number, config: Record<string, object> = {}): Promise<KuboNode[]> {
  const nodes: KuboNode[] = []
  for (let i = 0; i < count; i++) nodes.push(await KuboNode.start(t, { config: { ...DHT, ...config } }))
  const [first, ...others] = nodes
  for (const node of others) await node.connect(first!)
  return nodes
}

/** A file that one node has and provides. */
async function provided(t: Test, node: KuboNode, seed: number) {
  const content = pattern(1_500_000, seed)
  const file = join(await tempDir(t), 'file')
  await writeFile(file, content)
  const cid = await node.add(file, ['--cid-version=1', '--raw-leaves'])
  await until('the record is taken', () =>
    node.ipfs(['routing', 'provide', cid]).then(
      () => true,
      () => false,
    ),
  )
  return { cid, content }
}

t.test('a provider that only a DHT of Kubo nodes knows is found, and read from', { skip }, async t => {
  const [entry, middle, holder] = (await kubos(t, 3)) as [KuboNode, KuboNode, KuboNode]
  t.ok(middle.pid)
  const { cid, content } = await provided(t, holder, 1)
  const [address] = await entry.addresses()
  const mount = await Mount.start(t, { args: ['--peer', address!] })
  const found = await askOne({ op: 'digest', path: mount.path('ipfs', cid) }, 60_000)
  t.equal(found.sha256, sha256(content))
  const { node } = await status(mount)
  const ids = node?.peers.map(({ id }) => id) ?? []
  t.ok(ids.includes(await holder.peerId()), 'it was dialled')
  t.match(node?.routers, [{ name: /DHT/ }])
  t.ok((node?.routers[0]?.found ?? 0) > 0)
})

t.test('a provider is found through the delegated routing server of a Kubo', { skip }, async t => {
  const server = { Gateway: { ExposeRoutingAPI: true } }
  const [entry, holder] = (await kubos(t, 2, server)) as [KuboNode, KuboNode]
  const { cid, content } = await provided(t, holder, 2)
  const mount = await Mount.start(t, { args: ['--router', entry.gatewayUrl, '--dht', 'off'] })
  const found = await askOne({ op: 'digest', path: mount.path('ipfs', cid) }, 60_000)
  t.equal(found.sha256, sha256(content))
  const { node } = await status(mount)
  t.match(node?.routers, [{ name: `router ${entry.gatewayUrl}`, found: 1, errors: 0 }])
  t.same(
    node?.peers.map(({ id }) => id),
    [await holder.peerId()],
  )
})

t.test(
  'what is staged here is provided, so that a Kubo finds it through the DHT alone',
  { skip },
  async t => {
    const [entry, reader] = (await kubos(t, 2)) as [KuboNode, KuboNode]
    const [address] = await entry.addresses()
    const mount = await Mount.start(t, { args: ['--listen', LOOPBACK, '--peer', address!] })
    const content = pattern(700_000, 3)
    const cid = await stage(mount, 'provided.bin', content)
    const out = async () => ((await status(mount)).node?.providing.provided ?? 0) > 0
    await until('its record is out', out, 60_000)
    const { stdout } = await reader.ipfs(['routing', 'findprovs', cid])
    t.equal(stdout.trim(), (await status(mount)).node?.peerId)
    t.equal(sha256(await reader.cat(cid)), sha256(content))
  },
)
