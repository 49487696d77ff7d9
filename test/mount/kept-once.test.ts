/** What is published is kept once: no byte is copied for it, and no content lies on the disk twice. */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { open, readFile, rm, stat, writeFile } from 'node:fs/promises'
import t from 'tap'
import type { PathCid, StatusReport } from '../../src/daemon/control-protocol.js'
import { sha256 } from '../support/dag.js'
import { Mount } from '../support/mount.js'
import { diskUse } from '../support/small-disk.js'
import { until } from '../support/until.js'
import { isSound, waitFor, workingObjects } from './staged.js'

t.setTimeout(110_000)

const MIB = 1024 * 1024
/** Index and DAG of what is published, in parts of it. */
const OVERHEAD = 0.01
/** The reserve for a full disk, and the index of an empty store. */
const FIXED_BYTES = 5 * MIB

function bound(contentBytes: number): number {
  return contentBytes * (1 + OVERHEAD) + FIXED_BYTES
}

async function cidOf(mount: Mount, name: string): Promise<string> {
  await waitFor(mount, [mount.path('staging', name)])
  return (await mount.json<PathCid>(['cid', mount.path('staging', name)])).cid!
}

async function sumOf(mount: Mount, path: string): Promise<string> {
  return (await mount.run('sha256sum', [path], { timeoutMs: 60_000 })).stdout.split(' ')[0]!
}

/** Bytes that the daemon has written so far, to whatever. */
async function written(mount: Mount): Promise<number> {
  return Number(/^wchar: (\d+)$/m.exec(await readFile(`/proc/${mount.pid}/io`, 'utf8'))?.[1])
}

/** Writes a file of random bytes, says what they are, and closes it when it is told to. */
const WRITE = `
import hashlib, os, sys
digest = hashlib.sha256()
with open('staging/big', 'wb', 0) as f:
    for _ in range(int(sys.argv[1])):
        data = os.urandom(1 << 20); f.write(data); digest.update(data)
    print(digest.hexdigest(), flush=True); sys.stdin.read()`

t.test('256 MiB that are published take 256 MiB, and were not copied', async t => {
  const mount = await Mount.start(t)
  const size = 256 * MIB
  const stdio = ['pipe', 'pipe', 'inherit'] as const
  const program = spawn('python3', ['-c', WRITE, `${size / MIB}`], { cwd: mount.dir, stdio: [...stdio] })
  const sum = String((await once(program.stdout!, 'data'))[0]).trim()
  const [object] = await workingObjects(mount)
  const { ino } = await stat(object!)
  const before = await written(mount)
  program.stdin!.end()
  await once(program, 'exit')
  const cid = await cidOf(mount, 'big')
  const copied = (await written(mount)) - before
  t.ok(copied < 4 * MIB, `${copied} bytes were written for it`)
  t.same(await workingObjects(mount), [object])
  t.equal((await stat(object!)).ino, ino, 'the file that was written is the object')
  const used = await diskUse(mount.stateDir)
  t.ok(used <= bound(size), `${used} bytes on disk, ${((100 * (used - size)) / size).toFixed(2)} % more`)
  t.equal(await sumOf(mount, 'staging/big'), sum)
  t.equal(await sumOf(mount, `ipfs/${cid}`), sum)
  const { space } = await mount.json<StatusReport>(['status', mount.dir])
  t.ok(Math.abs(space.usedBytes - used) < MIB, `status says ${space.usedBytes}`)
})

for (const passthrough of ['auto', 'off']) {
  t.test(`one content under two names lies on the disk once, passthrough ${passthrough}`, async t => {
    const mount = await Mount.start(t, { args: ['--passthrough', passthrough] })
    const content = randomBytes(48 * MIB)
    for (const name of ['one', 'two']) await writeFile(mount.path('staging', name), content)
    const cid = await cidOf(mount, 'one')
    t.equal(await cidOf(mount, 'two'), cid)
    await until(
      'it is kept once',
      async () => (await diskUse(mount.stateDir)) <= bound(content.length),
      20_000,
    )
    t.equal((await workingObjects(mount)).length, 1)
    for (const path of ['staging/one', 'staging/two', `ipfs/${cid}`])
      t.equal(await sumOf(mount, path), sha256(content), path)
    await rm(mount.path('staging', 'one'))
    t.equal((await mount.cli(['gc', mount.dir])).status, 0)
    t.equal(await sumOf(mount, 'staging/two'), sha256(content), 'the other name has it still')
    await isSound(t, mount)
  })
}

t.test(
  'a published file that is changed starts from a copy, and what is pinned stays what it was',
  async t => {
    const mount = await Mount.start(t)
    const content = randomBytes(24 * MIB)
    const path = mount.path('staging', 'file')
    await writeFile(path, content)
    const old = await cidOf(mount, 'file')
    await mount.run('ln', ['-s', old, 'pins/old'])
    const file = await open(path, 'r+')
    await file.write(Buffer.from('changed'), 0, 7, 10 * MIB)
    await file.close()
    const changed = Buffer.from(content)
    changed.write('changed', 10 * MIB)
    const cid = await cidOf(mount, 'file')
    t.not(cid, old)
    t.equal(await sumOf(mount, `ipfs/${cid}`), sha256(changed))
    t.equal(await sumOf(mount, 'staging/file'), sha256(changed))
    t.equal((await mount.cli(['gc', mount.dir])).status, 0)
    t.equal(await sumOf(mount, `ipfs/${old}`), sha256(content), 'the old CID has the old content')
    await rm(mount.path('pins', 'old'))
    t.equal((await mount.cli(['gc', mount.dir])).status, 0)
    await until(
      'the old content is off the disk',
      async () => {
        return (await diskUse(mount.stateDir)) <= bound(content.length)
      },
      30_000,
    )
    t.equal(await sumOf(mount, 'staging/file'), sha256(changed))
  },
)
