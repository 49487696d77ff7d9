/** A daemon's life as the commands lead it, on a real mount. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, open, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { EXIT } from '../../src/cli/exit-codes.js'
import type { StatusReport } from '../../src/daemon/control-protocol.js'
import { isMounted, Mount } from '../support/mount.js'
import { mainFile } from '../support/root.js'
import { isAlive, type RunResult, run } from '../support/run.js'
import { tempDir } from '../support/temp.js'

/** Directories for a daemon that the test itself starts, and a way to call the command line for them. */
async function setup(t: Test) {
  const temp = await tempDir(t)
  const dir = join(temp, 'mnt')
  const stateDir = join(temp, 'state')
  const env = { ...process.env, XDG_RUNTIME_DIR: join(temp, 'run') }
  for (const path of [dir, env.XDG_RUNTIME_DIR]) await mkdir(path, { mode: 0o700 })
  const cidfs = (args: string[]): Promise<RunResult> =>
    run(process.execPath, [mainFile, ...args], { env, cwd: temp })
  t.teardown(async () => {
    if (await isMounted(dir)) await cidfs(['unmount', '--lazy', dir])
  })
  return { temp, dir, stateDir, env, cidfs, mountArgs: ['mount', '--isolated', '--state', stateDir, dir] }
}

t.test('mount returns when the mount answers; status, cid, wait and unmount find it', async t => {
  const { dir, stateDir, cidfs, mountArgs } = await setup(t)
  const mounted = await cidfs(mountArgs)
  t.equal(mounted.status, 0, mounted.stderr)
  t.match(mounted.stdout, `${dir} is mounted`)
  t.match(mounted.stdout, stateDir)
  await writeFile(join(dir, 'staging', 'a file'), 'hello\n')
  t.match(await cidfs(['wait', join(dir, 'staging')]), { status: 0, stdout: '', stderr: '' })
  const cid = await cidfs(['cid', join(dir, 'staging', 'a file')])
  t.match(cid, { status: 0, stderr: '' })
  t.equal(await readFile(join(dir, 'ipfs', cid.stdout.trim()), 'utf8'), 'hello\n')
  t.match((await cidfs(['status'])).stdout, `${dir} `)
  const { pid } = JSON.parse((await cidfs(['status', dir, '--json'])).stdout) as StatusReport
  t.match(await cidfs(['unmount', dir]), { status: 0, stdout: `${dir} is unmounted\n`, stderr: '' })
  t.notOk(await isMounted(dir))
  t.notOk(await isAlive(pid), 'the daemon has ended')
  t.match(await cidfs(['unmount', dir]), { status: EXIT.NOT_RUNNING })
})

t.test('what the mount command suggests works when it is pasted', async t => {
  const { dir, env, temp, cidfs, mountArgs } = await setup(t)
  const { stdout } = await cidfs(mountArgs)
  const lines = stdout.slice(stdout.indexOf('Try:\n')).split('\n').slice(1).filter(Boolean)
  t.ok(lines.length >= 4)
  for (const line of lines) {
    const { status, stderr } = await run('sh', ['-c', line], { env, cwd: temp })
    t.equal(status, 0, `${line}\n${stderr}`)
  }
  t.notOk(await isMounted(dir), 'the last one unmounts')
})

t.test('--json reports have the documented shapes', async t => {
  const mount = await Mount.start(t)
  const { version, transport, offline, isolated, sources, store, staging, fuse, memory } =
    await mount.json<StatusReport>(['status', mount.dir])
  t.match(
    { version, transport, offline, isolated },
    { version: /^\d/, transport: 'native', offline: false, isolated: true },
  )
  t.same(sources, [])
  t.match(store, { blocks: Number, bytes: Number, pins: Number, freeBytes: Number })
  t.match(staging, {
    writing: Number,
    queued: Number,
    publishing: Number,
    failed: Number,
    queuedBytes: Number,
    lastError: null,
  })
  t.match(fuse, { operations: Object, requests: Number, inFlight: Number, errors: 0 })
  t.match(memory, { rssBytes: Number, heapUsedBytes: Number, externalBytes: Number })
  await writeFile(mount.path('staging', 'x'), 'x')
  t.same(await mount.json(['wait', mount.path('staging', 'x')]), { pinned: 1, failed: [] })
  t.match(await mount.json(['cid', mount.path('staging', 'x')]), {
    cid: /^baf/,
    state: 'pinned',
    error: null,
  })
  const all = await mount.json<StatusReport[]>(['status'])
  t.ok(all.some(({ pid }) => pid === mount.pid))
  const byState = await mount.json<StatusReport>(['status', '--state', mount.stateDir])
  t.equal(byState.pid, mount.pid)
})

t.test('paths that are not there, or have no CID, are told with exit code 1', async t => {
  const mount = await Mount.start(t)
  t.match(await mount.cli(['cid', mount.path('staging', 'none')]), {
    status: EXIT.FAILED,
    stderr: /^cidfs: .*none.*no such file.*\n$/,
  })
  t.match(await mount.cli(['wait', mount.path('staging', 'none')]), {
    status: EXIT.FAILED,
    stderr: /^cidfs: .*none/,
  })
  t.match(await mount.cli(['cid', mount.dir]), { status: EXIT.FAILED, stderr: /no CID/ })
})

t.test('a state directory in use is refused, and its daemon goes on', async t => {
  const mount = await Mount.start(t)
  const dir = await tempDir(t)
  const second = await mount.cli(['mount', '--isolated', '--state', mount.stateDir, dir])
  t.match(second, { status: EXIT.STATE, stdout: '', stderr: /^cidfs: .*in use.*\n$/ })
  t.equal((await mount.json<StatusReport>(['status', mount.dir])).pid, mount.pid)
})

t.test('a state directory of a newer version is refused and left alone', async t => {
  const { dir, stateDir, cidfs, mountArgs } = await setup(t)
  await mkdir(stateDir)
  await writeFile(join(stateDir, 'version'), '{"version":999}')
  t.match(await cidfs(mountArgs), { status: EXIT.STATE, stdout: '', stderr: /^cidfs: .*newer.*\n$/ })
  t.equal(await readFile(join(stateDir, 'version'), 'utf8'), '{"version":999}')
  t.notOk(await isMounted(dir))
})

t.test('a directory that is mounted already is refused', async t => {
  const mount = await Mount.start(t)
  const state = await tempDir(t)
  const second = await mount.cli(['mount', '--isolated', '--state', state, mount.dir])
  t.match(second, { status: EXIT.USAGE, stderr: /^cidfs: .*already mounted.*\n$/ })
  t.ok(await mount.isMounted())
})

t.test('the mount of a daemon that was killed is removed by unmount, and by the next mount', async t => {
  const first = await Mount.start(t)
  await first.kill()
  t.ok(await first.isMounted())
  const removed = await first.cli(['unmount', first.dir])
  t.match(removed, { status: 0, stdout: /its daemon had died/ })
  t.notOk(await first.isMounted())
  const second = await Mount.start(t, { dir: first.dir, stateDir: first.stateDir })
  await second.kill()
  const third = await Mount.start(t, { dir: first.dir, stateDir: first.stateDir })
  await writeFile(third.path('staging', 'alive'), 'yes')
  t.equal((await third.run('cat', ['staging/alive'])).stdout, 'yes')
})

t.test('unmount with a file open detaches, says so, and the daemon ends with the file', async t => {
  const { dir, cidfs, mountArgs } = await setup(t)
  t.match(await cidfs(mountArgs), { status: 0 })
  const file = await open(join(dir, 'staging', 'open'), 'w+')
  await file.write('before')
  const { pid } = JSON.parse((await cidfs(['status', dir, '--json'])).stdout) as StatusReport
  t.match(await cidfs(['unmount', dir]), { status: 0, stdout: /detached/ })
  t.notOk(await isMounted(dir))
  await file.write(' and after')
  await file.close()
  for (let i = 0; i < 200 && (await isAlive(pid)); i++) await sleep(50)
  t.notOk(await isAlive(pid), 'the daemon has ended')
})

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  t.test(`${signal} unmounts a daemon in the foreground and ends it with 0`, async t => {
    const { dir, env, mountArgs } = await setup(t)
    const daemon = spawn(process.execPath, [mainFile, ...mountArgs, '--foreground'], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const [lines] = await once(daemon.stdout, 'data')
    t.match(String(lines), `${dir} is mounted`)
    await stat(join(dir, 'staging'))
    daemon.kill(signal)
    daemon.kill(signal) // as npm and a terminal do together
    const [status] = await once(daemon, 'exit')
    t.equal(status, 0)
    t.notOk(await isMounted(dir))
  })
}

t.test('the log of a daemon in the background is private and tells what it serves', async t => {
  const { dir, stateDir, cidfs, mountArgs } = await setup(t)
  t.match(await cidfs(mountArgs), { status: 0 })
  const log = join(stateDir, 'daemon.log')
  t.match(await readFile(log, 'utf8'), `serves ${dir}`)
  t.equal((await stat(log)).mode & 0o777, 0o600)
  t.equal((await stat(stateDir)).mode & 0o777, 0o700)
})
