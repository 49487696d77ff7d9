/** Writing into a real mount, with the tools that people use. */
import { readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { PathCid, StatusReport, WaitResult } from '../../src/daemon/control-protocol.js'
import { Mount } from '../support/mount.js'
import { run, runOk } from '../support/run.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'

t.setTimeout(100_000)

/** Each is run in an empty folder of a local disk and in one of `staging/`: nobody may see a difference. */
const SCRIPTS: Record<string, string> = {
  'cp -r, over what is there too': `
    mkdir -p a/b; echo one > a/f; head -c 300000 /dev/urandom > big; cp big a/b/big; ln -s ../f a/b/l
    cp -r a copy; cp big copy/f; cmp big copy/f; rm big a/b/big copy/b/big copy/f`,
  'tar x': `
    mkdir t; for i in $(seq 50); do echo $i > t/f$i; done; mkdir t/empty; ln -s f1 t/l
    tar cf x.tar t; rm -r t; tar xf x.tar; rm x.tar; tar cf - t | tar tf - | sort`,
  'rsync -a, again with changes, and --delete': `
    mkdir -p src/d; echo a > src/a; echo b > src/d/b; touch -d @1000000000 src/a src/d/b src/d src
    rsync -a src/ dst; rsync -ai src/ dst; echo changed > src/a; echo c > src/c; rm src/d/b
    touch -d @1100000000 src/a src/c src/d src; rsync -a --delete src/ dst; stat -c '%n %Y' dst/*; cat dst/a`,
  'sed -i, mv, in place and across folders': `
    mkdir a b; seq 100 > a/f; sed -i 's/5/FIVE/' a/f; sed -i.orig '1d' a/f; mv a/f b/g; echo x > a/f
    mv a/f b/g; mv b a/b; mv -T a c; cat c/b/g; ls -R`,
  'dd to offsets, with holes, appended': `
    dd if=/dev/zero bs=1 count=0 seek=5000 of=f status=none; printf abc | dd of=f bs=1 seek=4998 conv=notrunc status=none
    printf end | dd of=f oflag=append conv=notrunc status=none; sha256sum f; stat -c %s f
    seq 100000 | dd of=g bs=64k conv=fsync iflag=fullblock status=none; sha256sum g; dd if=g bs=1 skip=77 count=9 status=none`,
  'truncate and fallocate': `
    seq 5000 > f; truncate -s 100 f; truncate -s 20000 f; sha256sum f; fallocate -l 30000 f; stat -c %s f
    fallocate -p -o 0 -l 4096 f; fallocate -n -l 90000 f; stat -c %s f; sha256sum f; truncate -s 0 f; wc -c f`,
  redirections: `
    echo one > f; echo two >> f; { echo three; cat f; } > g; : > f; cat g; wc -c f; set -C; echo x > g`,
  'find, rm, rmdir': `
    mkdir -p a/b/c a/d; touch a/f a/b/g; rmdir a/b; rmdir a/d; rm a; rm -r a/b; find . | sort; find . -type f -delete
    rmdir missing; rm missing; find . | sort`,
  'an editor that saves': `
    seq 20 > f; vim -u NONE -es -c '3d' -c 's/4/four/' -c 'wq' f; cat f; ls -A`,
  'permissions and times': `
    umask 027; touch f; mkdir d; chmod 4755 f; chmod g+s d; mkdir d/e; stat -c '%n %a' f d d/e
    touch -d @123456789.5 f; stat -c %.1Y f; touch -r f d; stat -c %.1Y d; chmod u-w f; stat -c %a f`,
  'Python: open, os, shutil, tempfile': `python3 - <<'END'
import os, shutil, tempfile
with open('f', 'w') as f: f.write('hello\\n' * 1000)
with open('f', 'r+b') as f: f.seek(10); f.write(b'XYZ'); f.seek(0, 2); print(f.tell()); f.truncate(5000)
with open('f', 'ab') as f: print(f.tell()); f.write(b'end')
fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'pw', 4000); print(os.pread(fd, 4, 3999), os.lseek(fd, 0, 2)); os.close(fd)
os.makedirs('a/b/c'); shutil.copytree('a', 'x'); shutil.copy2('f', 'a/b/c/f'); shutil.move('a', 'x/a')
with tempfile.NamedTemporaryFile(dir='.', delete=False) as tmp: tmp.write(b'atomic')
os.replace(tmp.name, 'f'); print(open('f').read(), sorted(os.listdir('.')))
for dirpath, dirnames, names in sorted(os.walk('x')): print(dirpath, sorted(dirnames), sorted(names))
shutil.rmtree('x')
try: os.open('f', os.O_CREAT | os.O_EXCL)
except FileExistsError as e: print('exists', e.errno)
END`,
  'Python: a file without a name, and one written through a mapping': `python3 - <<'END'
import mmap, os
f = open('f', 'w+b'); f.write(b'x' * 10000); f.flush(); os.unlink('f'); f.seek(0); print(len(f.read()), os.fstat(f.fileno()).st_nlink)
f.write(b'more'); f.seek(9998); print(f.read()); f.close(); print(os.listdir('.'))
with open('m', 'w+b') as m:
    m.truncate(20000)
    with mmap.mmap(m.fileno(), 20000) as view: view[5:10] = b'MAPPD'; view[19990:] = b'0123456789'; view.flush()
print(open('m', 'rb').read()[5:10], open('m', 'rb').read()[19990:])
END`,
  'a database': `python3 - <<'END'
import os, sqlite3
db = sqlite3.connect('x.db'); db.execute('create table t(a, b)')
for i in range(20):
    with db: db.executemany('insert into t values (?, ?)', [(i, 'x' * 100)] * 50)
db.execute('delete from t where a < 5'); db.commit(); db.execute('vacuum'); db.close()
db = sqlite3.connect('x.db'); print(db.execute('select count(*), sum(a) from t').fetchone(), os.listdir('.'))
print(db.execute('pragma integrity_check').fetchone())
END`,
  git: `
    export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_DATE='1 +0000' GIT_COMMITTER_DATE='1 +0000'
    export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e
    git init -q -b main r; cd r; for i in $(seq 30); do echo $i > f$i; done; git add .; git commit -qm one
    git mv f1 g1; echo x >> f2; git commit -qam two; git gc -q; git fsck; git log --oneline; git status --short
    cd ..; rm -rf r`,
}

/** Everything that a walk sees: names, types, sizes, modes, link targets, content. */
const DESCRIBE = `find . -mindepth 1 ! -type d -printf '%P %y %s %m %l\\n' -o -printf '%P %y %m\\n' | sort
  find . -type f -print0 | sort -z | xargs -0r sha256sum`

async function outcome(folder: string, script: string): Promise<object> {
  const done = await run('bash', ['-c', script], { cwd: folder, timeoutMs: 40_000 })
  const { stdout } = await runOk('bash', ['-c', DESCRIBE], { cwd: folder })
  const quiet = (text: string): string => text.replaceAll(folder, '').replace(/tmp\w{8}/g, 'TMP')
  return { status: done.status, stdout: quiet(done.stdout), stderr: quiet(done.stderr), tree: stdout }
}

t.test('tools leave in staging what they leave on a local disk, and say the same', async t => {
  const mount = await Mount.start(t)
  const local = await tempDir(t)
  for (const [name, script] of Object.entries(SCRIPTS)) {
    const folder = String(Object.keys(SCRIPTS).indexOf(name))
    await mount.run('mkdir', [join(local, folder), mount.path('staging', folder)])
    const expected = await outcome(join(local, folder), script)
    t.same(await outcome(mount.path('staging', folder), script), expected, name)
  }
  await waitFor(mount, [mount.path('staging')])
  const described = (path: string) => runOk('bash', ['-c', DESCRIBE], { cwd: path, timeoutMs: 60_000 })
  const { cid } = await mount.json<PathCid>(['cid', mount.path('staging')])
  const content = (text: string): string[] => text.split('\n').filter(line => /^[0-9a-f]{64} /.test(line))
  t.same(
    content((await described(mount.path('ipfs', cid!))).stdout),
    content((await described(mount.path('staging'))).stdout),
    'staging and ipfs/<its CID> agree byte for byte',
  )
})

async function waitFor(mount: Mount, paths: string[]): Promise<WaitResult> {
  return mount.json<WaitResult>(['wait', ...paths], { timeoutMs: 60_000 })
}

async function xattr(mount: Mount, path: string, name: string): Promise<string> {
  const { stdout } = await mount.run('getfattr', ['--only-values', '--absolute-names', '-n', name, path])
  return stdout
}

t.test('the attributes of a file follow it from open to pinned', async t => {
  const mount = await Mount.start(t)
  const script = `
import errno, json, os, time
def get(name):
    try: return os.getxattr('staging/f', name).decode()
    except OSError as e: return errno.errorcode[e.errno]
def look(): return {name: get(name) for name in ('user.ipfs.state', 'user.ipfs.cid')}
def settled():
    end = time.time() + 20
    while get('user.ipfs.state') != 'pinned' and time.time() < end: time.sleep(0.01)
    return look()
seen = []
with open('staging/f', 'w') as f:
    f.write('one'); f.flush(); seen.append(look())
seen.append(settled())
with open('staging/f', 'a') as f:
    seen.append(look()); f.write('two'); f.flush(); seen.append(look())
seen.append(settled()); seen.append(sorted(os.listxattr('staging/f'))); seen.append(get('user.ipfs.error'))
print(json.dumps(seen))`
  const { stdout } = await mount.run('python3', ['-c', script])
  const [writing, first, opened, dirty, second, listed, error] = JSON.parse(stdout)
  t.same(writing, { 'user.ipfs.state': 'writing', 'user.ipfs.cid': 'ENODATA' })
  t.match(first, { 'user.ipfs.state': 'pinned', 'user.ipfs.cid': /^bafkrei/ })
  t.same(opened, { 'user.ipfs.state': 'writing', 'user.ipfs.cid': first['user.ipfs.cid'] })
  t.same(dirty, { 'user.ipfs.state': 'writing', 'user.ipfs.cid': 'ENODATA' })
  t.not(second['user.ipfs.cid'], first['user.ipfs.cid'])
  t.same(listed, ['user.ipfs.cid', 'user.ipfs.state'])
  t.equal(error, 'ENODATA')
  t.equal(await xattr(mount, 'staging/f', 'user.ipfs.cached'), '100')
})

t.test('cidfs cid and cidfs wait tell what they are for', async t => {
  const mount = await Mount.start(t, { args: ['--settle', '300ms'] })
  const file = mount.path('staging', 'dir', 'file')
  const other = mount.path('staging', 'other')
  await mount.run('sh', [
    '-c',
    'mkdir staging/dir; echo hello > staging/dir/file; echo other > staging/other',
  ])
  const early = await mount.cli(['cid', file])
  t.match(early, { status: 1, stdout: '', stderr: /has no CID yet.*cidfs wait/ })
  t.same(await waitFor(mount, [file, other]), { pinned: 2, failed: [] })
  const { stdout } = await mount.cli(['cid', file])
  t.equal(stdout.trim(), await xattr(mount, 'staging/dir/file', 'user.ipfs.cid'))
  t.match(await mount.json(['cid', other]), { cid: /^bafkrei/, state: 'pinned', error: null })
  t.match(await mount.json(['cid', mount.path('ipfs', stdout.trim())]), {
    cid: stdout.trim(),
    state: 'immutable',
  })
  await waitFor(mount, [mount.path('staging', 'dir')])
  t.match(await mount.cli(['cid', mount.path('staging', 'dir')]), { status: 0, stdout: /^bafybei/ })
  t.match(await mount.cli(['cid', mount.path('staging', 'none')]), { status: 1, stderr: /no such file/ })
  t.match(await mount.cli(['wait', mount.path('staging', 'none')]), { status: 1, stderr: /no such file/ })
})

t.test('a file that cannot be published is told of, and does not hold up the others', async t => {
  const mount = await Mount.start(t, { args: ['--settle', '1s'] })
  await mount.run('sh', ['-c', 'mkdir staging/dir; echo bad > staging/dir/bad'])
  const objects = await workingObjects(mount)
  t.equal(objects.length, 1)
  await rm(objects[0]!)
  await mount.run('sh', ['-c', 'echo good > staging/good'])
  const result = await mount.cli(['wait', mount.path('staging')])
  t.match(result, { status: 1, stderr: /staging\/dir\/bad: .*ENOENT/ })
  const json = await mount.cli(['wait', mount.path('staging', 'dir'), '--json'])
  t.equal(json.status, 1)
  t.match(JSON.parse(json.stdout), { failed: [{ path: 'staging/dir/bad', error: /ENOENT/ }] })
  t.match(await mount.cli(['wait', mount.path('staging', 'good')]), { status: 0 })
  t.match(await xattr(mount, 'staging/dir/bad', 'user.ipfs.error'), /ENOENT.*\(tried \d+ times\)/)
  t.equal(await xattr(mount, 'staging/dir/bad', 'user.ipfs.state'), 'failed')
  const { staging } = await mount.json<StatusReport>(['status', mount.dir])
  t.equal(staging.failed, 1)
  await mount.run('rm', ['staging/dir/bad'])
  t.same(await waitFor(mount, [mount.path('staging')]), { pinned: 1, failed: [] })
})

/** Files of content that is not published. */
async function workingObjects(mount: Mount): Promise<string[]> {
  const folder = join(mount.stateDir, 'objects')
  const names = await readdir(folder, { recursive: true, withFileTypes: true })
  return names.filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name))
}

t.test('a directory has a CID that changes with what is in it, and only then', async t => {
  const mount = await Mount.start(t)
  const dir = mount.path('staging', 'dir')
  const cid = async (): Promise<string> => {
    await waitFor(mount, [dir])
    return (await mount.json<PathCid>(['cid', dir])).cid!
  }
  await mount.run('sh', ['-c', 'mkdir -p staging/dir/sub; echo a > staging/dir/sub/f'])
  const first = await cid()
  const seen = [first]
  for (const change of [
    'echo b > sub/f',
    'mv sub/f sub/g',
    'mkdir e',
    'ln -s sub l',
    'rm -r sub/g',
    'rm l',
  ]) {
    await runOk('sh', ['-c', change], { cwd: dir })
    seen.push(await cid())
  }
  t.equal(new Set(seen).size, seen.length, 'each change made another one')
  await runOk('sh', ['-c', 'chmod 700 sub; touch -d @1 sub; rmdir e; echo a > sub/f'], { cwd: dir })
  t.equal(await cid(), first, 'the same content has the same CID, whatever its modes and times')
})

t.test('what was staged is read under its CID at once, and after a restart without any network', async t => {
  const stateDir = await tempDir(t)
  const first = await Mount.start(t, { stateDir })
  await first.run('bash', [
    '-c',
    'mkdir -p staging/d/e; seq 300000 | tee staging/d/big | head -3 > staging/d/e/small',
  ])
  await waitFor(first, [first.path('staging')])
  const { cid } = await first.json<PathCid>(['cid', first.path('staging', 'd')])
  await first.run('diff', ['-r', `ipfs/${cid}`, 'staging/d'])
  t.ok((await first.run('ls', ['ipfs'])).stdout.includes(cid!), 'pinned, so listed')
  await first.stop()
  const second = await Mount.start(t, { stateDir, args: ['--offline'] })
  await second.run('diff', ['-r', `ipfs/${cid}`, 'staging/d'])
  t.equal((await second.json<PathCid>(['cid', second.path('staging', 'd')])).cid, cid)
  await second.run('sh', ['-c', 'echo more >> staging/d/big'])
  await waitFor(second, [second.path('staging')])
  t.equal((await second.run('tail', ['-2', 'staging/d/big'])).stdout, '300000\nmore\n')
  t.equal(
    (await second.run('tail', ['-1', `ipfs/${cid}/big`])).stdout,
    '300000\n',
    'the old CID keeps its bytes',
  )
})

t.test('what was closed before a crash is there afterwards, and gets published', async t => {
  const first = await Mount.start(t, { args: ['--settle', '60s'] })
  await first.run('sh', ['-c', 'mkdir staging/d; seq 100 > staging/d/small; seq 400000 > staging/d/large'])
  await first.run('sh', [
    '-c',
    'cp staging/d/small staging/moved; mv staging/moved staging/renamed; rm staging/d/none || :',
  ])
  await first.kill()
  const second = await Mount.start(t, { dir: first.dir, stateDir: first.stateDir })
  t.equal(
    (await second.run('find', ['staging', '-type', 'f'])).stdout.split('\n').sort().join(' ').trim(),
    'staging/d/large staging/d/small staging/renamed',
  )
  t.same(await waitFor(second, [second.path('staging')]), { pinned: 3, failed: [] })
  const { stdout } = await second.run('sh', [
    '-c',
    'seq 400000 | cmp - staging/d/large; seq 100 | cmp - staging/renamed',
  ])
  t.equal(stdout, '')
  const { cid } = await second.json<PathCid>(['cid', second.path('staging', 'd')])
  await second.run('diff', ['-r', `ipfs/${cid}`, 'staging/d'])
})

t.test('a file that was open for writing at a crash keeps what was written', async t => {
  const first = await Mount.start(t)
  const script = `
import sys
f = open('staging/f', 'wb', 0); f.write(b'x' * 100000); print('written', flush=True); sys.stdin.read()`
  const writer = (await import('node:child_process')).spawn('python3', ['-c', script], {
    cwd: first.dir,
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  await new Promise(resolve => writer.stdout.once('data', resolve))
  await first.kill()
  writer.stdin.end()
  await new Promise(resolve => (writer.exitCode === null ? writer.once('exit', resolve) : resolve(0)))
  const second = await Mount.start(t, { dir: first.dir, stateDir: first.stateDir })
  t.same(await waitFor(second, [second.path('staging')]), { pinned: 1, failed: [] })
  t.equal((await stat(second.path('staging', 'f'))).size, 100_000)
})

t.test('two thousand small files are one folder that is updated a few times', async t => {
  const mount = await Mount.start(t)
  const script = `
import os
os.mkdir('staging/many')
for i in range(2000):
    with open('staging/many/f%d' % i, 'w') as f: f.write('content %d' % i)`
  const before = await mount.json<StatusReport>(['status', mount.dir])
  await mount.run('python3', ['-c', script])
  t.match(await waitFor(mount, [mount.path('staging', 'many')]), { pinned: 2000, failed: [] })
  const { store, staging } = await mount.json<StatusReport>(['status', mount.dir])
  t.match(staging, { writing: 0, queued: 0, publishing: 0, failed: 0, queuedBytes: 0 })
  const folders = store.blocks - before.store.blocks - 2000
  t.ok(folders >= 1 && folders <= 12, `${folders} blocks of the folder`)
  t.equal(
    (await mount.run('sh', ['-c', 'cat staging/many/f* | wc -c'])).stdout.trim(),
    String(8 * 2000 + 6890),
  )
  await mount.run('rm', ['-r', 'staging/many'])
  await until('nothing is left', async () => (await workingObjects(mount)).length === 0)
})

t.test('removing everything unpins everything', async t => {
  const mount = await Mount.start(t)
  await mount.run('sh', [
    '-c',
    'for i in 1 2 3; do echo $i > staging/$i; done; mkdir staging/d; echo x > staging/d/x',
  ])
  await waitFor(mount, [mount.path('staging')])
  t.equal((await mount.json<StatusReport>(['status', mount.dir])).store.pins, 4)
  await mount.run('sh', ['-c', 'rm -r staging/*'])
  t.equal((await mount.json<StatusReport>(['status', mount.dir])).store.pins, 0)
  t.equal((await mount.run('ls', ['-A', 'staging'])).stdout, '')
})
