/** Invalidations, and connections that change hands. */
import { spawn } from 'node:child_process'
import { readdirSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { ROOT_INO } from '../../src/fs/file-system.js'
import { INIT2 } from '../../src/fuse/abi.js'
import { FuseSession } from '../../src/fuse/session.js'
import { ended, mounted, sh, start, temporaryDirectory, until } from './fixture.js'
import { MemoryFileSystem } from './memory-file-system.js'

t.setTimeout(60_000)

const ADOPT_CHILD = fileURLToPath(new URL('./adopt-child.js', import.meta.url))
const LONG = { ttlMs: 3_600_000, keepCache: true }

t.test('pages and attributes are kept until they are invalidated', async t => {
  const { dir, fs } = await mounted(t, new MemoryFileSystem(LONG))
  const ino = fs.addFile('f', Buffer.from('old'))
  t.equal(await sh(`cat ${dir}/f`), 'old')
  const node = fs.nodes.get(ino)!
  node.data = Buffer.from('new')
  node.attributes.mode = 0o100600
  t.equal(await sh(`cat ${dir}/f`), 'old')
  fs.notifier!.invalidateInode(ino, 0, 0)
  await sleep(50)
  t.equal(await sh(`cat ${dir}/f; stat -c ' %a' ${dir}/f`), 'new 600')
})

t.test('names, present and absent, are kept until they are invalidated', async t => {
  const { dir, fs } = await mounted(t, new MemoryFileSystem(LONG))
  t.equal(await sh(`cat ${dir}/name 2>&1 || true`), `cat: ${dir}/name: No such file or directory`)
  fs.addFile('name', Buffer.from('here'))
  t.match(await sh(`cat ${dir}/name 2>&1 || true`), /No such file/)
  fs.notifier!.invalidateEntry(ROOT_INO, Buffer.from('name'))
  await sleep(50)
  t.equal(await sh(`cat ${dir}/name`), 'here')
})

t.test('what the kernel does not know may be invalidated all the same', async t => {
  const { dir, fs } = await mounted(t)
  fs.notifier!.invalidateInode(123_456, 0, 0)
  fs.notifier!.invalidateEntry(98_765, Buffer.from('x'))
  await sleep(20)
  t.equal(await sh(`ls ${dir}`), '')
})

t.test('an invalidation that waits for a request of ours holds up nothing else', async t => {
  const { dir, fs, session } = await mounted(t, new MemoryFileSystem(LONG))
  fs.addFile('fine', Buffer.from('fine'))
  fs.hangingName = 'hangs'
  const child = start('stat', [join(dir, 'hangs')])
  const result = ended(child)
  await until(() => fs.hanging === 1, 'the lookup has come')
  // The lookup holds the lock of the root directory, which the removal of a name in it needs.
  fs.notifier!.invalidateEntry(ROOT_INO, Buffer.from('fine'))
  fs.notifier!.invalidateInode(ROOT_INO, 0, 0)
  await sleep(100)
  t.equal(await sh(`stat -f -c %l ${dir}`), '255')
  child.kill('SIGINT')
  t.equal((await result).signal, 'SIGINT')
  await until(() => session.inFlight === 0, 'nothing is in flight')
  t.equal(await sh(`cat ${dir}/fine`), 'fine')
})

t.test('a daemon that inherits the connection answers what the first one left unanswered', async t => {
  const dir = temporaryDirectory(t)
  const first = new MemoryFileSystem()
  first.addHangingFile('f', { directIo: true })
  const session = await FuseSession.mount(dir, first)
  t.ok(session.negotiated!.flags2 & INIT2.HAS_RESEND)
  const args = [ADOPT_CHILD, dir, JSON.stringify(session.negotiated)]
  const child = spawn(process.execPath, args, {
    stdio: ['pipe', 'inherit', 'inherit', deviceDescriptor()],
    timeout: 20_000,
  })
  const reader = ended(start('head', ['-c', '5', join(dir, 'f')]))
  await until(() => first.hanging === 1, 'the read has come')
  session.close()
  await session.closed
  t.equal(first.interrupted, 1, 'the handlers of the first one are let go')
  child.stdin!.end('go\n')
  t.match(await reader, { status: 0, stdout: 'again' })
  t.equal(await sh(`cat ${dir}/f; umount ${dir}`), 'again')
  t.equal(await new Promise(resolve => child.once('exit', resolve)), 0)
})

/** The only descriptor of /dev/fuse that this process has open. */
function deviceDescriptor(): number {
  const fd = readdirSync('/proc/self/fd').find(name => isDevice(`/proc/self/fd/${name}`))
  if (fd === undefined) throw new Error('no connection is open')
  return Number(fd)
}

function isDevice(link: string): boolean {
  try {
    return readlinkSync(link) === '/dev/fuse'
  } catch {
    return false
  }
}
