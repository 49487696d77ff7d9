/** The life of a mount beyond the ordinary: users, crashes, and programs that wait or hold on to it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { StatusReport } from '../../src/daemon/control-protocol.js'
import { Dag, link, pattern } from '../support/dag.js'
import { setDeviceMode } from '../support/fuse-device.js'
import { readCar, TestGateway } from '../support/gateway.js'
import { isMounted, Mount } from '../support/mount.js'
import { fixture, mainFile } from '../support/root.js'
import { isAlive, run, runOk } from '../support/run.js'
import { tempDir } from '../support/temp.js'
import { askOne } from './ask.js'
import { checkTree } from './check.js'

const NOBODY = 65_534

async function until(condition: () => boolean | Promise<boolean>, what: string, timeoutMs = 10_000) {
  for (const end = performance.now() + timeoutMs; !(await condition()); await sleep(10)) {
    if (performance.now() > end) throw new Error(`waited in vain until ${what}`)
  }
}

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
  await until(() => gateway.count(leaf) > 0, 'the reader waits')
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
  await until(async () => !(await isAlive(mount.pid)), 'the daemon has ended')
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
  await until(async () => (await cwd()).stdout.includes('staging'), 'it is there')
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
  await until(
    async () => (await askOne({ op: 'stat', path: mount.path('staging', 'late') })).stat !== undefined,
    'it is open',
  )
  t.match(await mount.cli(['unmount', mount.dir]), { status: 0, stdout: /detached/ })
  writer.stdin.end('\n')
  t.equal(await mount.ended(), 0)
  const again = await Mount.start(t, { dir: mount.dir, stateDir: mount.stateDir })
  t.equal((await again.run('cat', ['staging/late'])).stdout, 'written late\n')
})

t.test('an ordinary user mounts, reads and publishes, and nobody else sees it', async t => {
  await setDeviceMode(t, 0o666)
  const gateway = await TestGateway.start(t)
  await gateway.addCar(fixture('dir-with-files.car'))
  const mount = await Mount.start(t, { gateways: [gateway.url], uid: NOBODY, gid: NOBODY })
  const [root] = (await readCar(fixture('dir-with-files.car'))).roots
  const { stdout: listed } = await mount.run('ls', ['-l', `ipfs/${root}`])
  t.match(listed, /ascii.txt|hello.txt/)
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
    else t.match({ status, stdout }, { status: 0, stdout: /ipfs[^]*staging/ })
    const write = await run('touch', [join(dir, 'staging', 'theirs')], asNobody)
    t.not(write.status, 0, 'staging is its owner’s')
    await mount.stop()
  }
})

t.test('a CARv2 and its export as CARv1 carry the same tree to other mounts', async t => {
  const temp = await tempDir(t)
  const { roots, blocks } = await readCar(fixture('unixfs-carv2.car'))
  const one = await Mount.start(t)
  await one.json(['import', fixture('unixfs-carv2.car'), '--state', one.stateDir])
  await checkTree(t, one, 'unixfs-carv2')
  const car = join(temp, 'exported.car')
  t.match(await one.cli(['export', `${roots[0]}`, '-o', car, '--state', one.stateDir]), { status: 0 })
  const exported = await readCar(car)
  t.same(exported.roots.map(String), roots.map(String))
  t.same(new Set(exported.blocks.map(block => `${block.cid}`)), new Set(blocks.map(block => `${block.cid}`)))
  const stateDir = join(temp, 'state')
  t.match(await one.cli(['import', car, '--state', stateDir]), { status: 0 }, 'without a daemon')
  const other = await Mount.start(t, { stateDir, args: ['--offline'] })
  await checkTree(t, other, 'unixfs-carv2')
  t.match((await other.run('ls', ['ipfs'])).stdout, `${roots[0]}`, 'its root is pinned')
})

t.test('twenty mounts in the background, one after the other, leave nothing', async t => {
  const temp = await tempDir(t)
  const [dir, stateDir, runtimeDir] = ['mnt', 'state', 'run'].map(name => join(temp, name)) as [
    string,
    string,
    string,
  ]
  for (const path of [dir, runtimeDir]) await mkdir(path, { mode: 0o700 })
  const env = { ...process.env, XDG_RUNTIME_DIR: runtimeDir }
  const cidfs = (args: string[]) => runOk(process.execPath, [mainFile, ...args], { env, cwd: '/' })
  t.teardown(async () => {
    if (await isMounted(dir)) await cidfs(['unmount', '--lazy', dir])
  })
  const dag = new Dag({ add: () => {} })
  const identity = dag.node(
    { type: 'directory' },
    [link(dag.raw(Buffer.from('!'), 'identity'), 'f', 1)],
    'identity',
  )
  const names: string[][] = []
  for (let i = 0; i < 20; i++) {
    const { pid } = JSON.parse(
      (await cidfs(['mount', '--isolated', '--json', '--state', stateDir, dir])).stdout,
    )
    t.equal((await runOk('cat', [join(dir, 'ipfs', `${identity}`, 'f')])).stdout, '!')
    await cidfs(['unmount', dir])
    if ((await isAlive(pid)) || (await isMounted(dir))) t.fail(`cycle ${i} left something`)
    names.push((await readdir(stateDir, { recursive: true })).sort())
  }
  t.same(names.at(-1), names[0], 'nor new files in its state')
  t.same(await readdir(runtimeDir, { recursive: true }), ['cidfs'])
  t.same(await readdir(dir), [])
})
