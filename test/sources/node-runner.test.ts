import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import t, { type Test } from 'tap'
import type { BitswapHandler } from '../../src/bitswap/link.js'
import { CODEC_RAW, cidOf } from '../../src/core/cid.js'
import { NodeRunner } from '../../src/sources/node-runner.js'
import { nodeConfig } from '../p2p/support.js'
import { until } from '../support/until.js'

const CID = cidOf(CODEC_RAW, Uint8Array.of(1))
const PATIENT = new AbortController().signal
const DEAF: BitswapHandler = {
  connected: () => {},
  disconnected: () => {},
  inbound: () => ({ data: () => undefined, end: () => {} }),
}

async function runner(t: Test, options = {}, load?: ConstructorParameters<typeof NodeRunner>[3]) {
  const runner = new NodeRunner(await nodeConfig(t, options), DEAF, [], load)
  t.teardown(() => runner.stop())
  return runner
}

t.test('what is asked while the node starts waits for it', async t => {
  const node = await runner(t, { dht: 'off' })
  t.throws(() => node.host, { code: 'UNREACHABLE', message: /starting/ })
  node.start()
  t.equal(node.status().state, 'starting')
  const found = await node.findProviders(CID, PATIENT).next()
  t.same(found, { value: undefined, done: true })
  t.match(node.status(), { state: 'running', error: null, peerId: node.host.peerId })
})

t.test('whoever stops waiting for the start is let go', async t => {
  const node = await runner(t, {}, () => new Promise(() => {}))
  node.start()
  const stop = new AbortController()
  const asked = t.rejects(node.findProviders(CID, stop.signal).next(), { code: 'INTERRUPTED' })
  stop.abort()
  await asked
  node.stop = async () => {} // it would wait for a start that never ends
})

t.test('a node that cannot listen tells why, and listens when it can', async t => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const { port } = taken.address() as AddressInfo
  const node = await runner(t, { listen: [`/ip4/127.0.0.1/tcp/${port}`] })
  node.start()
  await until('it has failed', () => node.status().state === 'waiting')
  t.match(node.status().error, /EADDRINUSE/)
  await t.rejects(node.findProviders(CID, PATIENT).next(), { code: 'UNREACHABLE', message: /EADDRINUSE/ })
  await t.rejects(node.connect({ id: 'x', addrs: [] }, PATIENT), { code: 'UNREACHABLE' })
  taken.close()
  t.ok(await until('it runs', () => node.status().state === 'running'))
  t.match(node.status().addresses, [`/ip4/127.0.0.1/tcp/${port}/p2p/${node.host.peerId}`])
})

t.test('the default port gives way to another where it is taken', async t => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  t.teardown(() => void taken.close())
  const { port } = taken.address() as AddressInfo
  const node = await runner(t, { listen: [`/ip4/127.0.0.1/tcp/${port}`], listenElsewhere: true })
  node.start()
  await until('it runs', () => node.status().state === 'running')
  t.equal(node.status().addresses.length, 1)
  t.notMatch(node.status().addresses[0], `/tcp/${port}/`)
})

t.test('stopped while it starts, it does not run afterwards', async t => {
  const node = await runner(t)
  node.start()
  await node.stop()
  t.throws(() => node.host, { code: 'UNREACHABLE' })
})
