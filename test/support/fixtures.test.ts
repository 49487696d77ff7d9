/** The fixtures themselves: what they promise, and that they notice what they are to notice. */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { CODEC_RAW, cidOf } from '../../src/core/cid.js'
import { TestGateway } from './gateway.js'
import { KuboNode, missingKubo } from './kubo.js'
import { Mount } from './mount.js'
import { isAlive, run } from './run.js'
import { type Owner, tempDir } from './temp.js'

/** An owner whose end the test chooses. */
function scope() {
  const ends: (() => unknown)[] = []
  const failures: string[] = []
  const owner: Owner = {
    teardown: end => void ends.push(end),
    fail: ((message: string) => failures.push(message)) as unknown as Test['fail'],
  }
  const end = async () => {
    for (let next = ends.pop(); next !== undefined; next = ends.pop()) await next()
    return failures
  }
  return { owner, end }
}

t.test('a mount ends without a trace', async t => {
  const { owner, end } = scope()
  const mount = await Mount.start(owner)
  await writeFile(mount.path('staging', 'x'), 'x')
  t.same(await mount.leakedDescriptors(), [])
  t.same(await end(), [])
  t.notOk(await mount.isMounted())
  t.notOk(await isAlive(mount.pid))
  await t.rejects(readFile(mount.stateDir), { code: 'ENOENT' })
})

t.test('a daemon that has died is noticed, and its mount is removed', async t => {
  const { owner, end } = scope()
  const mount = await Mount.start(owner)
  process.kill(mount.pid, 'SIGKILL')
  t.match(await end(), [/the daemon/])
  t.notOk(await mount.isMounted())
})

t.test('a daemon that cannot start is told with its reason', async t => {
  await t.rejects(Mount.start(t, { args: ['--gateway', 'nonsense'] }), {
    message: /did not start.*--gateway/s,
  })
})

t.test('a tool that hangs, fails or is missing is an error in time', async t => {
  await t.rejects(run('sleep', ['60'], { timeoutMs: 100 }), { message: /sleep 60: not done after 100 ms/ })
  await t.rejects(run('no-such-tool'), { code: 'ENOENT' })
  t.match(await run('sh', ['-c', 'cat; exit 3'], { input: 'abc' }), { status: 3, stdout: 'abc' })
})

t.test('the gateway serves blocks, and misbehaves as told', async t => {
  const gateway = await TestGateway.start(t)
  const bytes = Buffer.from('a block')
  const cid = cidOf(CODEC_RAW, bytes)
  const ask = () => fetch(`${gateway.url}/ipfs/${cid}?format=raw`, { signal: AbortSignal.timeout(5000) })
  t.equal((await ask()).status, 404)
  gateway.add(cid, bytes)
  t.equal(await (await ask()).text(), 'a block')
  gateway.fault = (_cid, nth) => [{}, {}, { wrongBytes: true }, { status: 503 }, { truncate: true }][nth - 1]
  t.not(await (await ask()).text(), 'a block')
  t.equal((await ask()).status, 503)
  await t.rejects(ask().then(response => response.arrayBuffer()))
  t.equal(gateway.count(cid), 5)
})

t.test('two Kubos exchange a file over loopback', { skip: await missingKubo(), timeout: 90_000 }, async t => {
  const [one, two] = await Promise.all([
    KuboNode.start(t, { profiles: ['unixfs-v1-2025'] }),
    KuboNode.start(t, { profiles: ['unixfs-v1-2025'] }),
  ])
  const dir = await tempDir(t)
  await mkdir(join(dir, 'tree'))
  await writeFile(join(dir, 'tree', 'file'), 'hello\n')
  const cid = await one.add(join(dir, 'tree'))
  t.match(cid, /^bafybei/)
  t.ok((await one.pins()).includes(cid))
  await two.connect(one)
  t.equal((await two.cat(`${cid}/file`)).toString(), 'hello\n')
  const raw = await fetch(`${one.gatewayUrl}/ipfs/${cid}?format=raw`)
  t.equal(raw.status, 200)
  t.match(await (await fetch(`${two.rpcUrl}/api/v0/id`, { method: 'POST' })).json(), { ID: /^12D3/ })
})
