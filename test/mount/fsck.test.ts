/** `cidfs fsck` and `cidfs gc` on a real mount: what was altered is found, what nobody wants goes. */
import { open, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { EXIT } from '../../src/cli/exit-codes.js'
import type {
  FsckReport,
  GcReport,
  ImportResult,
  PathCid,
  StatusReport,
} from '../../src/daemon/control-protocol.js'
import { sampleCar } from '../support/car-files.js'
import { Dag, pattern } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { Mount } from '../support/mount.js'
import { runOk } from '../support/run.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'
import { askOne } from './ask.js'
import { waitFor, workingObjects } from './staged.js'

t.setTimeout(100_000)

const MIB = 1024 * 1024

/** Stages a file and returns its CID once it is pinned. */
async function stage(mount: Mount, name: string, content: Uint8Array): Promise<string> {
  await writeFile(mount.path('staging', name), content)
  return published(mount, name)
}

async function published(mount: Mount, name: string): Promise<string> {
  await waitFor(mount, [mount.path('staging', name)])
  return (await mount.json<PathCid>(['cid', mount.path('staging', name)])).cid!
}

async function fsck(mount: Mount, ...args: string[]): Promise<FsckReport & { status: number | null }> {
  const { status, stdout } = await mount.cli(['fsck', '--json', ...args])
  return { status, ...(JSON.parse(stdout) as FsckReport) }
}

/** Writes over one byte of a file behind the daemon's back. */
async function alter(path: string, offset: number): Promise<void> {
  const file = await open(path, 'r+')
  await file.write(Buffer.from([0xaa]), 0, 1, offset)
  await file.close()
}

async function bytesHeld(mount: Mount): Promise<number> {
  return (await mount.json<StatusReport>(['status', mount.dir])).store.bytes
}

/** A file of 3 MiB, staged, with one byte of its object altered. */
async function damaged(t: Test, gateways: string[] = []) {
  const mount = await Mount.start(t, { gateways, args: ['--read-deadline', '2s'] })
  const content = pattern(3 * MIB)
  const cid = await stage(mount, 'file', content)
  const [object] = await workingObjects(mount)
  await alter(object!, MIB + 12)
  return { mount, content, cid }
}

t.test('a sound state is sound, with a daemon and without one', async t => {
  const mount = await Mount.start(t)
  await mount.run('sh', ['-c', 'mkdir -p staging/a/b; echo x > staging/a/b/x; ln -s x staging/a/link'])
  await stage(mount, 'large', pattern(3 * MIB))
  await waitFor(mount, [mount.path('staging')])
  const found = await fsck(mount, mount.dir)
  t.match(found, { status: EXIT.OK, damaged: false, badBlocks: 0, faultCount: 0, nodes: 6 })
  t.ok(found.blocks >= 8 && found.bytes > 3 * MIB, `${found.blocks} blocks, ${found.bytes} bytes`)
  t.match(await mount.cli(['fsck', mount.dir]), { status: EXIT.OK, stdout: /no damage/, stderr: '' })
  await mount.stop()
  t.match(await fsck(mount, '--state', mount.stateDir), { ...found, leftovers: 0 })
})

t.test('an altered object is found, and its block is fetched again after --repair', async t => {
  const gateway = await TestGateway.start(t)
  await new Dag(gateway).import([{ content: pattern(3 * MIB) }])
  const { mount, content, cid } = await damaged(t, [gateway.url])
  t.notSame(
    await readFile(mount.path('ipfs', cid)),
    Buffer.from(content),
    'the kernel has cached what is wrong',
  )
  const found = await fsck(mount, mount.dir)
  t.match(found, { status: EXIT.BAD_DATA, damaged: true, badBlocks: 1, repaired: 0 })
  t.match(found.bad, [{ reason: 'mismatch', cid: /^bafkrei/ }])
  t.match(await fsck(mount, mount.dir, '--repair'), { status: EXIT.BAD_DATA, badBlocks: 1, repaired: 1 })
  for (const path of [mount.path('ipfs', cid), mount.path('staging', 'file')]) {
    await until(`${path} is read anew`, async () => (await readFile(path)).equals(content))
  }
  t.equal(gateway.requests.length, 1, 'one block was fetched')
  t.match(await fsck(mount, mount.dir), { status: EXIT.OK, damaged: false })
})

t.test('where nobody has the block, reading is an error and never wrong bytes', async t => {
  const { mount, content, cid } = await damaged(t)
  t.match(await fsck(mount, mount.dir, '--repair'), { repaired: 1 })
  const path = mount.path('ipfs', cid)
  await until('the altered bytes are gone', async () => (await askOne({ op: 'read', path })).errno === 'EIO')
  const first = await askOne({ op: 'read', path, length: MIB })
  t.equal(Buffer.compare(first.bytes!, content.subarray(0, MIB)), 0, 'what lies before it is read')
  t.equal((await askOne({ op: 'read', path: mount.path('staging', 'file') })).errno, 'EIO')
  const again = await mount.cli(['fsck', mount.dir])
  t.match(again, { status: EXIT.BAD_DATA, stdout: /^file: .*is not complete/m }, 'it stays on the list')
})

t.test('damage is found without a daemon as well', async t => {
  const { mount } = await damaged(t)
  await mount.stop()
  const state = ['--state', mount.stateDir]
  t.match(await fsck(mount, ...state), { status: EXIT.BAD_DATA, badBlocks: 1, faultCount: 0 })
  t.match(await fsck(mount, ...state, '--repair'), { status: EXIT.BAD_DATA, repaired: 1, faultCount: 1 })
  const none = join(await tempDir(t), 'none')
  t.match(await mount.cli(['fsck', '--state', none]), { status: EXIT.NOT_RUNNING, stderr: /no store/ })
})

t.test('content that vanished before it was published is found', async t => {
  const mount = await Mount.start(t, { args: ['--settle', '1m'] })
  await writeFile(mount.path('staging', 'file'), 'content')
  const [object] = await workingObjects(mount)
  await rm(object!)
  const found = await fsck(mount, mount.dir)
  t.match(found, { status: EXIT.BAD_DATA, faults: [{ path: 'file', problem: /^object \d+ is missing$/ }] })
  await rm(mount.path('staging', 'file'))
  t.match(await fsck(mount, mount.dir), { status: EXIT.OK, damaged: false })
})

t.test('gc gives back the space of what was deleted, and of nothing else', async t => {
  const mount = await Mount.start(t)
  const kept = await stage(mount, 'kept', pattern(2 * MIB, 2))
  await mount.run('sh', [
    '-c',
    'mkdir staging/dir; echo small > staging/dir/small; echo old > staging/changed',
  ])
  const small = await published(mount, 'dir')
  const imported = await mount.json<ImportResult>(['import', (await sampleCar(await tempDir(t))).path])
  await mount.run('sh', ['-c', `ln -s ${kept} pins/kept`])
  const before = await bytesHeld(mount)
  const gone = await stage(mount, 'gone', pattern(64 * MIB, 3))
  await rm(mount.path('staging', 'gone'))
  const { freedBytes, objects } = await until('the space is back', async () => {
    const report = await mount.json<GcReport>(['gc', mount.dir])
    return report.objects > 0 ? report : undefined
  })
  t.ok(freedBytes >= 64 * MIB, `${freedBytes} bytes freed`)
  t.equal(objects, 1)
  t.ok((await bytesHeld(mount)) <= before + 64 * 1024, 'as much as before is held')
  t.equal((await askOne({ op: 'read', path: mount.path('ipfs', gone) }, 60_000)).errno, 'EIO')
  for (const cid of [kept, small, ...imported.roots]) {
    const exported = await mount.cli([
      'export',
      '-o',
      join(await tempDir(t), 'car'),
      '--state',
      mount.stateDir,
      cid,
    ])
    t.equal(exported.status, EXIT.OK, exported.stderr)
  }
  t.match(await fsck(mount, mount.dir), { damaged: false, partialPins: 0 })
  await rm(mount.path('staging', 'kept'))
  await mount.json<GcReport>(['gc', mount.dir])
  await runOk('cmp', [mount.path('ipfs', kept), mount.path('pins', 'kept')])
})

t.test('gc beside a busy publisher takes nothing away', async t => {
  const mount = await Mount.start(t, { args: ['--settle', '0ms'] })
  const script =
    'for i in $(seq 150); do echo $1 $i > staging/$1$i; [ $((i % 3)) = 0 ] && rm staging/$1$i; done; true'
  let done = false
  const writers = Promise.all(['a', 'b'].map(name => mount.run('sh', ['-c', script, 'sh', name]))).then(
    () => {
      done = true
    },
  )
  let runs = 0
  for (; !done || runs < 3; runs++) await mount.json<GcReport>(['gc', mount.dir])
  await writers
  t.same(await waitFor(mount, [mount.path('staging')]), { pinned: 200, failed: [] })
  t.match(await fsck(mount, mount.dir), { damaged: false }, `after ${runs} runs`)
  const { stdout } = await mount.run('sh', ['-c', 'cat staging/* | wc -l'])
  t.equal(stdout.trim(), '200')
})

t.test('gc without a daemon is refused', async t => {
  const dir = await tempDir(t)
  const mount = await Mount.start(t)
  t.match(await mount.cli(['gc', '--state', dir]), {
    status: EXIT.NOT_RUNNING,
    stderr: /no cidfs daemon runs/,
  })
})
