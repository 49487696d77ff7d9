/** Files that the kernel reads and writes by itself: seen from outside nothing is different, but the requests. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { statfsSync } from 'node:fs'
import { release, tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { PathCid, StatusReport } from '../../src/daemon/control-protocol.js'
import { Mount } from '../support/mount.js'
import { run, runOk } from '../support/run.js'
import { tempDir } from '../support/temp.js'
import { waitFor } from './staged.js'

t.setTimeout(100_000)

const NOBODY = 65534
const OVERLAY_MAGIC = 0x794c7630

/** Why there is nothing to see but the ordinary way; false when there is more. */
function whyNot(): string | false {
  const [major = 0, minor = 0] = release().split('.').map(Number)
  if (process.geteuid?.() !== 0 || major * 100 + minor < 609) return 'needs root and Linux 6.9'
  return statfsSync(tmpdir()).type === OVERLAY_MAGIC && `${tmpdir()} lies on a stacked file system`
}

const skip = whyNot()

async function report(mount: Mount): Promise<StatusReport['fuse']> {
  return (await mount.json<StatusReport>(['status', '--state', mount.stateDir])).fuse
}

async function requests(mount: Mount, name: string): Promise<number> {
  return (await report(mount)).operations[name] ?? 0
}

/** Each prints what a program can see; it must be the same on a local disk. */
const PROGRAMS: Record<string, string> = {
  'sizes and times while a file is open': `
f = os.open('f', os.O_RDWR | os.O_CREAT, 0o644); other = os.open('f', os.O_RDONLY)
os.write(f, b'x' * 5000); print(os.stat('f').st_size, os.fstat(other).st_size)
os.utime('f', (5, 7)); print(os.stat('f').st_mtime); os.pwrite(f, b'y', 1); print(os.stat('f').st_mtime > 1000)
os.ftruncate(f, 3); print(os.stat('f').st_size, os.pread(other, 9, 0)); os.truncate('f', 6); print(os.pread(other, 9, 0))
os.posix_fallocate(f, 0, 9000); print(os.fstat(f).st_size); os.utime('f', (5, 9)); os.close(f)
print(os.stat('f').st_mtime, os.fstat(other).st_size)`,
  'appends of two descriptors do not overwrite one another': `
a = os.open('f', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644); b = os.open('f', os.O_WRONLY | os.O_APPEND)
for i in range(100): os.write([a, b][i % 2], b'%03d,' % i)
os.pwrite(a, b'end', 0); print(open('f').read())`,
  'what is mapped and what is written are one': `
f = os.open('f', os.O_RDWR | os.O_CREAT, 0o644); os.ftruncate(f, 10000); m = mmap.mmap(f, 10000)
m[0:3] = b'map'; print(os.pread(f, 4, 0)); os.pwrite(f, b'pw', 9000); print(m[9000:9002]); os.close(f)
m[5:8] = b'end'; m.close(); print(open('f', 'rb').read(9))`,
  'O_TRUNC under the feet of a reader': `
open('f', 'w').write('old' * 1000); w = os.open('f', os.O_WRONLY); r = os.open('f', os.O_RDONLY)
t = os.open('f', os.O_WRONLY | os.O_TRUNC); print(os.fstat(r).st_size, os.read(r, 5)); os.write(t, b'new')
print(os.pread(r, 9, 0)); os.write(w, b'N'); print(open('f').read())`,
  'an unlinked file lives as long as it is open': `
f = os.open('f', os.O_RDWR | os.O_CREAT, 0o644); os.write(f, b'x' * 100); os.unlink('f'); os.write(f, b'y')
print(os.fstat(f).st_size, os.fstat(f).st_nlink, os.pread(f, 2, 99)); g = os.open('f', os.O_RDWR | os.O_CREAT, 0o644)
os.write(g, b'other'); os.rename('f', 'g'); print(os.pread(f, 1, 0), open('g').read())`,
  'set-user-ID bits do not survive a write': `
f = os.open('f', os.O_RDWR | os.O_CREAT, 0o755); os.fchmod(f, 0o4755); os.setresuid(65534, 65534, 65534)
os.write(f, b'x'); print(oct(os.fstat(f).st_mode))`,
  'a hole punched by another program': `
f = os.open('f', os.O_RDWR | os.O_CREAT, 0o644); os.pwrite(f, b'x' * 4096, 1 << 20); print(os.pread(f, 3, 1 << 20))
os.system('fallocate -p -o 1048576 -l 4096 f'); print(os.pread(f, 3, 1 << 20), os.fstat(f).st_size)`,
  'copies inside the kernel': `
f = os.open('f', os.O_RDWR | os.O_CREAT, 0o644); g = os.open('g', os.O_RDWR | os.O_CREAT, 0o644)
os.write(f, b'0123456789' * 1000); print(os.copy_file_range(f, g, 5000, 7, 0), os.pread(g, 5, 0), os.fstat(g).st_size)
os.lseek(f, 0, 0); print(os.sendfile(g, f, 3, 10000), os.fstat(g).st_size, shutil.copy('f', 'h'), os.stat('h').st_size)`,
}

async function outcome(dir: string, program: string): Promise<object> {
  const options = { cwd: dir, timeoutMs: 20_000 }
  const script = `import mmap, os, shutil\n${program}`
  const { status, stdout, stderr } = await run('python3', ['-c', script], options)
  const files = await runOk(
    'sh',
    ['-c', "find . -type f -printf '%P %m %s\\n' -exec sha256sum {} + | sort"],
    options,
  )
  return { status, stdout, stderr, files: files.stdout }
}

for (const passthrough of ['auto', 'off']) {
  t.test(`programs see what they see on a local disk: passthrough ${passthrough}`, async t => {
    const mount = await Mount.start(t, { args: ['--passthrough', passthrough, '--allow-other'] })
    const local = await tempDir(t)
    await mount.run('chmod', ['755', '.', local, join(mount.dir, '..')], { cwd: local })
    for (const [i, [name, program]] of Object.entries(PROGRAMS).entries()) {
      const folders = [join(local, String(i)), mount.path('staging', String(i))] as const
      await mount.run('mkdir', [...folders])
      const expected = await outcome(folders[0], program)
      t.match(expected, { status: 0 }, `${name}: on the local disk`)
      t.same(await outcome(folders[1], program), expected, name)
    }
    await waitFor(mount, [mount.path('staging')])
    const { cid } = await mount.json<PathCid>(['cid', mount.path('staging')])
    const sums = (dir: string) =>
      runOk('sh', ['-c', 'find . -type f -exec sha256sum {} + | sort'], { cwd: dir })
    t.equal(
      (await sums(mount.path('ipfs', cid!))).stdout,
      (await sums(local)).stdout,
      'and that is published',
    )
  })
}

/** Asks the status command for a word on passthrough, too. */
async function checkStatus(t: Test, mount: Mount, expected: string): Promise<void> {
  t.equal((await report(mount)).passthrough, expected)
  t.match((await mount.cli(['status', '--state', mount.stateDir])).stdout, `passthrough ${expected}`)
}

t.test('an ordinary user has the ordinary way, and is told why', async t => {
  const mount = await Mount.start(t, { uid: NOBODY, gid: NOBODY })
  await mount.run('sh', ['-c', 'seq 100000 > staging/f; seq 100000 | cmp - staging/f'])
  t.ok((await requests(mount, 'WRITE')) > 0)
  t.match((await report(mount)).passthrough, /CAP_SYS_ADMIN|not supported by the kernel/)
})

t.test('where it can be, the daemon sees neither writes nor reads', { skip }, async t => {
  const mount = await Mount.start(t)
  const source = join(await tempDir(t), 'source')
  await runOk('sh', ['-c', `head -c 5000000 /dev/urandom > ${source}`])
  await mount.run('cp', [source, 'staging/f'])
  await mount.run('sh', ['-c', 'exec 3<>staging/g; cat staging/f >&3; cmp staging/f staging/g'])
  await waitFor(mount, [mount.path('staging/f')])
  const { cid } = await mount.json<PathCid>(['cid', mount.path('staging/f')])
  const reads = await requests(mount, 'READ')
  await mount.run('cmp', [source, `ipfs/${cid}`])
  t.equal(await requests(mount, 'READ'), reads, 'ipfs/<cid> is read from its object')
  t.equal(await requests(mount, 'WRITE'), 0)
  await checkStatus(t, mount, 'on')
})

t.test('switched off, every read and write comes to the daemon', async t => {
  const mount = await Mount.start(t, { args: ['--passthrough', 'off'] })
  await mount.run('sh', ['-c', 'head -c 100000 /dev/zero > staging/f'])
  t.ok((await requests(mount, 'WRITE')) > 0)
  await checkStatus(t, mount, 'off')
})

t.test(
  'where the state directory lies on a stacked file system, all goes the ordinary way',
  { skip },
  async t => {
    const temp = await tempDir(t)
    const dirs = ['lower', 'upper', 'work', 'merged'].map(name => join(temp, name))
    await runOk('mkdir', dirs)
    const [lower, upper, work, merged] = dirs as [string, string, string, string]
    const layers = `lowerdir=${lower},upperdir=${upper},workdir=${work}`
    await runOk('mount', ['-t', 'overlay', 'overlay', '-o', layers, merged])
    t.teardown(() => runOk('umount', ['-l', merged]))
    const mount = await Mount.start(t, { stateDir: join(merged, 'state') })
    await mount.run('sh', ['-c', 'seq 100000 > staging/f; seq 100000 | cmp - staging/f'])
    t.ok((await requests(mount, 'WRITE')) > 0)
    t.match((await report(mount)).passthrough, /stacked file system/)
    await mount.stop()
  },
)

t.test('somebody who goes on reading does not keep a file from being published, or written to', async t => {
  const mount = await Mount.start(t)
  const log = mount.path('staging/log')
  const script = `
import sys
w = open('staging/log', 'wb', 0); w.write(b'one ' * 75000); r = open('staging/log', 'rb', 0); w.close()
print(len(r.read()), flush=True); sys.stdin.read(); print(r.read())`
  const reader = spawn('python3', ['-c', script], { cwd: mount.dir, stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(reader, 'close')
  let printed = ''
  reader.stdout.on('data', chunk => (printed += chunk))
  await once(reader.stdout, 'data')
  await waitFor(mount, [log])
  const first = await mount.json<PathCid>(['cid', log])
  await mount.run('sh', ['-c', 'echo two >> staging/log'])
  await waitFor(mount, [log])
  const second = await mount.json<PathCid>(['cid', log])
  reader.stdin.end()
  await ended
  t.equal(printed, "300000\nb'two\\n'\n", 'the reader got what was appended')
  const { stdout } = await mount.run('wc', ['-c', `ipfs/${first.cid}`, `ipfs/${second.cid}`])
  t.match(stdout, /300000 .*\s+300004 /, 'each CID has its own content')
})

t.test('what was written and synced survives the death of the daemon', async t => {
  const mount = await Mount.start(t)
  const program = `
import os, sys
f = os.open('staging/f', os.O_RDWR | os.O_CREAT, 0o644); os.write(f, b'x' * 300000); os.fsync(f)
os.pwrite(f, b'y' * 10, 5); os.fsync(f); print('synced', flush=True)`
  await mount.run('python3', ['-c', `${program}\nos.kill(${mount.pid}, 9)`])
  await mount.kill()
  await run('umount', ['-l', mount.dir])
  const again = await Mount.start(t, { stateDir: mount.stateDir })
  const check = `b = open('staging/f', 'rb').read(); print(len(b), b[4:16])`
  t.equal((await again.run('python3', ['-c', check])).stdout, "300000 b'xyyyyyyyyyyx'\n")
  await waitFor(again, [again.path('staging/f')])
})
