/** The keeper: small, patient up to a point, gone when the mount is. */
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { StatusReport } from '../../src/daemon/control-protocol.js'
import { PythonSession } from '../mount/python-session.js'
import { KeptMount, type KeptMountOptions } from '../support/kept-mount.js'
import { isAlive } from '../support/run.js'

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
