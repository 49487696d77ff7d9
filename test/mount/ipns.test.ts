import { readdir } from 'node:fs/promises'
import t from 'tap'
import { cidOf } from '../../src/core/cid.js'
import { generateKey, type NameKey } from '../../src/p2p/ipns-key.js'
import { signRecord } from '../../src/p2p/ipns-record.js'
import { Dag } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { Mount } from '../support/mount.js'
import { type RecordServer, startDns, startRouter } from '../support/name-servers.js'
import { isNative } from '../support/transport.js'
import { target, until, withRouter } from './names.js'
import { cli } from './pinned.js'
import { xattr } from './staged.js'

t.setTimeout(180_000)

const ABSENT = cidOf(0x55, Buffer.from('nowhere'))
const HOUR_MS = 3_600_000

function record(key: NameKey, value: string, over: object = {}): Uint8Array {
  return signRecord(key, { value, sequence: 1n, eolMs: Date.now() + HOUR_MS, ttlMs: HOUR_MS, ...over })
}

function put(router: RecordServer, key: NameKey, value: string, over: object = {}): string {
  router.records.set(key.name.text, record(key, value, over))
  return key.name.text
}

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
  put(router, deep, `/ipfs/${root}`, { sequence: 2n })
  t.equal((await cli(mount, ['ipns', 'resolve', deepName])).stdout, `/ipfs/${root}/dir\n`, 'known, and fresh')
  t.equal((await cli(mount, ['ipns', 'resolve', '--refresh', deepName])).stdout, `/ipfs/${root}\n`)
  t.match(await cli(mount, ['ipns', 'resolve', 'nonsense']), {
    status: 2,
    stderr: /neither the name of a key/,
  })
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
  for (const tool of ['touch', 'mkdir']) {
    await t.rejects(mount.run(tool, ['ipns/x']), /Read-only file system/, tool)
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

t.test('a name that nobody answers for fails at the deadline', async t => {
  const router = await startRouter(t)
  router.hang = true
  const mount = await Mount.start(t, { args: [...withRouter(router), '--read-deadline', '2s'] })
  const slow = generateKey().name.text
  t.equal(await target(mount, slow), 'EIO')
  t.match(
    await xattr(mount, 'ipns', 'user.ipfs.error'),
    new RegExp(`${slow}.*(no answer in time|within 2000 ms)`),
  )
})

// fuse-native passes no interrupts on
if (isNative) {
  t.test('a name that hangs holds up no other', async t => {
    const [router, dns] = [await startRouter(t), await startDns(t)]
    router.hang = true
    dns.txt.set('_dnslink.example.org', ['dnslink=/ipfs/bafkqaaa'])
    const mount = await Mount.start(t, { args: [...withRouter(router), '--dns', dns.url] })
    const slow = target(mount, generateKey().name.text)
    await until('it is being looked up', () => router.gets > 0)
    const first = await Promise.race([slow, target(mount, 'example.org')])
    t.equal(first, '../ipfs/bafkqaaa')
    router.hang = false
    await mount.run('kill', [`${mount.pid}`]) // ends what waits
    t.not(await slow, '../ipfs/bafkqaaa')
    t.equal(await mount.ended(), 0)
  })

  t.test('waiting for a name can be interrupted', async t => {
    const router = await startRouter(t)
    router.hang = true
    const mount = await Mount.start(t, { args: withRouter(router) })
    const script = `
import os, signal, sys
signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(InterruptedError()))
signal.setitimer(signal.ITIMER_REAL, 0.3)
try: os.readlink(sys.argv[1])
except InterruptedError: print('interrupted')`
    const { stdout } = await mount.run('python3', ['-c', script, `ipns/${generateKey().name.text}`])
    t.equal(stdout, 'interrupted\n')
  })
}

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
