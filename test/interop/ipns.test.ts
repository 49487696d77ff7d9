/** Names that a real Kubo publishes and we resolve, and the other way round; keys that both can read. */
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { KeyReport, PublishReport } from '../../src/daemon/name-protocol.js'
import { askOne } from '../mount/ask.js'
import { cli, json } from '../mount/pinned.js'
import { KuboNode, missingKubo } from '../support/kubo.js'
import { Mount } from '../support/mount.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'

t.setTimeout(180_000)

const skip = await missingKubo()
const [HELLO, BYE] = ['bafkqablimvwgy3y', 'bafkqaa3cpfsq']

/** Nodes of one DHT on this machine, whose routing others may use over HTTP. */
async function kubos(t: Test, count: number): Promise<KuboNode[]> {
  const config = {
    Routing: { Type: 'dht', LoopbackAddressesOnLanDHT: true },
    Gateway: { ExposeRoutingAPI: true },
  }
  const nodes: KuboNode[] = []
  for (let i = 0; i < count; i++) nodes.push(await KuboNode.start(t, { config }))
  const [first, ...others] = nodes
  for (const node of others) await node.connect(first!)
  return nodes
}

/** Publishes under a new key; returns the name. */
async function kuboPublishes(node: KuboNode, key: string, path: string, type = 'ed25519'): Promise<string> {
  const name = (await node.ipfs(['key', 'gen', `--type=${type}`, key])).stdout.trim()
  await node.ipfs(['name', 'publish', '--allow-offline', `--key=${key}`, path])
  return name
}

async function target(mount: Mount, name: string): Promise<string> {
  const { bytes, errno } = await askOne({ op: 'readlink', path: mount.path('ipns', name) }, 60_000)
  return bytes?.toString() ?? errno!
}

function kuboResolves(node: KuboNode, name: string): Promise<string> {
  return node.ipfs(['name', 'resolve', '--nocache', `/ipns/${name}`]).then(
    ({ stdout }) => stdout.trim(),
    (err: Error) => err.message,
  )
}

t.test(
  "a Kubo's names are resolved through its RPC, its gateway and its routing server",
  { skip },
  async t => {
    const [node] = (await kubos(t, 1)) as [KuboNode]
    const name = await kuboPublishes(node, 'ed', `/ipfs/${HELLO}`)
    const rsa = await kuboPublishes(node, 'rsa', `/ipns/${name}`, 'rsa')
    const ways = [
      { kubo: node.rpcUrl },
      { gateways: [node.gatewayUrl] },
      { args: ['--router', node.gatewayUrl, '--dht', 'off'] },
    ]
    for (const way of ways) {
      const mount = await Mount.start(t, way)
      t.equal(await target(mount, name), `../ipfs/${HELLO}`, JSON.stringify(way))
      t.equal(
        await target(mount, rsa),
        `../ipfs/${HELLO}`,
        'a key whose name is a hash, that leads to a name',
      )
      await mount.stop()
    }
  },
)

t.test("a Kubo's name is resolved through a DHT", { skip }, async t => {
  const [entry, publisher] = (await kubos(t, 3)) as [KuboNode, KuboNode]
  const name = await kuboPublishes(publisher, 'key', `/ipfs/${HELLO}`)
  const [address] = await entry.addresses()
  const mount = await Mount.start(t, { args: ['--peer', address!] })
  t.equal(await target(mount, name), `../ipfs/${HELLO}`)
})

t.test('our name is resolved by a Kubo, through a DHT', { skip }, async t => {
  const [entry, reader] = (await kubos(t, 3)) as [KuboNode, KuboNode]
  const [address] = await entry.addresses()
  const mount = await Mount.start(t, { args: ['--peer', address!] })
  const { name } = await json<KeyReport>(mount, ['ipns', 'key', 'gen', 'site'])
  const args = ['ipns', 'publish', 'site', HELLO, '--state', mount.stateDir, '--json']
  const { stdout } = await mount.cli(args, { timeoutMs: 60_000 })
  t.match(JSON.parse(stdout), { state: 'published', outcomes: [{ routing: 'dht', error: null }] })
  t.equal(await kuboResolves(reader, name), `/ipfs/${HELLO}`)
  await json<PublishReport>(mount, ['ipns', 'publish', 'site', BYE])
  await until('the new value is there', async () => (await kuboResolves(reader, name)) === `/ipfs/${BYE}`)
})

t.test('our name is taken by a Kubo through its RPC and its routing server', { skip }, async t => {
  const [node] = (await kubos(t, 1)) as [KuboNode]
  const ways = [{ kubo: node.rpcUrl }, { args: ['--router', node.gatewayUrl, '--dht', 'off'] }]
  for (const way of ways) {
    const mount = await Mount.start(t, way)
    const { name } = await json<KeyReport>(mount, ['ipns', 'key', 'gen', 'site'])
    const published = await json<PublishReport>(mount, ['ipns', 'publish', 'site', HELLO])
    t.match(published, { state: 'published' }, JSON.stringify(way))
    t.equal(await kuboResolves(node, name), `/ipfs/${HELLO}`)
    await mount.stop()
  }
})

t.test('keys go from a Kubo to us and back, and a name never goes back', { skip }, async t => {
  const [node] = (await kubos(t, 1)) as [KuboNode]
  const dir = await tempDir(t)
  const name = await kuboPublishes(node, 'theirs', `/ipfs/${HELLO}`)
  await node.ipfs(['name', 'publish', '--allow-offline', '--key=theirs', `/ipfs/${BYE}`])
  for (const format of ['libp2p-protobuf-cleartext', 'pem-pkcs8-cleartext']) {
    await node.ipfs(['key', 'export', `--format=${format}`, '-o', join(dir, format), 'theirs'])
  }
  const mount = await Mount.start(t, { kubo: node.rpcUrl })
  const take = (file: string) => cli(mount, ['ipns', 'key', 'import', 'theirs', join(dir, file)])
  t.match(await take('pem-pkcs8-cleartext'), { status: 0, stdout: `${name}\n` })
  await cli(mount, ['ipns', 'key', 'rm', 'theirs'])
  t.match(await take('libp2p-protobuf-cleartext'), { status: 0, stdout: `${name}\n` })
  t.match(await json<PublishReport>(mount, ['ipns', 'publish', 'theirs', HELLO]), { sequence: '2' })
  t.equal(await kuboResolves(node, name), `/ipfs/${HELLO}`, 'ours is newer than both of theirs')

  const ours = await json<KeyReport>(mount, ['ipns', 'key', 'gen', 'ours'])
  await json<PublishReport>(mount, ['ipns', 'publish', 'ours', HELLO])
  await cli(mount, ['ipns', 'key', 'export', 'ours', '-o', join(dir, 'ours')])
  const imported = await node.ipfs(['key', 'import', 'ours', join(dir, 'ours')])
  t.equal(imported.stdout.trim(), ours.name)
  await node.ipfs(['name', 'publish', '--allow-offline', '--key=ours', `/ipfs/${BYE}`])
  t.equal(await kuboResolves(node, ours.name), `/ipfs/${BYE}`)
})
