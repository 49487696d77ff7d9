import { readdir, readFile, writeFile } from 'node:fs/promises'
import t from 'tap'
import type { ExistsReport, StatusReport } from '../../src/daemon/control-protocol.js'
import { Dag, pattern } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { Mount } from '../support/mount.js'
import { startRouter } from '../support/name-servers.js'
import { until } from '../support/until.js'
import { askOne } from './ask.js'
import { cli } from './pinned.js'
import { waitFor } from './staged.js'

t.setTimeout(90_000)

const ABSENT = 'bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e'
const PEERS = [
  '12D3KooWCF3AtyvKMzgmS2D8iYnwKvnCb9yPnfFLoJPkRZyEbmc5',
  'QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn',
]

/** The exit code and the report. */
async function exists(
  mount: Mount,
  cid: unknown,
  args: string[] = [],
): Promise<[number | null, ExistsReport]> {
  const { status, stdout } = await cli(mount, ['exists', `${cid}`, '--json', ...args])
  return [status, JSON.parse(stdout) as ExistsReport]
}

const file = (cid: unknown) => ['.cidfs', 'exists', `${cid}`]

t.test('gateways are asked, and nothing is fetched by it', async t => {
  const gateways = [await TestGateway.start(t), await TestGateway.start(t)] as [TestGateway, TestGateway]
  const [good, ill] = gateways
  ill.fault = () => ({ status: 500 })
  const root = await new Dag(good).import([
    { path: 'root/a', content: pattern(5000, 1) },
    { path: 'root/b', content: pattern(3000, 2) },
  ])
  const mount = await Mount.start(t, { gateways: gateways.map(({ url }) => url) })
  const [status, report] = await exists(mount, root)
  t.equal(status, 0)
  t.match(report, {
    cid: `${root}`,
    held: { state: 'no', percent: 0 },
    copies: 1,
    neighbours: [],
    error: null,
  })
  t.match(report.servers, [
    { kind: 'gateway', name: good.url, has: 'yes', error: null },
    { kind: 'gateway', name: ill.url, has: 'unknown', error: /500/ },
  ])
  t.match((await exists(mount, root))[1].held, { state: 'no' }, 'still not here')
  await mount.run('cat', [`ipfs/${root}/a`])
  const part = (await exists(mount, root))[1].held
  t.equal(part.state, 'part')
  t.ok(part.percent! > 0 && part.percent! < 100, `${part.percent} percent`)
  await mount.run('cat', [`ipfs/${root}/b`])
  t.match((await exists(mount, root))[1].held, { state: 'whole', percent: 100 })
  const text = await cli(mount, ['exists', `${root}`])
  t.match(text, { status: 0, stdout: /^held here +yes[\s\S]*\n1 copy found elsewhere\n$/ })
  const [no, absent] = await exists(mount, ABSENT)
  t.equal(no, 1, 'nobody else has it')
  t.match(absent, { copies: 0, servers: [{ has: 'no' }, { has: 'unknown' }] })
  t.match(await cli(mount, ['exists', 'nonsense']), { status: 2, stderr: /not a CID/ })
  t.match(await cli(mount, ['exists', ABSENT, '--timeout', 'soon']), { status: 2, stderr: /duration/ })
})

t.test('what is not answered is not known, and the deadline holds', async t => {
  const gateway = await TestGateway.start(t)
  gateway.fault = () => ({ hang: true })
  const mount = await Mount.start(t, { gateways: [gateway.url] })
  const [status, report] = await exists(mount, ABSENT, ['--timeout', '300ms'])
  t.equal(status, 1)
  t.match(report, { copies: 0, servers: [{ has: 'unknown', error: 'no answer in time' }] })
})

t.test('a file of any CID tells the same, and reading it can be interrupted', async t => {
  const gateway = await TestGateway.start(t)
  const root = await new Dag(gateway).import([{ path: 'root', content: pattern(1000, 1) }])
  const mount = await Mount.start(t, { gateways: [gateway.url] })
  const [, report] = await exists(mount, root)
  t.same(JSON.parse(await readFile(mount.path(...file(root)), 'utf8')), report)
  t.equal(
    (await mount.run('python3', ['-c', `print(len(open('.cidfs/exists/${root}').read(5)))`])).stdout,
    '5\n',
  )
  t.ok((await readdir(mount.path('.cidfs'))).includes('exists'))
  t.same(await readdir(mount.path('.cidfs', 'exists')), [])
  t.match(await askOne({ op: 'read', path: mount.path(...file('nonsense')) }), { errno: 'ENOENT' })
  t.match(await askOne({ op: 'list', path: mount.path(...file(root)) }), { errno: 'ENOTDIR' })
  await t.rejects(writeFile(mount.path(...file(root)), 'x'), { code: 'EROFS' })
  gateway.fault = () => ({ hang: true })
  const script = `
import signal, sys
signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(InterruptedError()))
f = open(sys.argv[1])
signal.setitimer(signal.ITIMER_REAL, 0.3)
try: f.read()
except InterruptedError: print('interrupted')`
  const before = performance.now()
  const { stdout } = await mount.run('python3', ['-c', script, file(ABSENT).join('/')])
  t.equal(stdout, 'interrupted\n')
  t.ok(performance.now() - before < 8_000, 'before its deadline of ten seconds')
})

t.test('neighbours are asked by bitswap, providers are counted', async t => {
  const router = await startRouter(t)
  const holder = await Mount.start(t, { args: ['--listen', '/ip4/127.0.0.1/tcp/0', '--dht', 'off'] })
  await writeFile(holder.path('staging', 'file'), pattern(100_000, 3))
  await waitFor(holder, [holder.path('staging', 'file')])
  const { cid } = await holder.json<{ cid: string }>(['cid', holder.path('staging', 'file')])
  const { node } = await until('it listens', async () => {
    const status = await holder.json<StatusReport>(['status', holder.dir])
    return (status.node?.addresses.length ?? 0) > 0 ? status : undefined
  })
  const address = node!.addresses.find(text => text.includes('127.0.0.1'))!
  router.providers.set(cid, [...PEERS, node!.peerId!])
  const args = ['--peer', address, '--router', router.url, '--dht', 'off']
  const mount = await Mount.start(t, { args })
  const [status, report] = await until(
    'the neighbour is connected',
    async () => {
      const found = await exists(mount, cid)
      return found[1].neighbours.length > 0 ? found : undefined
    },
    30_000,
  )
  t.equal(status, 0)
  t.same(report.neighbours, [{ peer: node!.peerId, has: 'yes' }])
  t.same([...report.providers.peers].sort(), [...PEERS, node!.peerId!].sort())
  t.match(report, { held: { state: 'no' }, servers: [], copies: 3, providers: { more: false, error: null } })
  const [no, absent] = await exists(mount, ABSENT)
  t.equal(no, 1)
  t.match(absent.neighbours, [{ has: 'no' }])
  t.match((await exists(mount, cid))[1].held, { state: 'no' }, 'nothing was fetched')
})

t.test('without anybody to ask the answer is no, and says so', async t => {
  const mount = await Mount.start(t, { args: ['--offline'] })
  const [status, report] = await exists(mount, ABSENT)
  t.equal(status, 1)
  t.match(report, { copies: 0, error: /offline/ })
})
