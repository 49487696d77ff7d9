import { mkdir, readdir, readlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { cidOf } from '../../src/core/cid.js'
import type { KeyReport, NameReport, PublishReport } from '../../src/daemon/name-protocol.js'
import { generateKey, type NameKey } from '../../src/p2p/ipns-key.js'
import { signRecord } from '../../src/p2p/ipns-record.js'
import { Dag } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { Mount } from '../support/mount.js'
import { type RecordServer, startDns, startRouter } from '../support/name-servers.js'
import { until } from '../support/until.js'
import { askOne } from './ask.js'
import { cli, json } from './pinned.js'
import { waitFor, xattr } from './staged.js'

t.setTimeout(120_000)

const ABSENT = cidOf(0x55, Buffer.from('nowhere'))
const HOUR_MS = 3_600_000

function record(key: NameKey, value: string, over: object = {}): Uint8Array {
  return signRecord(key, { value, sequence: 1n, eolMs: Date.now() + HOUR_MS, ttlMs: HOUR_MS, ...over })
}

function put(router: RecordServer, key: NameKey, value: string, over: object = {}): string {
  router.records.set(key.name.text, record(key, value, over))
  return key.name.text
}

/** Where a link in `ipns/` leads, or the name of the errno. */
async function target(mount: Mount, name: string): Promise<string> {
  const { bytes, errno } = await askOne({ op: 'readlink', path: mount.path('ipns', name) })
  return bytes?.toString() ?? errno!
}

const withRouter = (router: RecordServer) => ['--router', router.url, '--dht', 'off']

t.test('a key leads to content through a delegated router', async t => {
  const [gateway, router] = [await TestGateway.start(t), await startRouter(t)]
  const root = await new Dag(gateway).import([{ path: 'root/dir/a', content: Buffer.from('hello') }])
  const mount = await Mount.start(t, { gateways: [gateway.url], args: withRouter(router) })
  const key = generateKey()
  const name = put(router, key, `/ipfs/${root}`)
  t.equal(await target(mount, name), `../ipfs/${root}`)
  t.equal((await mount.run('cat', [`ipns/${name}/dir/a`])).stdout, 'hello')
  t.same(await readdir(mount.path('ipns')), [name], 'what is known is listed')
  const deep = generateKey()
  const deepName = put(router, deep, `/ipns/${name}/dir`)
  t.equal(await target(mount, deepName), `../ipfs/${root}/dir`, 'a name that leads to a name')
  t.equal((await mount.run('cat', [`ipns/${deepName}/a`])).stdout, 'hello')
  t.equal((await cli(mount, ['ipns', 'resolve', deepName])).stdout, `/ipfs/${root}/dir\n`)
})

t.test('a DNSLink leads to content, through messages and through JSON', async t => {
  const gateway = await TestGateway.start(t)
  const root = await new Dag(gateway).import([{ path: 'root/a', content: Buffer.from('hello') }])
  for (const only of ['messages', 'json'] as const) {
    const dns = await startDns(t, only)
    const mount = await Mount.start(t, { gateways: [gateway.url], args: ['--dns', dns.url] })
    dns.txt.set('_dnslink.docs.example.org', ['v=spf1 -all', 'dnslink=/nonsense', `dnslink=/ipfs/${root}`])
    dns.txt.set('_dnslink.long.example.org', [`dnslink=/ipfs/${root}/${'x'.repeat(250)}/${'y'.repeat(250)}`])
    dns.txt.set('_dnslink.mail.example.org', ['v=spf1 -all'])
    dns.txt.set('_dnslink.loop.example.org', ['dnslink=/ipns/pool.example.org'])
    dns.txt.set('_dnslink.pool.example.org', ['dnslink=/ipns/loop.example.org'])
    dns.txt.set('_dnslink.bad.example.org', [`dnslink=/ipfs/${root}/../../staging`])
    t.equal((await mount.run('cat', ['ipns/docs.example.org/a'])).stdout, 'hello', only)
    t.match(await target(mount, 'long.example.org'), /\/x{250}\/y{250}$/, `${only}: in several strings`)
    t.equal(await target(mount, 'DOCS.Example.org'), `../ipfs/${root}`, `${only}: in any case`)
    t.equal(await target(mount, 'none.example.org'), 'ENOENT', `${only}: no such name`)
    t.equal(await target(mount, 'mail.example.org'), 'ENOENT', `${only}: no link in it`)
    t.equal(await target(mount, 'loop.example.org'), 'EIO', `${only}: names in a circle`)
    t.equal(await target(mount, 'bad.example.org'), 'EIO', `${only}: a path that leads out`)
    t.match(await xattr(mount, 'ipns', 'user.ipfs.error'), /staging.*cannot be one of a file/, only)
    const before = dns.asked.length
    dns.rcode = 2
    t.equal(await target(mount, 'other.example.org'), 'EIO', `${only}: the server failed`)
    t.equal(await target(mount, 'docs.example.org'), `../ipfs/${root}`, `${only}: known, and fresh`)
    t.equal(dns.asked.length, before + 1)
    await mount.stop()
  }
})

t.test('what cannot be a name does not exist, and asks nobody', async t => {
  const [router, dns] = [await startRouter(t), await startDns(t)]
  const mount = await Mount.start(t, { args: [...withRouter(router), '--dns', dns.url] })
  for (const name of ['localhost', 'a..b', '-a.org', `${ABSENT}`, 'x'.repeat(255)]) {
    t.equal(await target(mount, name), 'ENOENT', name)
  }
  t.same([router.gets, dns.asked], [0, []])
  for (const errno of ['touch', 'mkdir'].map(tool => mount.run(tool, ['ipns/x.org']))) {
    await t.rejects(errno, /Read-only file system/)
  }
})

t.test('a record that is not valid leads nowhere, and the newest valid one wins', async t => {
  const [gateway, router, other] = [await TestGateway.start(t), await startRouter(t), await startRouter(t)]
  const mount = await Mount.start(t, {
    gateways: [gateway.url],
    args: [...withRouter(router), ...withRouter(other), '--read-deadline', '5s'],
  })
  const bad = generateKey()
  put(router, bad, `/ipfs/${ABSENT}`, { eolMs: Date.now() - 1000 })
  t.equal(await target(mount, bad.name.text), 'EIO', 'past its end')
  t.match(await xattr(mount, 'ipns', 'user.ipfs.error'), /expired/)
  const forged = generateKey()
  router.records.set(forged.name.text, record(generateKey(), `/ipfs/${ABSENT}`))
  t.equal(await target(mount, forged.name.text), 'EIO', 'signed by another key')
  const key = generateKey()
  put(router, key, '/ipfs/bafkqaaa', { sequence: 3n })
  put(other, key, `/ipfs/${ABSENT}`, { sequence: 4n })
  t.equal(await target(mount, key.name.text), `../ipfs/${ABSENT}`)
})

t.test('a name that nobody answers for fails at the deadline, and can be interrupted before', async t => {
  const router = await startRouter(t)
  router.hang = true
  const mount = await Mount.start(t, { args: [...withRouter(router), '--read-deadline', '2s'] })
  const [slow, interrupted] = [generateKey().name.text, generateKey().name.text]
  t.equal(await target(mount, slow), 'EIO')
  t.match(await xattr(mount, 'ipns', 'user.ipfs.error'), new RegExp(`${slow}.*no answer in time`))
  const script = `
import os, signal, sys
signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(InterruptedError()))
signal.setitimer(signal.ITIMER_REAL, 0.3)
try: os.readlink(sys.argv[1])
except InterruptedError: print('interrupted')`
  const { stdout } = await mount.run('python3', ['-c', script, `ipns/${interrupted}`])
  t.equal(stdout, 'interrupted\n')
})

t.test('a name leads elsewhere when its TTL is over, without being asked for', async t => {
  const router = await startRouter(t)
  const mount = await Mount.start(t, { args: withRouter(router) })
  const key = generateKey()
  const name = put(router, key, '/ipfs/bafkqaaa', { ttlMs: 1000 })
  t.equal(await target(mount, name), '../ipfs/bafkqaaa')
  const { gets } = router
  put(router, key, `/ipfs/${ABSENT}`, { ttlMs: HOUR_MS, sequence: 2n })
  await until('it is refreshed in the background', () => router.gets > gets)
  await until('the link leads elsewhere', async () => (await target(mount, name)) === `../ipfs/${ABSENT}`)
  put(router, key, '/ipfs/bafkqaaa', { sequence: 1n })
  t.equal(await target(mount, name), `../ipfs/${ABSENT}`)
})

t.test('the last valid record is used when nobody can be asked', async t => {
  const [router, dns] = [await startRouter(t), await startDns(t)]
  const key = generateKey()
  const name = put(router, key, '/ipfs/bafkqaaa', { ttlMs: 1000 })
  dns.txt.set('_dnslink.example.org', ['dnslink=/ipfs/bafkqaaa'])
  const first = await Mount.start(t, { args: [...withRouter(router), '--dns', dns.url] })
  t.equal(await target(first, name), '../ipfs/bafkqaaa')
  t.equal(await target(first, 'example.org'), '../ipfs/bafkqaaa')
  await first.stop()
  const second = await Mount.start(t, { stateDir: first.stateDir, args: ['--offline'] })
  t.same((await readdir(second.path('ipns'))).sort(), ['example.org', name])
  t.equal(await target(second, name), '../ipfs/bafkqaaa')
  t.equal(await target(second, 'example.org'), '../ipfs/bafkqaaa')
  t.equal(await target(second, generateKey().name.text), 'EIO', 'one that was never seen')
})

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
  const { puts } = router
  await writeFile(second.path('staging', 'moved', 'page'), 'three')
  await waitFor(second, [second.path('staging', 'moved')])
  t.equal(router.puts, puts, 'it follows no more')
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
})
