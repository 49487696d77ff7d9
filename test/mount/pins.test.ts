/** `pins/` on a real mount: sources that fail, daemons that die in the middle, tools that know nothing of it. */
import { symlink } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { PrefetchResult } from '../../src/daemon/control-protocol.js'
import { Dag } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { Mount } from '../support/mount.js'
import { run, runOk } from '../support/run.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'
import { askOne } from './ask.js'
import { attribute, becomes, cli, FILES, folder, json, pinList } from './pinned.js'

t.setTimeout(60_000)

/** Another daemon on the state of one that has ended, without any source. */
async function offline(t: Test, stateDir: string): Promise<Mount> {
  return Mount.start(t, { stateDir, args: ['--offline'] })
}

t.test('ln -s pins, in the background, all of it', async t => {
  const gateway = await TestGateway.start(t)
  const { root } = folder(new Dag(gateway))
  gateway.fault = () => ({ delayMs: 30 })
  const mount = await Mount.start(t, { gateways: [gateway.url] })
  await mount.run('ln', ['-s', mount.path('ipfs', `${root}`), 'pins/site'])
  t.equal((await mount.run('ls', ['pins'])).stdout, 'site\n', 'its name is there at once')
  t.match((await mount.run('ls', ['-l', 'pins'])).stdout, new RegExp(`site -> ../ipfs/${root}\n`))
  await becomes(mount, 'site', 'pinned')
  t.equal(await attribute(mount, 'site', 'cached'), '100')
  t.equal(gateway.requests.length, FILES + 1, 'each block was fetched once')
  await mount.stop()
  const later = await offline(t, mount.stateDir)
  t.equal((await later.run('ls', ['pins/site/'])).stdout.split('\n').length, FILES + 1)
  await later.run(
    'cat',
    Array.from({ length: FILES }, (_, i) => `pins/site/${i}`),
  )
  t.equal(await attribute(later, 'site', 'state'), 'pinned')
})

t.test('progress shows while a slow source delivers', async t => {
  const gateway = await TestGateway.start(t)
  const { root, leaves } = folder(new Dag(gateway))
  const late = leaves.at(-1)!
  gateway.fault = cid => (cid.equals(late) ? { hang: true } : undefined)
  const mount = await Mount.start(t, { gateways: [gateway.url] })
  await symlink(`../ipfs/${root}`, mount.path('pins', 'p'))
  await until('all but one is here', async () => (await attribute(mount, 'p', 'cached')) === '97')
  t.equal(await attribute(mount, 'p', 'state'), 'fetching')
  t.match(await pinList(mount), [{ owner: 'pins/p', state: 'fetching', percent: 97 }])
  await mount.run('rm', ['pins/p'])
  t.same(await pinList(mount), [])
  await until('the source is asked no more', () => gateway.active === 0)
})

t.test('a daemon that is killed in the middle goes on where it was', async t => {
  const gateway = await TestGateway.start(t)
  const { root, leaves } = folder(new Dag(gateway))
  const late = leaves.slice(FILES / 2)
  gateway.fault = cid => (late.some(leaf => leaf.equals(cid)) ? { hang: true } : undefined)
  const mount = await Mount.start(t, { gateways: [gateway.url] })
  const stateDir = mount.stateDir
  await symlink(`${root}`, mount.path('pins', 'p'))
  await mount.run('sync', ['pins'])
  // asked for is not arrived: blocks on their way are asked for again
  await until('half of it is here', async () => Number(await attribute(mount, 'p', 'cached')) >= 50)
  await mount.kill()
  gateway.fault = () => undefined
  const before = gateway.requests.length
  const again = await Mount.start(t, { gateways: [gateway.url], stateDir })
  await becomes(again, 'p', 'pinned')
  const asked = gateway.requests.length - before
  t.ok(asked >= late.length && asked <= FILES, `${asked} of ${FILES + 1} blocks were asked for again`)
  t.equal((await again.run('readlink', ['pins/p'])).stdout, `../ipfs/${root}\n`)
})

t.test('a failure is told with its reason, and is over when the block appears', async t => {
  const gateway = await TestGateway.start(t)
  const dag = new Dag(gateway)
  const { root, leaves } = folder(dag)
  const [gone, wrong] = leaves
  gateway.fault = cid => {
    if (cid.equals(gone!)) return { status: 404 }
    return cid.equals(wrong!) ? { wrongBytes: true } : undefined
  }
  const mount = await Mount.start(t, { gateways: [gateway.url] })
  await symlink(`${root}`, mount.path('pins', 'p'))
  await becomes(mount, 'p', 'failed')
  t.match(await attribute(mount, 'p', 'error'), /could not be had.*and 1 more.*tried \d+ times/)
  // it is tried again and again, so each state may be seen; what is known of the last attempt stays
  await until('percent', async () => (await attribute(mount, 'p', 'cached')) === '95')
  t.match(await pinList(mount), [{ owner: 'pins/p', percent: Number, error: /baf/ }])
  const text = (await cli(mount, ['pin', 'ls'])).stdout
  t.match(await mount.json(['status', mount.dir]), { pins: { lastError: /baf/ } })
  t.match(
    (await mount.cli(['status', mount.dir])).stdout,
    /pins +\d being fetched, \d queued, \d failed \(last: /,
  )
  t.match(text, /^\w+ +\d+% +baf\w+ +pins\/p +\(tried \d+ times: /)
  gateway.fault = () => undefined
  await becomes(mount, 'p', 'pinned')
  t.equal(await attribute(mount, 'p', 'error'), 'ENODATA')
})

t.test('offline, names can be given, and what is here is pinned', async t => {
  const gateway = await TestGateway.start(t)
  const dag = new Dag(gateway)
  const [here, absent] = [folder(dag, 1, 3), folder(dag, 2, 3)]
  const first = await Mount.start(t, { gateways: [gateway.url] })
  t.match(await json<PrefetchResult>(first, ['prefetch', `${here.root}`]), {
    blocks: 4,
    missed: 0,
    error: null,
  })
  t.match((await first.run('ls', ['ipfs'])).stdout, `${here.root}`)
  t.same(await pinList(first), [], 'prefetch pins nothing')
  await first.stop()
  const mount = await offline(t, first.stateDir)
  await symlink(`${here.root}`, mount.path('pins', 'here'))
  await symlink(`${absent.root}`, mount.path('pins', 'absent'))
  await becomes(mount, 'here', 'pinned')
  await becomes(mount, 'absent', 'failed')
  t.match(await attribute(mount, 'absent', 'error'), /not held|offline/)
  t.equal((await askOne({ op: 'list', path: mount.path('pins', 'absent', '') })).errno, 'EIO')
  t.match(await cli(mount, ['prefetch', `${absent.root}`]), { status: 6, stderr: /1 block could not be had/ })
})

t.test('tools that replace, move and remove do to pins what they do to links', async t => {
  const gateway = await TestGateway.start(t)
  const dag = new Dag(gateway)
  const [one, two] = [folder(dag, 1, 2), folder(dag, 2, 2)]
  const mount = await Mount.start(t, { gateways: [gateway.url] })
  const targets = async () => await mount.run('find', ['pins', '-type', 'l', '-printf', '%f=%l '])
  await mount.run('ln', ['-s', `../ipfs/${one.root}`, 'pins/a'])
  await mount.run('ln', ['-sfn', `../ipfs/${two.root}`, 'pins/a'])
  t.equal((await targets()).stdout, `a=../ipfs/${two.root} `)
  await becomes(mount, 'a', 'pinned')
  t.same(
    (await pinList(mount)).map(({ cid }) => cid),
    [`${two.root}`],
  )
  await mount.run('cp', ['-a', 'pins/a', 'pins/b'])
  await mount.run('mv', ['pins/b', 'pins/c'])
  t.equal((await mount.run('stat', ['-c', '%Y', 'pins/a', 'pins/c'])).stdout.split('\n')[0]?.length, 10)
  t.match(await mount.run('sh', ['-c', 'ls -i pins; stat -c %i pins/a']), { status: 0 })
  const backup = await tempDir(t)
  await runOk('rsync', ['-a', `${mount.path('pins')}/`, `${backup}/`])
  await mount.run('rm', ['-rf', 'pins/a', 'pins/c'])
  t.same(await pinList(mount), [])
  await runOk('rsync', ['-a', '--omit-dir-times', '--no-perms', `${backup}/`, `${mount.path('pins')}/`])
  await becomes(mount, 'c', 'pinned')
  const copied = await run('cp', ['-r', join(backup, '..', 'no such file'), mount.path('pins')])
  t.not(copied.status, 0)
})
