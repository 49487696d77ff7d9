/** Mounting and unmounting over fuse-native, and what can be in the way. */
import { chownSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { clearStaleMount } from '../../src/fuse/mount.js'
import { mountAt } from '../../src/fuse/mount-table.js'
import { FuseNativeSession } from '../../src/fuse-native/session.js'
import { ended, openDescriptors, run, sh, start, temporaryDirectory, threadCount } from '../fuse/fixture.js'
import { MemoryFileSystem } from '../fuse/memory-file-system.js'
import { openDeviceToAll } from '../support/device.js'
import { packageRoot } from '../support/root.js'
import { until } from '../support/until.js'
import { mounted } from './fixture.js'

t.setTimeout(90_000)

/** fusermount wants users to have a name. */
const NOBODY = { uid: 65534, gid: 65534 }
const CHILD = fileURLToPath(new URL('./child.js', import.meta.url))

t.test('no synchronous call can wait for a mount that this process serves', async t => {
  const dir = join(packageRoot, 'src', 'fuse-native')
  const calls = readdirSync(dir).flatMap(file => {
    const lines = readFileSync(join(dir, file), 'utf8').split('\n')
    return lines.filter(line => /\w+Sync\(/.test(line)).map(line => `${file}: ${line.trim()}`)
  })
  t.ok(calls.length > 0)
  t.same(
    calls.filter(call => !/Sync\(['"`]\/(proc|sys)\//.test(call)),
    [],
    'none but of the kernel',
  )
})

t.test('a mountpoint that cannot be one is refused in one line, before libfuse sees it', async t => {
  const dir = temporaryDirectory(t)
  const refused = (path: string, message: RegExp) =>
    t.rejects(FuseNativeSession.mount(path, new MemoryFileSystem()), { code: 'BAD_MOUNTPOINT', message })
  await refused(join(dir, 'none'), /^the mountpoint .* does not exist: mkdir -p [^\n]*$/)
  writeFileSync(join(dir, 'file'), '')
  await refused(join(dir, 'file'), /is not a directory$/)
  await refused(dir, /is not empty$/)
  rmSync(join(dir, 'file'))
})

t.test('a mountpoint in use is refused, and its mount goes on', async t => {
  const { dir, fs } = await mounted(t)
  fs.addFile('f', Buffer.from('still here'))
  const other = FuseNativeSession.mount(dir, new MemoryFileSystem())
  await t.rejects(other, { code: 'BAD_MOUNTPOINT', message: /already mounted/ })
  t.equal(await clearStaleMount(dir), false)
  t.equal(await sh(`cat ${dir}/f`), 'still here')
})

t.test('a mountpoint may have any name', async t => {
  const dir = temporaryDirectory(t)
  const real = join(dir, 'with space, ä and \\')
  mkdirSync(real)
  const session = await FuseNativeSession.mount(real, new MemoryFileSystem())
  t.match(mountAt(real), { type: 'fuse.cidfs', source: 'cidfs' })
  t.same(await session.unmount(), { lazy: false })
  t.equal(mountAt(real), undefined)
  rmdirSync(real)
})

t.test('a hundred mounts leave no descriptor and no thread behind', async t => {
  const dir = temporaryDirectory(t)
  const cycle = async (used: boolean) => {
    const fs = new MemoryFileSystem()
    fs.addFile('f', Buffer.from('x'))
    const session = await FuseNativeSession.mount(dir, fs)
    if (used) await sh(`cat ${dir}/f`)
    const { lazy } = await session.unmount()
    await session.closed
    return lazy
  }
  await cycle(true)
  const [descriptors, threads] = [openDescriptors(), threadCount()]
  for (let i = 0; i < 100; i++) if (await cycle(i % 10 === 0)) t.fail(`mount ${i} was still in use`)
  t.same(openDescriptors(), descriptors)
  await until('all threads have ended', () => threadCount() <= threads)
})

t.test('several mounts in one process do not meet', async t => {
  const [one, two] = await Promise.all([mounted(t), mounted(t)])
  one.fs.addFile('f', Buffer.from('one'))
  two.fs.addFile('f', Buffer.from('two'))
  t.equal(await sh(`cat ${one.dir}/f ${two.dir}/f`), 'onetwo')
  await one.session.unmount()
  t.equal(await sh(`cat ${two.dir}/f`), 'two')
})

t.test('a file that is still open makes the unmount lazy, and can be read to its end', async t => {
  const dir = temporaryDirectory(t)
  const fs = new MemoryFileSystem()
  fs.addFile('f', Buffer.from('first\nsecond\n'))
  const session = await FuseNativeSession.mount(dir, fs)
  const child = start('sh', ['-c', `exec 3< ${dir}/f; echo ready; read wait; cat <&3`])
  const result = ended(child)
  await until('the file is open', () => fs.openHandles.size > 0)
  t.same(await session.unmount({ lazyAfterMs: 200 }), { lazy: true })
  t.equal(mountAt(dir), undefined, 'gone from the tree')
  child.stdin?.end('go\n')
  t.match(await result, { status: 0, stdout: 'ready\nfirst\nsecond\n' })
  await session.closed
  t.equal(fs.openHandles.size, 0, 'released, although libfuse does not say so')
  t.same(await session.unmount(), { lazy: false }, 'unmounting again changes nothing')
})

t.test('an unmount by somebody else closes the session', async t => {
  const dir = temporaryDirectory(t)
  const session = await FuseNativeSession.mount(dir, new MemoryFileSystem())
  await sh(`umount ${dir}`)
  await session.closed
  t.same(await session.unmount(), { lazy: false })
})

t.test('a process that was killed leaves a dead mount, which the next one clears', async t => {
  const dir = temporaryDirectory(t)
  const child = start(process.execPath, [CHILD, dir])
  const result = ended(child)
  await until('it is mounted', () => mountAt(dir) !== undefined)
  t.equal(await sh(`cat ${dir}/f`), 'from the child')
  child.kill('SIGKILL')
  t.equal((await result).signal, 'SIGKILL')
  t.match(await run('ls', [dir]), { status: 2, stderr: /not connected/ })
  const session = await FuseNativeSession.mount(dir, new MemoryFileSystem())
  t.equal(await sh(`ls ${dir}`), '')
  await session.unmount()
})

t.test('an ordinary user mounts and unmounts, and the process ends by itself', async t => {
  await openDeviceToAll()
  const dir = temporaryDirectory(t)
  chownSync(dir, NOBODY.uid, NOBODY.gid)
  const child = start(process.execPath, [CHILD, dir], NOBODY)
  const result = ended(child)
  await until('it is mounted', () => mountAt(dir) !== undefined)
  t.match(await run('cat', [`${dir}/f`], NOBODY), { status: 0, stdout: 'from the child' })
  child.kill('SIGTERM')
  t.match(await result, { status: 0, stdout: 'mounted\nclosed\n', stderr: '' })
  t.equal(mountAt(dir), undefined)
  t.same(readdirSync(dir), [])
})
