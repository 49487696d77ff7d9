/** The publish queue as `status --json` and extended attributes show it, under a real mount. */
import { readdir, rm, writeFile } from 'node:fs/promises'
import t from 'tap'
import type { StatusReport } from '../../src/daemon/control-protocol.js'
import { Mount } from '../support/mount.js'
import { until } from '../support/until.js'
import { askOne } from './ask.js'
import { waitFor, workingObjects } from './staged.js'

t.setTimeout(100_000)

const MANY = 10_000
const SETTLE_MS = 150

async function staging(mount: Mount): Promise<StatusReport['staging']> {
  return (await mount.json<StatusReport>(['status', mount.dir])).staging
}

t.test('a file that is queued has no CID, even when its last content had one', async t => {
  const mount = await Mount.start(t, { args: ['--settle', '2s'] })
  const path = mount.path('staging', 'file')
  await writeFile(path, 'first')
  await waitFor(mount, [path])
  const script = `
import errno, json, os, time
with open('staging/file', 'w') as f: f.write('second')
def get(name):
    try: return os.getxattr('staging/file', name).decode()
    except OSError as e: return errno.errorcode[e.errno]
end = time.monotonic() + 1 # the kernel tells of a close after close(2) has returned
while get('user.ipfs.state') == 'writing' and time.monotonic() < end: time.sleep(0.001)
print(json.dumps([get(name) for name in ('user.ipfs.state', 'user.ipfs.cid', 'ipfs.cid')]))
os.unlink('staging/file')`
  const { stdout } = await mount.run('python3', ['-c', script])
  t.same(JSON.parse(stdout), ['queued', 'ENODATA', 'ENODATA'])
})

t.test('each path that fails is named with the number of tries and the last error', async t => {
  const mount = await Mount.start(t, { args: ['--settle', '500ms'] })
  // too large for the nursery: each is a file of its own
  const write = 'for i in $(seq 25); do printf "%070000d" $i > staging/dir/$i; done'
  await mount.run('sh', ['-c', `mkdir staging/dir; ${write}`])
  for (const object of await workingObjects(mount)) await rm(object)
  await mount.run('sh', ['-c', 'echo good > staging/good'])
  const report = await until('all have failed twice', async () => {
    const found = await staging(mount)
    return found.failures.length > 0 && found.failures.every(({ tries }) => tries > 1) ? found : undefined
  })
  t.equal(report.failed, 25)
  t.equal(report.failures.length, 20, 'the list is bounded')
  for (const { path, error } of report.failures) {
    t.match(path, /^staging\/dir\/\d+$/)
    t.match(error, /ENOENT/)
  }
  const error = await askOne({
    op: 'xattr',
    path: mount.path('staging', 'dir', '1'),
    name: 'user.ipfs.error',
  })
  t.match(`${error.bytes}`, /ENOENT.*\(tried \d+ times\)$/)
  await rm(mount.path('staging', 'dir'), { recursive: true })
  t.match(await waitFor(mount, [mount.path('staging')]), { pinned: 1, failed: [] })
  t.same((await staging(mount)).failures, [], 'what is gone is not tried any more')
})

t.test(`${MANY} files dropped into one folder cause few updates of it`, async t => {
  const mount = await Mount.start(t, { args: ['--settle', `${SETTLE_MS}ms`] })
  const script = `
import os, sys
os.mkdir('staging/many')
for i in range(${MANY}):
    with open('staging/many/%d' % i, 'w') as f: f.write(str(i))`
  const began = performance.now()
  await mount.run('python3', ['-c', script], { timeoutMs: 60_000 })
  const tookMs = performance.now() - began
  await waitFor(mount, [mount.path('staging')])
  const { published, failures } = await staging(mount)
  t.same(failures, [])
  t.equal(published.files, MANY)
  const bound = Math.ceil(tookMs / SETTLE_MS) + 2
  t.ok(published.directories <= bound, `${published.directories} updates in ${tookMs.toFixed(0)} ms`)
  t.equal((await readdir(mount.path('staging', 'many'))).length, MANY)
})
