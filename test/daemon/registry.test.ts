import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, readdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  controlSocketPath,
  findAll,
  findByPath,
  findByState,
  isRunning,
  register,
  resolveOutsideMounts,
} from '../../src/daemon/registry.js'
import { tempDir } from '../support/temp.js'

async function setup(t: Test) {
  const dir = await tempDir(t)
  const env = { XDG_RUNTIME_DIR: join(dir, 'run') }
  for (const name of ['run', 'state', 'mnt']) await mkdir(join(dir, name), { mode: 0o700 })
  const own = { mountpoint: join(dir, 'mnt'), stateDir: join(dir, 'state'), socket: join(dir, 'state', 's') }
  return { dir, env, own }
}

t.test('a registered daemon is found by state directory, mountpoint and path', async t => {
  const { dir, env, own } = await setup(t)
  const unregister = await register(own, env)
  const found = await findByState(own.stateDir)
  t.match(found, { ...own, pid: process.pid })
  t.match(await findByPath(join(dir, 'mnt'), env), { daemon: own, path: '' })
  t.match(await findByPath(join(dir, 'mnt', 'staging', 'a b', '..', 'c'), env), {
    daemon: own,
    path: 'staging/c',
  })
  t.ok((await findAll(env)).some(({ mountpoint }) => mountpoint === own.mountpoint))
  await unregister()
  t.equal(await findByState(own.stateDir), undefined)
  t.equal(await findByPath(join(dir, 'mnt'), env), undefined)
})

t.test('a name that only begins like the mountpoint is not in it', async t => {
  const { dir, env, own } = await setup(t)
  t.teardown(await register(own, env))
  t.equal(await findByPath(join(dir, 'mnt2'), env), undefined)
  t.equal(await findByPath(dir, env), undefined)
})

t.test('the innermost of nested mounts serves a path', async t => {
  const { dir, env, own } = await setup(t)
  t.teardown(await register(own, env))
  const inner = { ...own, mountpoint: join(dir, 'mnt', 'x'), stateDir: join(dir, 'run') }
  t.teardown(await register(inner, env))
  t.match(await findByPath(join(dir, 'mnt', 'x', 'y'), env), { daemon: inner, path: 'y' })
  t.match(await findByPath(join(dir, 'mnt', 'xy'), env), { daemon: own, path: 'xy' })
})

t.test('a path through symbolic links is found, links inside the mount are left alone', async t => {
  const { dir, env, own } = await setup(t)
  t.teardown(await register(own, env))
  await symlink('mnt', join(dir, 'link'))
  await symlink(join(dir, 'link'), join(dir, 'link2'))
  await symlink('/elsewhere', join(dir, 'mnt', 'inside'))
  t.match(await findByPath(join(dir, 'link2', 'inside', 'f'), env), { daemon: own, path: 'inside/f' })
})

t.test('links that lead round in circles end', async t => {
  const { dir } = await setup(t)
  await symlink('b', join(dir, 'a'))
  await symlink('a', join(dir, 'b'))
  t.ok(await resolveOutsideMounts(join(dir, 'a', 'c')))
})

t.test('the record of a process that is gone is removed, not returned', async t => {
  const { env, own } = await setup(t)
  const child = spawn('true')
  await once(child, 'exit')
  const record = { ...own, pid: child.pid, started: '1' }
  await writeFile(join(own.stateDir, 'daemon.json'), JSON.stringify(record))
  t.equal(await findByState(own.stateDir), undefined)
  t.notOk((await readdir(own.stateDir)).includes('daemon.json'))
  t.same(
    (await findAll(env)).filter(({ mountpoint }) => mountpoint === own.mountpoint),
    [],
  )
})

t.test('another process under the pid of a record is not the daemon', async t => {
  const { own, env } = await setup(t)
  const unregister = await register(own, env)
  t.teardown(unregister)
  const { pid, started } = (await findByState(own.stateDir))!
  t.equal(await isRunning({ pid, started }), true)
  t.equal(await isRunning({ pid, started: `${Number(started) - 1}` }), false)
})

t.test('records that others could write are not believed', async t => {
  const { env, own } = await setup(t)
  t.teardown(await register(own, env))
  await chmod(join(env.XDG_RUNTIME_DIR, 'cidfs'), 0o777)
  t.equal(await findByPath(own.mountpoint, env), undefined)
})

t.test('a damaged record is no daemon', async t => {
  const { own } = await setup(t)
  await writeFile(join(own.stateDir, 'daemon.json'), '{"pid":')
  t.equal(await findByState(own.stateDir), undefined)
})

t.test('the control socket of a state directory that is too deep lies in the runtime directory', async t => {
  const { dir, env } = await setup(t)
  t.equal(await controlSocketPath(join(dir, 's'), env), join(dir, 's', 'control.sock'))
  const path = await controlSocketPath(join(dir, 'x'.repeat(108)), env)
  t.ok(path.startsWith(join(env.XDG_RUNTIME_DIR, 'cidfs')))
  t.ok(Buffer.byteLength(path) < 108)
})
