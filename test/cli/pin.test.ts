import { symlink } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import type { PinRemoval, PinReport } from '../../src/daemon/control-protocol.js'
import { attribute, becomes, cli, folder, json, pinList } from '../mount/pinned.js'
import { sampleCar } from '../support/car-files.js'
import { Dag } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { Mount } from '../support/mount.js'
import { tempDir } from '../support/temp.js'

t.setTimeout(60_000)

t.test('pin add waits, names, and both views agree', async t => {
  const gateway = await TestGateway.start(t)
  const dag = new Dag(gateway)
  const [one, two] = [folder(dag, 1, 3), folder(dag, 2, 3)]
  const mount = await Mount.start(t, { gateways: [gateway.url] })
  t.match(await cli(mount, ['pin', 'add', `${one.root}`]), { status: 0, stdout: `${one.root}\n`, stderr: '' })
  t.equal((await mount.run('readlink', [`pins/${one.root}`])).stdout, `../ipfs/${one.root}\n`)
  const added = await json<PinReport>(mount, ['pin', 'add', `ipfs/${two.root}/1`, '--name', 'leaf'])
  t.same(added, {
    cid: `${two.leaves[1]}`,
    owner: 'pins/leaf',
    state: 'pinned',
    percent: 100,
    tries: 0,
    error: null,
  })
  t.match(await cli(mount, ['pin', 'add', `${two.leaves[1]}`, '--name', 'leaf']), { status: 0 })
  t.match(await cli(mount, ['pin', 'add', `${two.root}`, '--name', 'leaf']), {
    status: 1,
    stderr: /is there already/,
  })
  t.match(await cli(mount, ['pin', 'add', 'nonsense']), { status: 2, stderr: /neither a CID/ })
  t.match(await cli(mount, ['pin', 'add', `${two.root}`, '--name', 'a/b']), {
    status: 2,
    stderr: /cannot be a name/,
  })
  t.match(await mount.json(['cid', mount.path('pins', 'leaf')]), { cid: `${two.leaves[1]}`, state: 'pinned' })
})

t.test('pin add tells when it is not complete, and keeps at it', async t => {
  const gateway = await TestGateway.start(t)
  const { root } = folder(new Dag(gateway), 1, 3)
  gateway.fault = () => ({ status: 404 })
  const mount = await Mount.start(t, { gateways: [gateway.url] })
  const failed = await cli(mount, ['pin', 'add', `${root}`, '--name', 'p'])
  t.match(failed, { status: 6, stdout: `${root}\n`, stderr: /not complete yet: .*\n.*tried again/ })
  gateway.fault = () => undefined
  await becomes(mount, 'p', 'pinned')
  gateway.fault = () => ({ hang: true })
  const other = folder(new Dag(gateway), 2, 3).root
  t.match(await json<PinReport>(mount, ['pin', 'add', '--no-wait', `${other}`]), { percent: null })
  t.match(await cli(mount, ['pin', 'rm', `${other}`]), { status: 0, stdout: `pins/${other}\n` })
})

t.test('wait waits for pins, and tells those that have failed', async t => {
  const gateway = await TestGateway.start(t)
  const dag = new Dag(gateway)
  const [good, bad] = [folder(dag, 1, 3), folder(dag, 2, 3)]
  gateway.fault = cid => (cid.equals(bad.root) ? { status: 404 } : { delayMs: 50 })
  const mount = await Mount.start(t, { gateways: [gateway.url] })
  await symlink(`${good.root}`, mount.path('pins', 'good'))
  t.same(await mount.json(['wait', mount.path('pins', 'good')]), { pinned: 1, failed: [] })
  t.equal(await attribute(mount, 'good', 'state'), 'pinned')
  await symlink(`${bad.root}`, mount.path('pins', 'bad'))
  const waited = await mount.cli(['wait', '--json', mount.dir])
  t.equal(waited.status, 1)
  t.match(JSON.parse(waited.stdout), { pinned: 1, failed: [{ path: 'pins/bad', error: /could not be had/ }] })
  t.match(await mount.cli(['wait', mount.path('pins', 'missing')]), { status: 1, stderr: /no such pin/ })
})

t.test('pin ls shows every owner, pin rm takes back what was pinned by name or import', async t => {
  const mount = await Mount.start(t)
  const car = await sampleCar(await tempDir(t))
  await json(mount, ['import', car.path])
  await mount.run('sh', ['-c', 'echo staged > staging/s'])
  await mount.cli(['wait', mount.path('staging')])
  const { cid: staged } = await mount.json<{ cid: string }>(['cid', mount.path('staging', 's')])
  await json(mount, ['pin', 'add', `${car.root}`, '--name', 'n'])
  await json(mount, ['pin', 'add', staged, '--name', 's'])
  const shown = (pins: PinReport[]) =>
    pins.map(({ owner, state, percent }) => `${owner} ${state} ${percent}`).sort()
  const all = ['import pinned 100', 'pins/n pinned 100', 'pins/s pinned 100', 'staging/s pinned 100']
  t.same(shown(await pinList(mount)), all)
  const file = JSON.parse((await mount.run('cat', ['.cidfs/pins'])).stdout) as PinReport[]
  t.same(shown(file), all)
  t.same(await json<PinRemoval>(mount, ['pin', 'rm', `${car.root}`]), { removed: ['pins/n', 'import'] })
  t.match(await cli(mount, ['pin', 'rm', `${car.root}`]), { status: 1, stderr: /not pinned/ })
  t.match(await cli(mount, ['pin', 'rm', 'pins/s']), { status: 0, stdout: 'pins/s\n' })
  t.match(await cli(mount, ['pin', 'rm', staged]), { status: 1, stderr: /held by staging\/s/ })
  t.match(await cli(mount, ['pin', 'rm', 'nothing']), { status: 1, stderr: /no pins\/nothing/ })
  t.same(shown(await pinList(mount)), ['staging/s pinned 100'])
})

t.test('without a daemon, pin says so', async t => {
  const state = join(await tempDir(t), 'none')
  const mount = await Mount.start(t)
  for (const args of [['ls'], ['add', 'bafkqaaa'], ['rm', 'x']]) {
    const { status, stderr } = await mount.cli(['pin', ...args, '--state', state])
    t.equal(status, 3, stderr)
  }
  t.equal((await mount.cli(['prefetch', 'bafkqaaa', '--state', state])).status, 3)
  t.equal((await mount.cli(['pin', 'frobnicate'])).status, 2)
  t.equal((await mount.cli(['pin', 'add'])).status, 2)
})
