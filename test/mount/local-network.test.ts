/** Mounts on a network of their own, and on none. */
import { readFile } from 'node:fs/promises'
import t from 'tap'
import { pattern, sha256 } from '../support/dag.js'
import { Mount } from '../support/mount.js'
import { localNetwork, missingNetns, noNetwork } from '../support/netns.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'
import { askOne } from './ask.js'
import { ABSENT, connected, stage, status } from './neighbour.js'

t.setTimeout(120_000)

t.test('two mounts on one local network find each other by mDNS', { skip: missingNetns() }, async t => {
  const [here, there] = await localNetwork(t)
  const args = ['--mdns', 'on', '--dht', 'off', '--listen', '/ip4/0.0.0.0/tcp/0']
  const a = await Mount.start(t, { args, wrapper: here })
  const b = await Mount.start(t, { args, wrapper: there })
  const content = pattern(1_000_000, 3)
  const cid = await stage(a, 'z.bin', content)
  await connected(b)
  const found = await askOne({ op: 'digest', path: b.path('ipfs', cid) })
  t.equal(found.sha256, sha256(content))
  const { node } = await status(b)
  t.match(node?.peers, [{ address: /^\/ip4\/10\.77\.0\.1\// }])
})

t.test('without any network the defaults work with what is held', { skip: missingNetns() }, async t => {
  const wrapper = await noNetwork(t)
  const env = { HOME: await tempDir(t) }
  const mount = await Mount.start(t, { wrapper, env, isolated: false, args: ['--read-deadline', '4s'] })
  const content = pattern(100_000, 9)
  const cid = await stage(mount, 'here.bin', content)
  t.equal(sha256(await readFile(mount.path('ipfs', cid))), sha256(content))
  const found = await askOne({ op: 'digest', path: mount.path('ipfs', ABSENT) })
  t.equal(found.errno, 'EIO')
  t.ok(found.ms < 20_000, `${Math.round(found.ms)} ms`)
  const running = async () => ((await status(mount)).node?.state === 'running' ? status(mount) : undefined)
  const { node } = await until('the node runs', running, 30_000)
  t.match(node, { connections: 0, error: null, routers: [{ name: 'DHT' }, {}, { name: /delegated/ }] })
})
