/** The keeper: small, patient up to a point, gone when the mount is. */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { StatusReport } from '../../src/daemon/control-protocol.js'
import { PythonSession } from '../mount/python-session.js'
import { KeptMount, type KeptMountOptions } from '../support/kept-mount.js'
import { isMounted } from '../support/mount.js'
import { mainFile } from '../support/root.js'
import { isAlive, run } from '../support/run.js'
import { atEnd, tempDir } from '../support/temp.js'
import { until } from '../support/until.js'

t.setTimeout(60_000)

async function setup(t: Test, options: KeptMountOptions = {}) {
  const mount = await KeptMount.start(t, options)
  const python = PythonSession.start(t, { staging: mount.path('staging') })
  const crash = async () => mount.served((await mount.kill()) ?? 0)
  return { mount, python, crash }
}

t.test('commands wait for the daemon that takes over', async t => {
  const { mount } = await setup(t)
  const before = await mount.kill()
  const { status, stdout, stderr } = await mount.cli(['status', '--state', mount.stateDir, '--json'])
  t.equal(status, 0, stderr)
  t.not((JSON.parse(stdout) as StatusReport).pid, before)
  await mount.kill()
  t.match(await mount.cli(['unmount', mount.dir]), { status: 0, stdout: /is unmounted/ })
  t.equal(await mount.ended(), 0, 'the keeper has ended')
})

t.test('the keeper is small', async t => {
  const { mount, crash } = await setup(t)
  await crash()
  const status = await readFile(`/proc/${mount.keeper.pid}/status`, 'utf8')
  const kib = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1])
  t.ok(kib > 0 && kib < 4096, `${kib} KiB`)
})

t.test('after too many deaths the mount is taken down, with a word about it', async t => {
  const { mount, python } = await setup(t, { env: { CIDFS_KEEPER_DEATHS: '2' } })
  await python.run(`f = os.open(f"{staging}/f", os.O_RDWR | os.O_CREAT)`)
  for (let i = 0; i < 2; i++) await mount.served((await mount.kill()) ?? 0)
  await mount.kill()
  t.equal(await mount.ended(), 1)
  t.notOk(await mount.isMounted())
  t.match(mount.log, /died 3 times within a minute.*unmounting .*cidfs mount/)
  t.match(await python.run(`os.fsync(f)`), /^(ECONNABORTED|ENOTCONN)$/)
})

t.test('a mount that nobody can go on with is taken down', async t => {
  const { mount } = await setup(t)
  await rm(join(mount.stateDir, 'takeover.json'))
  await mount.kill()
  t.equal(await mount.ended(), 1)
  t.notOk(await mount.isMounted())
  t.match(mount.log, /does not tell how to go on with its mount/)
  for (const pid of await mount.processes()) t.notOk(await isAlive(pid))
})

t.test(
  'a mount in the background goes on, wherever it was started and whatever became of its configuration',
  async t => {
    const temp = await tempDir(t)
    const at = (name: string) => join(temp, name)
    for (const name of ['mnt', 'run']) await mkdir(at(name), { mode: 0o700 })
    await writeFile(at('config.toml'), 'settle = "20ms"\n')
    const env = { ...process.env, XDG_RUNTIME_DIR: at('run') }
    const cidfs = (...args: string[]) => run(process.execPath, [mainFile, ...args], { env, cwd: temp })
    atEnd(t, async () => {
      if (await isMounted(at('mnt'))) await cidfs('unmount', '--lazy', 'mnt')
    })
    const mounted = await cidfs('mount', '--isolated', '--config', 'config.toml', '--state', 'state', 'mnt')
    t.equal(mounted.status, 0, mounted.stderr)
    const record = async () => {
      const text = await readFile(join(temp, 'state', 'daemon.json'), 'utf8').catch(() => '{}')
      return JSON.parse(text) as { pid?: number; keeper?: { pid: number } }
    }
    const { keeper } = await record()
    t.ok(await isAlive(keeper!.pid))
    const crash = async () => {
      const { pid } = await record()
      process.kill(pid!, 'SIGKILL')
      await until('another daemon', async () => ![undefined, pid].includes((await record()).pid), 30_000)
    }
    await writeFile(join(temp, 'mnt', 'staging', 'file'), 'content')
    await crash()
    await writeFile(at('config.toml'), 'settle = nonsense\n')
    await crash()
    t.equal(await readFile(join(temp, 'mnt', 'staging', 'file'), 'utf8'), 'content')
    t.match(await readFile(join(temp, 'state', 'daemon.log'), 'utf8'), /config\.toml: .*going on as before/)
    t.match(await cidfs('unmount', 'mnt'), { status: 0 })
    t.notOk(await isMounted(at('mnt')))
    t.notOk(await isAlive(keeper!.pid), 'the keeper has ended')
  },
)

t.test('without a keeper the mount is as mortal as its daemon', async t => {
  const temp = await tempDir(t)
  const at = (name: string) => join(temp, name)
  for (const name of ['mnt', 'run']) await mkdir(at(name), { mode: 0o700 })
  const env = { ...process.env, XDG_RUNTIME_DIR: at('run') }
  const cidfs = (...args: string[]) => run(process.execPath, [mainFile, ...args], { env, cwd: temp })
  t.match(await cidfs('mount', '--no-keeper', '--isolated', '--state', 'state', 'mnt'), { status: 0 })
  const record = JSON.parse(await readFile(join(temp, 'state', 'daemon.json'), 'utf8')) as {
    pid: number
    keeper?: object
  }
  t.notOk(record.keeper)
  process.kill(record.pid, 'SIGKILL')
  t.match(await cidfs('unmount', 'mnt'), { status: 0, stdout: /its daemon had died/ })
})
