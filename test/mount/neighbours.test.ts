/** Mounts with an embedded node, and their neighbours: other mounts and real Kubo nodes. */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import t from 'tap'
import { Dag, pattern, sha256 } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { KuboNode, missingKubo } from '../support/kubo.js'
import { Mount } from '../support/mount.js'
import { until } from '../support/until.js'
import { askOne } from './ask.js'
import { ABSENT, connected, listening, stage, status } from './neighbour.js'

t.setTimeout(120_000)

/** A peer id that nobody has. */
const NOBODY = '12D3KooWRf4pNDSgHhYcrJbAShTYsjo5Uwo8oe4uYXXUMwa4VagH'

/** A port of loopback that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

t.test('what is dropped into staging is read by another mount that names this one as peer', async t => {
  const { mount: a, address } = await listening(t)
  const { mount: b } = await listening(t, { args: ['--peer', address] })
  await connected(b)
  const content = pattern(3_000_000, 1)
  const cid = await stage(a, 'x.bin', content)
  const found = await askOne({ op: 'digest', path: b.path('ipfs', cid) })
  t.equal(found.sha256, sha256(content))
  const { node, sources } = await status(b)
  t.ok((node?.bytesIn ?? 0) >= content.length, 'the bytes are counted')
  t.match(sources, [{ kind: 'peer', state: 'ok' }])
  t.ok(sources[0]!.bytes >= content.length)
})

t.test('a Kubo reads what was dropped into staging', { skip: await missingKubo() }, async t => {
  const kubo = await KuboNode.start(t)
  const { mount, address } = await listening(t)
  await kubo.ipfs(['swarm', 'connect', address])
  const content = pattern(5_000_000, 2)
  const cid = await stage(mount, 'y.bin', content)
  t.equal(sha256(await kubo.cat(cid)), sha256(content))
})

t.test('a named peer that is not there costs nothing but time, and is dialled until it is', async t => {
  const port = await freePort()
  const b = await Mount.start(t, {
    args: ['--peer', `/ip4/127.0.0.1/tcp/${port}/p2p/${NOBODY}`, '--read-deadline', '3s'],
  })
  const held = pattern(10_000, 4)
  t.equal(sha256(await readFile(b.path('ipfs', await stage(b, 'held.bin', held)))), sha256(held))
  const found = await askOne({ op: 'digest', path: b.path('ipfs', ABSENT) })
  t.equal(found.errno, 'EIO', 'what is absent fails')
  t.ok(found.ms < 20_000, `${Math.round(found.ms)} ms`)
  const missing = async () => (await status(b)).node?.missing.find(({ error }) => error !== null)
  t.match(await until('the reason is shown', missing), { id: NOBODY, error: /ECONNREFUSED|dial/ })
})

t.test('a peer that restarts is dialled again', async t => {
  const port = await freePort()
  const at = `/ip4/127.0.0.1/tcp/${port}`
  const first = await listening(t, { at })
  const b = await Mount.start(t, { args: ['--peer', first.address] })
  await connected(b)
  const content = pattern(100_000, 5)
  const cid = await stage(first.mount, 'again.bin', content)
  await first.mount.stop()
  await until('the peer is missed', async () => (await status(b)).node?.missing.length === 1)
  await listening(t, { at, stateDir: first.mount.stateDir })
  await connected(b)
  const found = await askOne({ op: 'digest', path: b.path('ipfs', cid) })
  t.equal(found.sha256, sha256(content), 'under the same identity, it serves what it had')
})

t.test('a node that cannot listen is started again and again, while gateways serve the mount', async t => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const { port } = taken.address() as AddressInfo
  const gateway = await TestGateway.start(t)
  const content = pattern(200_000, 6)
  const cid = await new Dag(gateway).import([{ content }])
  const args = ['--listen', `/ip4/127.0.0.1/tcp/${port}`]
  const mount = await Mount.start(t, { args, gateways: [gateway.url] })
  const found = await askOne({ op: 'digest', path: mount.path('ipfs', `${cid}`) })
  t.equal(found.sha256, sha256(content))
  const waiting = async () => {
    const { node } = await status(mount)
    return node?.state === 'waiting' ? node : undefined
  }
  t.match((await until('the trouble is shown', waiting)).error, /listen|EADDRINUSE|in use/i)
  taken.close()
  await once(taken, 'close')
  const runs = async () => (await status(mount)).node?.state === 'running'
  t.ok(await until('it listens once the port is free', runs, 30_000))
})

t.test('nothing is served with --serve off, and only what is pinned with --serve pinned', async t => {
  const gateway = await TestGateway.start(t)
  const cached = pattern(50_000, 7)
  const cid = await new Dag(gateway).import([{ content: cached }])
  for (const serve of ['off', 'pinned']) {
    const { mount, address } = await listening(t, { args: ['--serve', serve], gateways: [gateway.url] })
    const pinned = pattern(60_000, 8)
    const pinnedCid = await stage(mount, 'pinned.bin', pinned)
    t.equal(sha256(await readFile(mount.path('ipfs', `${cid}`))), sha256(cached), 'it is cached')
    const reader = await Mount.start(t, { args: ['--peer', address, '--dht', 'off'] })
    await connected(reader)
    const read = async (cid: string) => (await askOne({ op: 'digest', path: reader.path('ipfs', cid) })).errno
    t.equal(await read(pinnedCid), serve === 'off' ? 'EIO' : undefined, `${serve}: pinned`)
    t.equal(await read(`${cid}`), 'EIO', `${serve}: cached`)
  }
})
