/** Writing into a real mount: states, CIDs, waiting, restarts and crashes. */
import { rm, stat } from 'node:fs/promises'
import t from 'tap'
import type { PathCid, StatusReport } from '../../src/daemon/control-protocol.js'
import { Mount } from '../support/mount.js'
import { runOk } from '../support/run.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'
import { waitFor, workingObjects, writer, xattr } from './staged.js'

t.setTimeout(100_000)

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
  const mount = await Mount.start(t)
  const file = mount.path('staging', 'dir', 'file')
  const other = mount.path('staging', 'other')
  await mount.run('sh', ['-c', 'mkdir staging/dir; echo other > staging/other'])
  const close = await writer(mount, file, 'hello')
  const early = await mount.cli(['cid', file])
  t.match(early, { status: 1, stdout: '', stderr: /has no CID yet: it is writing; cidfs wait/ })
  t.match(JSON.parse((await mount.cli(['cid', file, '--json'])).stdout), { cid: null, state: 'writing' })
  await close()
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
    'mkdir -p staging/d/e; seq 300000 > staging/d/big; seq 3 > staging/d/e/small',
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
  const end = await writer(first, first.path('staging', 'f'), 'x'.repeat(100_000))
  await first.kill()
  await end()
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
