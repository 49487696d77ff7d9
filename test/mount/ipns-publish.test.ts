import { mkdir, readlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import type { StatusReport } from '../../src/daemon/control-protocol.js'
import type { KeyReport, NameReport, PublishReport } from '../../src/daemon/name-protocol.js'
import { Mount } from '../support/mount.js'
import { startRouter } from '../support/name-servers.js'
import { askOne } from './ask.js'
import { target, until, withRouter } from './names.js'
import { cli, json } from './pinned.js'
import { waitFor, xattr } from './staged.js'

t.setTimeout(180_000)

t.test('publishing under a key, by CID and by staged path', async t => {
  const router = await startRouter(t)
  const mount = await Mount.start(t, { args: withRouter(router) })
  const { name } = await json<KeyReport>(mount, ['ipns', 'key', 'gen', 'site'])
  t.match(await cli(mount, ['ipns', 'key', 'gen', 'site']), {
    status: 1,
    stderr: /there is a key "site" already/,
  })
  const published = await json<PublishReport>(mount, ['ipns', 'publish', 'site', 'bafkqaaa'])
  t.match(published, { name, value: '/ipfs/bafkqaaa', sequence: '0', state: 'published' })
  t.equal(router.records.size, 1)
  t.equal(await readlink(mount.path('ipns', name)), '../ipfs/bafkqaaa')
  await writeFile(mount.path('staging', 'page'), 'hello')
  await waitFor(mount, [mount.path('staging', 'page')])
  t.match(await mount.cli(['ipns', 'publish', 'site', mount.path('staging', 'page')]), {
    status: 0,
    stdout: `${name}\n`,
  })
  await until('the link follows', async () => {
    const link = mount.path('ipns', name)
    return (
      (await readlink(link)) !== '../ipfs/bafkqaaa' && (await mount.run('cat', [link])).stdout === 'hello'
    )
  })
  t.match(await json<NameReport[]>(mount, ['ipns', 'ls']), [
    { keyName: 'site', sequence: '1', follows: null },
  ])
  t.match(await cli(mount, ['ipns', 'publish', 'other', 'bafkqaaa']), {
    status: 1,
    stderr: /ipns key gen other/,
  })
  t.match(await cli(mount, ['ipns', 'publish', 'site', '/ipfs/nonsense']), {
    status: 2,
    stderr: /cannot be publ/,
  })
  t.match(await cli(mount, ['ipns', 'publish', 'self', 'bafkqaaa']), { status: 0 }, 'the key of the node')
})

t.test('keys go out and come in, and go', async t => {
  const mount = await Mount.start(t, {})
  const { name } = await json<KeyReport>(mount, ['ipns', 'key', 'gen', 'site'])
  const file = join(mount.stateDir, '..', 'site.key')
  t.match(await cli(mount, ['ipns', 'key', 'export', 'site', '-o', file]), { status: 0, stdout: '' })
  t.equal((await mount.run('stat', ['-c', '%a', file])).stdout, '600\n')
  t.equal((await mount.run('stat', ['-c', '%a', join(mount.stateDir, 'keys', 'site.key')])).stdout, '600\n')
  t.match(await cli(mount, ['ipns', 'key', 'import', 'again', file]), {
    status: 1,
    stderr: /is here already/,
  })
  t.match(await cli(mount, ['ipns', 'key', 'rm', 'site']), { status: 0, stdout: `${name}\n` })
  t.match(await cli(mount, ['ipns', 'key', 'import', 'again', file]), { status: 0, stdout: `${name}\n` })
  t.match(await cli(mount, ['ipns', 'key', 'import', 'text', '/etc/passwd']), {
    status: 2,
    stderr: /no Ed25519/,
  })
  t.match(await json<KeyReport[]>(mount, ['ipns', 'key', 'ls']), [{ keyName: 'again', name, value: null }])
  for (const bad of ['../x', 'a/b', 'self', '.hidden', '']) {
    t.not((await cli(mount, ['ipns', 'key', 'gen', bad])).status, 0, JSON.stringify(bad))
  }
  const published = await cli(mount, ['ipns', 'publish', 'again', 'bafkqaaa'])
  t.match(published, { status: 0, stderr: /kept here only/ }, 'nobody to give it to')
  t.equal(await readlink(mount.path('ipns', name)), '../ipfs/bafkqaaa')
})

t.test('a directory with a key is published whenever its CID changes', async t => {
  const router = await startRouter(t)
  const first = await Mount.start(t, { args: withRouter(router) })
  const { name } = await json<KeyReport>(first, ['ipns', 'key', 'gen', 'site'])
  const attribute = ['-n', 'user.ipfs.key', '-v']
  await mkdir(first.path('staging', 'site'))
  await mkdir(first.path('staging', 'other'))
  const unknown = first.run('setfattr', [...attribute, 'unknown', 'staging/site'])
  await t.rejects(unknown, /No such file or directory/, 'a key that is not there')
  await first.run('setfattr', [...attribute, 'site', 'staging/site'])
  t.equal(await xattr(first, 'staging/site', 'user.ipfs.key'), 'site')
  t.equal(await xattr(first, 'staging/site', 'user.ipfs.name'), name)
  t.match(
    (await first.run('getfattr', ['-d', 'staging/site'])).stdout,
    /user\.ipfs\.key="site"/,
    'it is listed',
  )
  await t.rejects(
    first.run('setfattr', [...attribute, 'site', 'staging/other']),
    /busy/,
    'one key, one directory',
  )
  await t.rejects(first.run('setfattr', [...attribute, 'site', 'staging']), /not supported/, 'not the root')
  t.match(await cli(first, ['ipns', 'key', 'rm', 'site']), { status: 1, stderr: /published under site/ })
  await writeFile(first.path('staging', 'site', 'page'), 'one')
  const shows = (mount: Mount, text: string) =>
    until(`the name leads to ${text}`, async () => {
      const { bytes } = await askOne({ op: 'read', path: mount.path('ipns', name, 'page') })
      return bytes?.toString() === text
    })
  await shows(first, 'one')
  await until('the router has it', () => router.records.has(name))
  await first.stop()
  const second = await Mount.start(t, { stateDir: first.stateDir, args: withRouter(router) })
  await writeFile(second.path('staging', 'site', 'page'), 'two')
  await shows(second, 'two')
  t.match(await json<NameReport[]>(second, ['ipns', 'ls']), [{ keyName: 'site', follows: 'staging/site' }])
  await second.run('mv', ['staging/site', 'staging/moved'])
  await second.run('setfattr', ['-x', 'user.ipfs.key', 'staging/moved'])
  await t.rejects(second.run('setfattr', ['-x', 'user.ipfs.key', 'staging/moved']), /No such attribute/)
  t.match(await json<NameReport[]>(second, ['ipns', 'ls']), [{ keyName: 'site', follows: null }])
  t.match(await cli(second, ['ipns', 'key', 'rm', 'site']), { status: 0 }, 'nothing needs the key any more')
})

t.test('a router that refuses is tried again, and the name says so meanwhile', async t => {
  const router = await startRouter(t)
  router.putStatus = 503
  const mount = await Mount.start(t, { args: withRouter(router) })
  await json<KeyReport>(mount, ['ipns', 'key', 'gen', 'site'])
  await mkdir(mount.path('staging', 'site'))
  await mount.run('setfattr', ['-n', 'user.ipfs.key', '-v', 'site', 'staging/site'])
  const error = () => xattr(mount, 'staging/site', 'user.ipfs.error').catch(() => '')
  await until('the error is shown', async () => (await error()).includes('HTTP 503'))
  t.match(await cli(mount, ['ipns', 'publish', 'site', 'bafkqaaa']), { status: 6, stderr: /tried again/ })
  router.putStatus = 200
  await until('it was taken', async () => {
    const [report] = await json<NameReport[]>(mount, ['ipns', 'ls'])
    return report?.state === 'published'
  })
  t.equal(await error(), '')
  router.hang = true
  const { puts } = router
  await writeFile(mount.path('staging', 'site', 'page'), 'new')
  await until('it is being published', () => router.puts > puts)
  await mount.stop() // which a router that hangs does not keep from ending
})

t.test('another machine reads a directory by its name', async t => {
  const router = await startRouter(t)
  const args = ['--listen', '/ip4/127.0.0.1/tcp/0', ...withRouter(router)]
  const author = await Mount.start(t, { args })
  const { name } = await json<KeyReport>(author, ['ipns', 'key', 'gen', 'site'])
  await mkdir(author.path('staging', 'site'))
  await writeFile(author.path('staging', 'site', 'page'), 'from over there')
  await author.run('setfattr', ['-n', 'user.ipfs.key', '-v', 'site', 'staging/site'])
  await waitFor(author, [author.path('staging', 'site')])
  const cid = await xattr(author, 'staging/site', 'user.ipfs.cid')
  await until('it is published', async () => {
    const [report] = await json<NameReport[]>(author, ['ipns', 'ls'])
    return report?.state === 'published' && report.value === `/ipfs/${cid}`
  })
  const { node } = await json<StatusReport>(author, ['status'])
  const address = node?.addresses.find(text => text.includes('127.0.0.1'))
  const reader = await Mount.start(t, { args: ['--peer', address!, ...withRouter(router)] })
  t.equal((await reader.run('cat', [`ipns/${name}/page`])).stdout, 'from over there')
  t.equal(await target(reader, name), `../ipfs/${cid}`)
})
