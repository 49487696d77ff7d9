/** Every step on a disk that is full: an error for what needs room, and nothing else is any different. */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import type { PathCid } from '../../src/daemon/control-protocol.js'
import { pattern, sha256 } from '../support/dag.js'
import { Mount } from '../support/mount.js'
import { run } from '../support/run.js'
import { freeBytes, smallDisk } from '../support/small-disk.js'
import { until } from '../support/until.js'
import { fill, goesOn, isKept, MIB, published, report, skip, tryToWrite } from './filling.js'
import { isSound, waitFor, xattr } from './staged.js'

t.setTimeout(110_000)

t.test('nothing is lost when the daemon dies on a full disk', { skip }, async t => {
  for (const passthrough of ['auto', 'off']) {
    const disk = await smallDisk(t, 64, 'ext4')
    const args = ['--settle', '1h', '--passthrough', passthrough]
    const first = await Mount.start(t, { stateDir: join(disk, 'state'), args })
    const accepted = await fill(first)
    await first.kill()
    await run('umount', ['-l', first.dir])
    const second = await Mount.start(t, { stateDir: first.stateDir, args: ['--passthrough', passthrough] })
    await isKept(t, second, accepted)
    await goesOn(t, second, accepted)
    await isSound(t, second)
    await second.stop()
  }
})

t.test(
  'a file that the kernel writes by itself takes the whole disk, and is published',
  { skip },
  async t => {
    for (const type of ['ext4', 'tmpfs'] as const) {
      const disk = await smallDisk(t, 64, type)
      const mount = await Mount.start(t, { stateDir: join(disk, 'state') })
      const { passthrough } = (await report(mount)).fuse
      const accepted = await fill(mount, MIB, 1000)
      if (passthrough === 'on')
        t.ok((await freeBytes(disk)) < 3 * MIB, `${type}: below the floor, and the reserve`)
      await isKept(t, mount, accepted)
      await goesOn(t, mount, accepted)
      await isSound(t, mount)
      await mount.stop()
    }
  },
)

t.test('a disk that others have filled to the last block', { skip }, async t => {
  const disk = await smallDisk(t, 64, 'ext4')
  const mount = await Mount.start(t, {
    stateDir: join(disk, 'state'),
    args: ['--passthrough', 'off'],
  })
  const content = pattern(5 * MIB, 3)
  await writeFile(mount.path('staging', 'large'), content)
  await writeFile(mount.path('staging', 'doomed'), pattern(2 * MIB, 4))
  await waitFor(mount, [mount.path('staging')])
  const { cid } = await mount.json<PathCid>(['cid', mount.path('staging', 'large')])
  await run('dd', ['if=/dev/zero', `of=${join(disk, 'foreign')}`, 'bs=64k'])
  await run('dd', ['if=/dev/zero', `of=${join(disk, 'foreign2')}`, 'bs=4k'])
  t.ok((await freeBytes(disk)) < 64 * 1024, 'it is full')
  for (const op of ['cp staging/large staging/copy', 'echo x >> staging/large', 'echo x > staging/new']) {
    const { status, stderr } = await run('bash', ['-c', op], { cwd: mount.dir })
    t.not(status, 0, op)
    t.match(stderr, 'No space left on device', op)
  }
  const folders = 'i=0; while [ $i -lt 3000 ]; do mkdir staging/d$i || exit 1; i=$((i+1)); done'
  const made = await run('sh', ['-c', folders], { cwd: mount.dir })
  t.match(made.stderr, /^$|No space left on device/, 'folders while the index can grow')
  for (const path of ['staging/large', `ipfs/${cid}`]) {
    t.match((await mount.run('sha256sum', [path])).stdout, sha256(content), `${path} is read`)
  }
  await until(
    'a file can be removed',
    async () => {
      const { status } = await run('rm', ['-f', 'staging/doomed'], { cwd: mount.dir })
      return status === 0
    },
    30_000,
  )
  await rm(join(disk, 'foreign'))
  await until('there is room again', () => tryToWrite(mount, 'new', MIB), 30_000)
  await published(mount)
  await isSound(t, mount)
  await mount.stop()
})

t.test('holes are free, and what a file has already is not taken again', { skip }, async t => {
  const disk = await smallDisk(t, 64, 'tmpfs')
  const args = ['--passthrough', 'off', '--settle', '1h']
  const mount = await Mount.start(t, { stateDir: join(disk, 'state'), args })
  const script = `
import errno, os
def tell(name, fn):
    try: fn(); print(name, 'ok')
    except OSError as e: print(name, errno.errorcode[e.errno])
f = os.open('staging/f', os.O_RDWR | os.O_CREAT); os.write(f, b'x' * (2 << 20))
tell('allocate too much', lambda: os.posix_fallocate(f, 0, 100 << 20)); print(os.fstat(f).st_size >> 20)
tell('allocate', lambda: os.posix_fallocate(f, 0, 4 << 20))
g = os.open('staging/g', os.O_RDWR | os.O_CREAT)
try:
    while True: os.write(g, b'y' * (1 << 20))
except OSError as e: print('full', errno.errorcode[e.errno])
try:
    while True: os.write(g, b'y' * 4096)
except OSError as e: print('full', errno.errorcode[e.errno])
tell('overwrite', lambda: os.pwrite(f, b'z' * (1 << 20), 0))
tell('write to what was allocated', lambda: os.pwrite(f, b'z' * (1 << 20), 3 << 20))
tell('a hole', lambda: os.ftruncate(g, 1 << 40))
tell('write into it', lambda: os.pwrite(g, b'z' * (1 << 20), 1 << 39))
tell('punch', lambda: os.system('fallocate -p -o 0 -l 8MiB staging/g'))
os.ftruncate(g, 16 << 20)
tell('write again', lambda: os.pwrite(g, b'z' * (1 << 20), 0))
os.unlink('staging/f'); os.unlink('staging/g')`
  const { stdout } = await mount.run('python3', ['-c', script], { timeoutMs: 40_000 })
  t.same(stdout.trim().split('\n'), [
    'allocate too much ENOSPC',
    '2',
    'allocate ok',
    'full ENOSPC',
    'full ENOSPC',
    'overwrite ok',
    'write to what was allocated ok',
    'a hole ok',
    'write into it ENOSPC',
    'punch ok',
    'write again ok',
  ])
  await mount.stop()
})

t.test('a published file that cannot be copied for want of space stays what it is', { skip }, async t => {
  const disk = await smallDisk(t, 64, 'tmpfs')
  const mount = await Mount.start(t, { stateDir: join(disk, 'state'), args: ['--passthrough', 'off'] })
  const path = mount.path('staging', 'large')
  const content = pattern(40 * MIB, 5)
  await writeFile(path, content)
  await waitFor(mount, [path])
  const before = await xattr(mount, path, 'user.ipfs.cid')
  const { status, stderr } = await run('bash', ['-c', `printf more >> ${path}`])
  t.not(status, 0)
  t.match(stderr, 'No space left on device')
  await published(mount)
  t.equal(await xattr(mount, path, 'user.ipfs.cid'), before)
  t.match((await mount.run('sha256sum', [path])).stdout, sha256(content))
  await until('nothing of the copy is left', async () => (await freeBytes(disk)) > 15 * MIB, 30_000)
  await mount.stop()
})
