/** The life of a mount beyond the ordinary: users, crashes, and programs that wait or hold on to it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { CID } from '../../src/core/cid.js'
import type { StatusReport } from '../../src/daemon/control-protocol.js'
import { sampleCar, wrapCarV2 } from '../support/car-files.js'
import { Dag, pattern } from '../support/dag.js'
import { openDeviceToAll } from '../support/device.js'
import { readCar, TestGateway } from '../support/gateway.js'
import { isMounted, Mount } from '../support/mount.js'
import { mainFile } from '../support/root.js'
import { isAlive, run, runOk } from '../support/run.js'
import { atEnd, tempDir } from '../support/temp.js'
import { testTransport } from '../support/transport.js'
import { until } from '../support/until.js'
import { askOne } from './ask.js'

t.setTimeout(110_000)

const NOBODY = 65_534

/** A mount, and a `cat` in it that waits for a block of a source that never answers. */
async function blockedReader(
  t: Test,
): Promise<{ mount: Mount; reader: ChildProcess; ended: Promise<unknown[]> }> {
  const gateway = await TestGateway.start(t)
  const dag = new Dag(gateway)
  const leaf = dag.raw(pattern(5000))
  const file = dag.file([{ cid: leaf, sizeBytes: 5000 }]).cid
  gateway.fault = cid => (cid.equals(leaf) ? { hang: true } : undefined)
  const mount = await Mount.start(t, { gateways: [gateway.url], args: ['--read-deadline', '60s'] })
  const reader = spawn('cat', [mount.path('ipfs', `${file}`)], { stdio: 'ignore' })
  const ended = once(reader, 'exit')
  t.teardown(() => void reader.kill('SIGKILL'))
  await until('the reader waits', () => gateway.count(leaf) > 0)
  return { mount, reader, ended }
}

t.test('a program that waits for data gets an error when the daemon is killed', async t => {
  const { mount, ended } = await blockedReader(t)
  await mount.kill()
  const [status, signal] = (await Promise.race([
    ended,
    sleep(5000, ['still waiting'], { ref: false }),
  ])) as unknown[]
  t.same([status, signal], [1, null])
  t.match(await mount.cli(['unmount', mount.dir]), { status: 0 })
  t.notOk(await mount.isMounted())
})

t.test('a program that waits for data does not keep the daemon from ending', async t => {
  const { mount, ended } = await blockedReader(t)
  const start = performance.now()
  const { status } = await mount.cli(['unmount', '--lazy', mount.dir], { timeoutMs: 20_000 })
  t.equal(status, 0)
  t.notOk(await mount.isMounted())
  t.ok(performance.now() - start < 10_000, `${Math.round(performance.now() - start)} ms`)
  await until('the daemon has ended', async () => !(await isAlive(mount.pid)))
  t.same((await ended)[0], 1, 'and the program was told')
  await mount.ended()
})

t.test('a directory that somebody is in is detached, and goes when it is left', async t => {
  const mount = await Mount.start(t)
  const sitter = spawn('sh', ['-c', 'cd "$0" && read line; ls', mount.path('staging')], {
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  const ended = once(sitter, 'exit')
  t.teardown(() => void sitter.kill('SIGKILL'))
  const cwd = () => runOk('readlink', [`/proc/${sitter.pid}/cwd`])
  await until('it is there', async () => (await cwd()).stdout.includes('staging'))
  const { status, stdout } = await mount.cli(['unmount', mount.dir])
  t.equal(status, 0)
  t.match(stdout, /detached/)
  t.ok(await isAlive(mount.pid), 'it still serves who is there')
  sitter.stdin.end('\n')
  t.same(await ended, [0, null])
  t.equal(await mount.ended(), 0)
})

t.test('what is written through a detached mount is there after the next one', async t => {
  const mount = await Mount.start(t)
  const writer = spawn(
    'sh',
    ['-c', 'exec > "$0"; read line; echo written late', mount.path('staging', 'late')],
    {
      stdio: ['pipe', 'ignore', 'ignore'],
    },
  )
  t.teardown(() => void writer.kill('SIGKILL'))
  const late = () => askOne({ op: 'stat', path: mount.path('staging', 'late') })
  await until('it is open', async () => (await late()).stat)
  t.match(await mount.cli(['unmount', mount.dir]), { status: 0, stdout: /detached/ })
  writer.stdin.end('\n')
  t.equal(await mount.ended(), 0)
  const again = await Mount.start(t, { dir: mount.dir, stateDir: mount.stateDir })
  t.equal((await again.run('cat', ['staging/late'])).stdout, 'written late\n')
})

for (const signal of ['SIGTERM', 'SIGHUP'] as const) {
  t.test(`${signal} unmounts also when nobody reads the daemon's output any more`, async t => {
    const temp = await tempDir(t)
    const dir = join(temp, 'mnt')
    await mkdir(dir)
    const args = ['mount', '--foreground', '--isolated', '--transport', testTransport]
    args.push('--state', join(temp, 'state'), dir)
    const daemon = spawn(process.execPath, [mainFile, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, DEBUG: 'cidfs:*', XDG_RUNTIME_DIR: temp },
    })
    atEnd(t, async () => {
      daemon.kill('SIGKILL')
      if (await isMounted(dir)) await run('umount', ['-l', dir])
    })
    const ended = once(daemon, 'exit')
    await until('it is mounted', () => isMounted(dir))
    for (const output of [daemon.stdout, daemon.stderr]) output.destroy()
    t.same((await askOne({ op: 'list', path: dir })).names?.map(String).includes('staging'), true)
    daemon.kill(signal)
    t.same(await ended, [0, null])
    t.notOk(await isMounted(dir))
  })
}

t.test('an ordinary user mounts, reads and publishes, and nobody else sees it', async t => {
  await openDeviceToAll()
  const gateway = await TestGateway.start(t)
  const { root, blocks } = await sampleCar(await tempDir(t))
  for (const { cid, bytes } of blocks) gateway.add(cid, bytes)
  const mount = await Mount.start(t, { gateways: [gateway.url], uid: NOBODY, gid: NOBODY })
  t.match((await mount.run('ls', ['-l', `ipfs/${root}`])).stdout, /3000000 .* large/)
  await mount.run('grep', ['-c', '', `ipfs/${root}/large`])
  await mount.run('sh', [
    '-c',
    'echo mine > staging/file && mkdir staging/dir && cp staging/file staging/dir/',
  ])
  t.match(await mount.cli(['wait', mount.path('staging')]), { status: 0 })
  const { stdout: cid } = await mount.cli(['cid', mount.path('staging', 'file')])
  t.equal((await mount.run('cat', [`ipfs/${cid.trim()}`])).stdout, 'mine\n')
  t.equal((await mount.run('stat', ['-c', '%u:%g', 'staging/file'])).stdout.trim(), `${NOBODY}:${NOBODY}`)
  t.equal((await askOne({ op: 'list', path: mount.dir })).errno, 'EACCES', 'root is another user')
  t.match(await mount.json<StatusReport>(['status', mount.dir]), { pid: mount.pid })
  t.match(await mount.cli(['unmount', mount.dir]), { status: 0, stdout: /is unmounted/ })
  t.equal(await mount.ended(), 0)
})

t.test('other users see a mount with --allow-other, and not without', async t => {
  const temp = await tempDir(t)
  await chmod(temp, 0o755)
  const asNobody = { uid: NOBODY, gid: NOBODY, cwd: '/' }
  for (const args of [[], ['--allow-other']]) {
    const dir = join(temp, `mnt${args.length}`)
    await mkdir(dir)
    await chmod(dir, 0o755)
    const mount = await Mount.start(t, { dir, args })
    const { status, stdout, stderr } = await run('ls', [dir], asNobody)
    if (args.length === 0) t.match(stderr, /Permission denied/)
    else t.match({ status, stdout }, { status: 0, stdout: /^ipfs\n(ipns\n)?pins\nstaging\n$/ })
    const write = await run('touch', [join(dir, 'staging', 'theirs')], asNobody)
    t.not(write.status, 0, 'staging is its owner’s')
    await mount.stop()
  }
})

t.test('a CARv2 and its export as CARv1 carry the same tree to other mounts', async t => {
  const temp = await tempDir(t)
  const { root, path, blocks } = await sampleCar(temp)
  const second = join(temp, 'second.car')
  await wrapCarV2(second, await readFile(path))
  const sums = (mount: Mount) => mount.run('sh', ['-c', `cd ipfs/${root} && sha256sum large a sub/b`])
  const one = await Mount.start(t)
  t.match(await one.cli(['import', second, '--state', one.stateDir]), { status: 0, stdout: `${root}\n` })
  const { stdout: expected } = await sums(one)
  const car = join(temp, 'exported.car')
  t.match(await one.cli(['export', `${root}`, '-o', car, '--state', one.stateDir]), { status: 0 })
  const exported = await readCar(car)
  const names = (all: { cid: CID }[]) => [...new Set(all.map(({ cid }) => `${cid}`))].sort()
  t.same(exported.roots.map(String), [`${root}`])
  t.same(names(exported.blocks), names(blocks))
  const stateDir = join(temp, 'state')
  t.match(await one.cli(['import', car, '--state', stateDir]), { status: 0 }, 'without a daemon')
  const other = await Mount.start(t, { stateDir, args: ['--offline'] })
  t.equal((await sums(other)).stdout, expected)
  t.match((await other.run('ls', ['ipfs'])).stdout, `${root}`, 'its root is pinned')
})
