/** A disk that is full, a limit that is reached, a floor that holds: what was accepted stays and is published. */
import { rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { PathCid, StatusReport } from '../../src/daemon/control-protocol.js'
import { Dag, pattern, sha256 } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { Mount } from '../support/mount.js'
import { run, runOk } from '../support/run.js'
import { diskUse, freeBytes, smallDisk } from '../support/small-disk.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'
import { isSound, waitFor, xattr } from './staged.js'

t.setTimeout(110_000)

const MIB = 1024 * 1024
const skip = process.geteuid?.() === 0 ? false : 'needs root to mount a small disk'

/** Writes files until there is no room; prints for each what was accepted of it, then the error of the last. */
const FILL = `
import errno, hashlib, json, os, sys
accepted, code, i = {}, None, 0
while code is None and i < 1000:
    name, digest, size, i = 'full-%03d' % i, hashlib.sha256(), 0, i + 1
    try:
        f = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except OSError as e:
        code = errno.errorcode[e.errno]; break
    try:
        for part in range(5):
            data = os.urandom(int(sys.argv[1]))
            n = os.write(f, data); digest.update(data[:n]); size += n
        os.fsync(f)
    except OSError as e: code = errno.errorcode[e.errno]
    os.close(f)
    accepted[name] = [digest.hexdigest(), size]
print(json.dumps([accepted, code]))`

/** Prints what is not under a name and its CID as it was accepted. */
const COMPARE = `
import hashlib, json, os, sys
def found(path):
    with open(path, 'rb') as f: return [hashlib.sha256(f.read()).hexdigest(), os.stat(path).st_size]
wrong = []
for name, expected in json.load(sys.stdin).items():
    cid = os.getxattr('staging/' + name, 'user.ipfs.cid').decode()
    for path in ('staging/' + name, 'ipfs/' + cid):
        if found(path) != expected: wrong.append([path, expected, found(path)])
print(json.dumps(wrong))`

type Accepted = Record<string, [sum: string, size: number]>

async function fill(mount: Mount, partBytes = MIB): Promise<Accepted> {
  const options = { cwd: mount.path('staging'), timeoutMs: 60_000 }
  const { stdout } = await mount.run('python3', ['-c', FILL, String(partBytes)], options)
  const [accepted, code] = JSON.parse(stdout) as [Accepted, string]
  if (code !== 'ENOSPC') throw new Error(`the disk was to be full, and not ${code}`)
  return accepted
}

async function report(mount: Mount): Promise<StatusReport> {
  return mount.json<StatusReport>(['status', '--state', mount.stateDir])
}

async function published(mount: Mount): Promise<true> {
  return until(
    'everything is published',
    async () => {
      const { writing, queued, publishing, failed } = (await report(mount)).staging
      return writing + queued + publishing + failed === 0
    },
    40_000,
  )
}

/** Each is under its name and under its CID what was accepted. */
async function isKept(t: Test, mount: Mount, accepted: Accepted): Promise<void> {
  await published(mount)
  const { stdout } = await mount.run('python3', ['-c', COMPARE], {
    input: JSON.stringify(accepted),
    timeoutMs: 60_000,
  })
  t.same(
    JSON.parse(stdout),
    [],
    `${Object.keys(accepted).length} files are what was accepted, under name and CID`,
  )
}

function tryToWrite(mount: Mount, name: string, sizeBytes: number): Promise<boolean> {
  const script = `head -c ${sizeBytes} /dev/urandom > staging/${name}`
  return run('sh', ['-c', script], { cwd: mount.dir }).then(({ status }) => status === 0)
}

/** Space comes back when files go. */
async function goesOn(t: Test, mount: Mount, accepted: Accepted): Promise<void> {
  let freed = 0
  for (const [name, [, size]] of Object.entries(accepted)) {
    if (freed > 6 * MIB) break
    await rm(mount.path('staging', name))
    freed += size
  }
  await until('there is room again', () => tryToWrite(mount, 'again', 3 * MIB), 15_000)
  await published(mount)
  t.equal((await stat(mount.path('staging', 'again'))).size, 3 * MIB)
}

const VARIANTS = [
  { name: 'a full disk, passthrough off', type: 'tmpfs', args: ['--passthrough', 'off'], partBytes: MIB },
  { name: 'a full disk, passthrough auto', type: 'ext4', args: [], partBytes: MIB },
  { name: 'a full disk, small files', type: 'ext4', args: ['--passthrough', 'off'], partBytes: 12_000 },
  { name: 'a limit, passthrough off', limit: 40, args: ['--passthrough', 'off'], partBytes: MIB },
  { name: 'a limit, passthrough auto', limit: 40, args: [], partBytes: MIB },
] as const

for (const { name, args, partBytes, ...variant } of VARIANTS) {
  t.test(`${name}: what was accepted stays, is published, and goes for more`, { skip }, async t => {
    const isDisk = 'type' in variant
    const disk = isDisk ? await smallDisk(t, 64, variant.type) : await tempDir(t)
    const limit = isDisk ? [] : ['--max-size', `${variant.limit}MiB`]
    const mount = await Mount.start(t, { stateDir: join(disk, 'state'), args: [...args, ...limit] })
    await writeFile(mount.path('staging', 'before'), 'before')
    await waitFor(mount, [mount.path('staging')])
    const accepted = await fill(mount, partBytes)
    t.ok(Object.keys(accepted).length > 4, `${Object.keys(accepted).length} files`)
    if (!isDisk) t.ok((await diskUse(mount.stateDir)) <= variant.limit * MIB, 'the limit is kept')
    await isKept(t, mount, accepted)
    t.equal((await mount.run('cat', ['staging/before'])).stdout, 'before')
    await goesOn(t, mount, accepted)
    await isSound(t, mount)
    if (!isDisk) t.ok((await diskUse(mount.stateDir)) <= variant.limit * MIB, 'and is still')
    await mount.stop()
  })
}

t.test('the floor stays free, and df and status say what is left', { skip }, async t => {
  const disk = await smallDisk(t, 64, 'tmpfs')
  const args = ['--min-free', '24MiB', '--passthrough', 'off']
  const mount = await Mount.start(t, { stateDir: join(disk, 'state'), args })
  const df = async () => {
    const { stdout } = await mount.run('df', ['--output=size,avail', '--block-size=1', mount.dir])
    return stdout.split('\n')[1]!.trim().split(/\s+/).map(Number) as [number, number]
  }
  const [size, available] = await df()
  t.equal(size, 64 * MIB)
  t.ok(available > 36 * MIB && available <= 40 * MIB, `${available} bytes available`)
  const accepted = await fill(mount)
  t.ok((await freeBytes(disk)) >= 24 * MIB, 'the floor is free')
  const { space } = await report(mount)
  t.match(space, { minFreeBytes: 24 * MIB, maxBytes: null, full: true })
  t.ok((await df())[1] < MIB)
  t.match(
    (await mount.cli(['status', mount.dir])).stdout,
    /space .*full: writes are refused; 24\.0 MiB stay free/,
  )
  await isKept(t, mount, accepted)
  await goesOn(t, mount, accepted)
  t.equal((await report(mount)).space.full, false)
  await mount.stop()
})

t.test('df of a limited mount shows the limit', async t => {
  const mount = await Mount.start(t, { args: ['--max-size', '64MiB'] })
  const { stdout } = await mount.run('df', ['--output=size,avail', '--block-size=1M', mount.dir])
  const [size = 0, available = 0] = stdout.split('\n')[1]!.trim().split(/\s+/).map(Number)
  t.ok(size > 56 && size <= 64 && available > 50 && available < size, stdout)
})

t.test('what is cached goes for what is read and written, without anybody noticing', { skip }, async t => {
  const disk = await smallDisk(t, 64, 'ext4')
  const gateway = await TestGateway.start(t)
  const mount = await Mount.start(t, { stateDir: join(disk, 'state'), gateways: [gateway.url] })
  await mount.run('sh', ['-c', 'head -c 8000000 /dev/urandom > staging/mine'])
  await waitFor(mount, [mount.path('staging')])
  const dag = new Dag(gateway)
  for (let i = 1; i <= 16; i++) {
    const content = pattern(6 * MIB, i)
    const cid = await dag.import([{ content }])
    const { stdout } = await mount.run('sha256sum', [`ipfs/${cid}`])
    t.match(stdout, sha256(content), `file ${i}`)
    t.ok(await tryToWrite(mount, 'written', 2 * MIB), 'a full cache is in nobody’s way')
  }
  const { store } = await report(mount)
  t.ok(store.bytes < 56 * MIB, 'of 96 MiB that were read, not all is kept')
  t.ok((await freeBytes(disk)) > 0)
  await isSound(t, mount)
  await mount.stop()
})

t.test('what is read is served, and not kept, while own files fill the disk', { skip }, async t => {
  const disk = await smallDisk(t, 64, 'tmpfs')
  const gateway = await TestGateway.start(t)
  const args = ['--passthrough', 'off']
  const mount = await Mount.start(t, { stateDir: join(disk, 'state'), gateways: [gateway.url], args })
  const accepted = await fill(mount)
  const dag = new Dag(gateway)
  const content = pattern(9 * MIB, 7)
  const cid = await dag.import([{ content }])
  for (let i = 0; i < 2; i++) {
    const { stdout } = await mount.run('sha256sum', [`ipfs/${cid}`])
    t.match(stdout, sha256(content))
    await runOk('sh', ['-c', 'echo 1 > /proc/sys/vm/drop_caches'])
  }
  await mount.run('ln', ['-s', `${cid}`, 'pins/big'])
  const pin = mount.path('pins', 'big')
  const state = async () => (await xattrOfLink(mount, pin, 'ipfs.state')).trim()
  await until('the pin says that it failed', async () => (await state()) === 'failed')
  t.match(await xattrOfLink(mount, pin, 'ipfs.error'), /no space left to keep/)
  await isKept(t, mount, accepted)
  for (const name of Object.keys(accepted).slice(0, 3)) await rm(mount.path('staging', name))
  await until('the pin is complete', async () => (await state()) === 'pinned', 30_000)
  await isSound(t, mount)
  await mount.stop()
})

async function xattrOfLink(mount: Mount, path: string, name: string): Promise<string> {
  const { stdout } = await mount.run('getfattr', [
    '-h',
    '--only-values',
    '--absolute-names',
    '-n',
    name,
    path,
  ])
  return stdout
}

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

t.test('a disk that others have filled to the last block', { skip }, async t => {
  const disk = await smallDisk(t, 64, 'ext4')
  const mount = await Mount.start(t, { stateDir: join(disk, 'state'), args: ['--passthrough', 'off', '--log', 'cidfs:*,-cidfs:fuse:trace'] })
  const content = pattern(5 * MIB, 3)
  await writeFile(mount.path('staging', 'large'), content)
  await writeFile(mount.path('staging', 'doomed'), pattern(2 * MIB, 4))
  await waitFor(mount, [mount.path('staging')])
  const { cid } = await mount.json<PathCid>(['cid', mount.path('staging', 'large')])
  await run('dd', ['if=/dev/zero', `of=${join(disk, 'foreign')}`, 'bs=64k'])
  await run('dd', ['if=/dev/zero', `of=${join(disk, 'foreign2')}`, 'bs=4k'])
  t.ok((await freeBytes(disk)) < 64 * 1024, 'it is full')
  for (const op of ['cp staging/large staging/copy', 'echo x >> staging/large', 'echo x > staging/new']) {
    const { status, stderr } = await run('sh', ['-c', op], { cwd: mount.dir })
    t.not(status, 0, op)
    t.match(stderr, 'No space left on device', op)
    if (!stderr.includes('No space')) console.error(mount.log)
  }
  const folders = 'i=0; while [ $i -lt 3000 ]; do mkdir staging/d$i || exit 1; i=$((i+1)); done'
  const made = await run('sh', ['-c', folders], { cwd: mount.dir })
  t.match(made.stderr, /^$|No space left on device/, 'folders while the index can grow')
  for (const path of ['staging/large', `ipfs/${cid}`]) {
    t.match((await mount.run('sha256sum', [path])).stdout, sha256(content), `${path} is read`)
  }
  await until('a file can be removed', async () => {
    const { status } = await run('rm', ['-f', 'staging/doomed'], { cwd: mount.dir })
    return status === 0
  })
  await rm(join(disk, 'foreign'))
  await until('there is room again', () => tryToWrite(mount, 'new', MIB), 15_000)
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
  const { status, stderr } = await run('sh', ['-c', `printf more >> ${path}`])
  t.not(status, 0)
  t.match(stderr, 'No space left on device')
  await published(mount)
  t.equal(await xattr(mount, path, 'user.ipfs.cid'), before)
  t.match((await mount.run('sha256sum', [path])).stdout, sha256(content))
  t.ok((await freeBytes(disk)) > 15 * MIB, 'and nothing of the copy')
  await mount.stop()
})

t.test('sizes that are none are refused in one line', async t => {
  const dir = await tempDir(t)
  const mount = await Mount.start(t)
  for (const [option, value, hint] of [
    ['--max-size', '20', /must be a size with a unit/],
    ['--max-size', '1MiB', /at least "16MiB"/],
    ['--min-free', '100%', /a part of the disk like "5%"/],
    ['--min-free', 'much', /a size like "2GiB"/],
  ] as const) {
    const args = ['mount', '--isolated', '--state', join(dir, 'state'), option, value, dir]
    const { status, stderr } = await mount.cli(args)
    t.equal(status, 2, `${option} ${value}`)
    t.match(stderr, /^cidfs: [^\n]+\n$/)
    t.match(stderr, hint)
  }
})
