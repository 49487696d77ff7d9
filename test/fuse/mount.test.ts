/** Mounting, unmounting, and what can be in the way. */
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { clearStaleMount } from '../../src/fuse/mount.js'
import { mountAt } from '../../src/fuse/mount-table.js'
import { FuseSession } from '../../src/fuse/session.js'
import { openDeviceToAll, withShutDevice } from '../support/device.js'
import {
  ended,
  mounted,
  openDescriptors,
  run,
  sh,
  start,
  temporaryDirectory,
  threadCount,
  until,
} from './fixture.js'
import { MemoryFileSystem } from './memory-file-system.js'

t.setTimeout(120_000)

const CHILD = fileURLToPath(new URL('./mount-child.js', import.meta.url))
const WORKER_CHILD = fileURLToPath(new URL('./worker-child.js', import.meta.url))

t.test('a mountpoint that cannot be one is refused in one line', async t => {
  const dir = temporaryDirectory(t)
  const refused = (path: string, message: RegExp) =>
    t.rejects(FuseSession.mount(path, new MemoryFileSystem()), { code: 'BAD_MOUNTPOINT', message })
  await refused(join(dir, 'none'), /^the mountpoint .* does not exist: mkdir -p [^\n]*$/)
  await refused(join(dir, 'none/deeper'), /does not exist/)
  writeFileSync(join(dir, 'file'), '')
  await refused(join(dir, 'file'), /is not a directory$/)
  await refused(join(dir, 'file/below'), /is not a directory$/)
  await refused(dir, /is not empty$/)
  rmSync(join(dir, 'file'))
})

t.test('a mountpoint in use is refused, and its mount goes on', async t => {
  const { dir, fs } = await mounted(t)
  fs.addFile('f', Buffer.from('still here'))
  const other = FuseSession.mount(dir, new MemoryFileSystem())
  await t.rejects(other, { code: 'BAD_MOUNTPOINT', message: /already mounted/ })
  t.equal(await clearStaleMount(dir), false)
  t.equal(await sh(`cat ${dir}/f`), 'still here')
})

t.test('an ordinary directory is no stale mount', async t => {
  t.equal(await clearStaleMount(temporaryDirectory(t)), false)
})

t.test('a mountpoint may be reached by a symbolic link and have any name', async t => {
  const dir = temporaryDirectory(t)
  const real = join(dir, 'with space, ä and \\')
  mkdirSync(real)
  await sh(`ln -s 'with space, ä and \\' ${dir}/link`)
  const session = await FuseSession.mount(join(dir, 'link'), new MemoryFileSystem())
  t.equal(mountAt(real)?.type, 'fuse.cidfs')
  t.same(await session.unmount(), { lazy: false })
  t.equal(mountAt(real), undefined)
  rmSync(join(dir, 'link'))
  rmdirSync(real)
})

t.test('the read-ahead of the mount is raised', async t => {
  const { dir } = await mounted(t, new MemoryFileSystem(), { readAheadKib: 2048 })
  t.equal(await sh(`cat /sys/class/bdi/${mountAt(dir)!.device}/read_ahead_kb`), '2048')
})

t.test('a file that is still open makes the unmount lazy, and can be read to its end', async t => {
  const dir = temporaryDirectory(t)
  const fs = new MemoryFileSystem()
  fs.addFile('f', Buffer.from('first\nsecond\n'))
  const session = await FuseSession.mount(dir, fs)
  const child = start('sh', ['-c', `exec 3< ${dir}/f; echo ready; read wait; cat <&3`])
  const result = ended(child)
  await until(() => fs.openHandles.size > 0, 'the file is open')
  t.same(await session.unmount({ lazyAfterMs: 200 }), { lazy: true })
  t.equal(mountAt(dir), undefined, 'gone from the tree')
  child.stdin?.end('go\n')
  t.match(await result, { status: 0, stdout: 'ready\nfirst\nsecond\n' })
  await session.closed
  t.equal(fs.openHandles.size, 0, 'released, whether the kernel said so or not')
  t.same(await session.unmount(), { lazy: false }, 'unmounting again changes nothing')
})

t.test('a file that is closed in time makes the unmount wait', async t => {
  const dir = temporaryDirectory(t)
  const fs = new MemoryFileSystem()
  fs.addFile('f', Buffer.from('x'))
  const session = await FuseSession.mount(dir, fs)
  const result = ended(start('sh', ['-c', `exec 3< ${dir}/f; sleep 0.4`]))
  await until(() => fs.openHandles.size > 0, 'the file is open')
  t.same(await session.unmount({ lazyAfterMs: 10_000 }), { lazy: false })
  t.equal((await result).status, 0)
})

t.test('an unmount by somebody else closes the session', async t => {
  const dir = temporaryDirectory(t)
  const session = await FuseSession.mount(dir, new MemoryFileSystem())
  await sh(`umount ${dir}`)
  await session.closed
  t.same(await session.unmount(), { lazy: false })
})

t.test(
  'a connection that is closed without unmounting leaves a dead mount, which unmount removes',
  async t => {
    const dir = temporaryDirectory(t)
    const session = await FuseSession.mount(dir, new MemoryFileSystem())
    session.close()
    await session.closed
    t.match(await run('ls', [dir]), { status: 2, stderr: /not connected/ })
    t.same(await session.unmount(), { lazy: false })
    t.equal(mountAt(dir), undefined)
  },
)

t.test('a hundred mounts leave no descriptor and no thread behind', async t => {
  const dir = temporaryDirectory(t)
  const cycle = async () => {
    const fs = new MemoryFileSystem()
    fs.addFile('f', Buffer.from('x'))
    const session = await FuseSession.mount(dir, fs)
    fs.notifier!.invalidateInode(1, 0, 0)
    await new Promise(setImmediate)
    t.equal((await session.unmount()).lazy, false)
    await session.closed
  }
  await cycle()
  const [descriptors, threads] = [openDescriptors(), threadCount()]
  for (let i = 0; i < 100; i++) await cycle()
  t.same(openDescriptors(), descriptors)
  t.equal(threadCount(), threads)
})

t.test('the mount of a daemon that was killed is cleaned up, and can be mounted again', async t => {
  const dir = temporaryDirectory(t)
  const child = start(process.execPath, [CHILD, dir])
  const result = ended(child)
  await until(() => mountAt(dir) !== undefined, 'it is mounted')
  await until(() => child.stdout!.readableFlowing === true, 'it is listened to')
  t.equal(await sh(`cat ${dir}/f`), 'from the child')
  child.kill('SIGKILL')
  t.equal((await result).signal, 'SIGKILL')
  t.match(await run('ls', [dir]), { status: 2, stderr: /not connected/ })
  const session = await FuseSession.mount(dir, new MemoryFileSystem())
  t.equal(await sh(`ls -A ${dir}`), '')
  t.same(await session.unmount(), { lazy: false })
  t.equal(mountAt(dir), undefined, 'the dead one is gone as well')
})

t.test('a daemon that hangs is not taken for a dead one', async t => {
  const dir = temporaryDirectory(t)
  const child = start(process.execPath, [CHILD, dir])
  const result = ended(child)
  await until(() => mountAt(dir) !== undefined, 'it is mounted')
  t.equal(await sh(`cat ${dir}/f`), 'from the child')
  child.kill('SIGSTOP')
  const before = performance.now()
  t.equal(await clearStaleMount(dir), false)
  t.ok(performance.now() - before < 5000, 'nor does it make us hang')
  t.not(mountAt(dir), undefined)
  child.kill('SIGKILL')
  await result
  t.equal(await clearStaleMount(dir), true)
  t.equal(mountAt(dir), undefined)
})

t.test('a process ends by itself when its mount has gone', async t => {
  const dir = temporaryDirectory(t)
  const child = start(process.execPath, [CHILD, dir])
  const result = ended(child)
  await until(() => mountAt(dir) !== undefined, 'it is mounted')
  t.equal(await sh(`cat ${dir}/f; umount ${dir}`), 'from the child')
  t.match(await result, { status: 0, signal: null })
})

t.test('a worker that is terminated takes its mount down with it, and nothing else', async t => {
  const dir = temporaryDirectory(t)
  const result = await run(process.execPath, [WORKER_CHILD, dir])
  t.match(result, { status: 0, signal: null, stdout: /not connected|aborted|Input/i })
  t.equal(await clearStaleMount(dir), true)
})

t.test('a process that exits in the middle of it all ends at once', async t => {
  const dir = temporaryDirectory(t)
  const before = performance.now()
  t.match(await run(process.execPath, [WORKER_CHILD, dir, 'exit']), { status: 7, signal: null })
  t.ok(performance.now() - before < 10_000)
  t.equal(await clearStaleMount(dir), true)
})

t.test('an ordinary user mounts and unmounts through fusermount3', async t => {
  await openDeviceToAll()
  const dir = temporaryDirectory(t)
  chownSync(dir, 65_534, 65_534)
  const result = await run(process.execPath, [CHILD, dir, '65534'])
  t.equal(result.stderr, '')
  t.match(result, { status: 0 })
  const report = JSON.parse(result.stdout.split('\n').at(-2)!)
  t.match(report, { uid: 65_534, cat: 'from the child', lazy: false })
  t.match(report, { lazyWhileOpen: true, catAfterwards: 'from the child' })
  t.same(report.descriptorsLeft, [])
  t.match(mountAt(dir), undefined)
})

t.test('an ordinary user without a right to the mountpoint is told so', async t => {
  await openDeviceToAll()
  const dir = temporaryDirectory(t)
  chmodSync(dir, 0o755)
  const result = await run(process.execPath, [CHILD, dir, '65534'])
  t.equal(result.status, 1)
  t.match(result.stderr, /^BAD_MOUNTPOINT: fusermount3 refuses to mount on .*[^\n]\n$/)
})

t.test('what is missing is named with the command that helps', async t => {
  await openDeviceToAll()
  const dir = mkdtempSync(join(tmpdir(), 'cidfs-fuse-'))
  const device = mkdtempSync(join(tmpdir(), 'cidfs-device-'))
  t.teardown(() => rmdirSync(dir))
  t.teardown(() => rmSync(device, { recursive: true }))
  chownSync(dir, 65_534, 65_534)
  const shut = await run('unshare', withShutDevice(device, [process.execPath, CHILD, dir, '65534']))
  t.match(shut, { status: 1, stderr: /^MISSING_TOOL: no permission for \/dev\/fuse: chmod 666/ })
  const absent = await run('env', ['PATH=/nonexistent', process.execPath, CHILD, dir, '65534'])
  t.match(absent, { status: 1, stderr: /^MISSING_TOOL: fusermount3 is not installed.*apt-get install fuse3/ })
})
