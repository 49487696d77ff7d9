/** Sources that are slow, wrong, gone or silent, as a program that reads through the mount meets them. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import t, { type Test } from 'tap'
import type { CID } from '../../src/core/cid.js'
import { Dag, link, pattern, sha256 } from '../support/dag.js'
import { type Fault, TestGateway } from '../support/gateway.js'
import { Mount } from '../support/mount.js'
import { run } from '../support/run.js'
import { isNative } from '../support/transport.js'
import { until } from '../support/until.js'
import { ask, askOne, type Question } from './ask.js'

t.setTimeout(110_000)

const MIB = 1024 * 1024

async function served(t: Test, { args = [], more = [] }: { args?: string[]; more?: string[] } = {}) {
  const gateway = await TestGateway.start(t)
  const env = { DEBUG: 'cidfs:*,-cidfs:fuse:trace' }
  const mount = await Mount.start(t, { gateways: [...more, gateway.url], args, env })
  const at = (cid: CID, ...names: string[]) => mount.path('ipfs', `${cid}`, ...names)
  return { gateway, mount, at, dag: new Dag(gateway) }
}

const FAULTS: Record<string, Fault> = {
  'answers after ten seconds': { delayMs: 10_000 },
  'sends wrong bytes': { wrongBytes: true },
  'never answers': { hang: true },
  'cuts every answer short': { truncate: true },
  'sends a byte now and then': { dripMs: 2000 },
  'fails with 500': { status: 500 },
  'has nothing': { status: 404 },
  'wants to be left alone': { status: 429, headers: { 'retry-after': '3600' } },
}

for (const [what, fault] of Object.entries(FAULTS)) {
  t.test(`a gateway that ${what} is passed over while another one has the block`, async t => {
    const bad = await TestGateway.start(t)
    bad.fault = () => fault
    const { dag, at } = await served(t, { more: [bad.url] })
    const content = pattern(4 * MIB, 9)
    const both = new Dag({ add: (cid, bytes) => bad.add(cid, bytes) })
    const file = await dag.import([{ content }])
    await both.import([{ content }])
    const found = await askOne({ op: 'digest', path: at(file) })
    t.match(found, { sizeBytes: content.length, sha256: sha256(content) })
    t.ok(found.ms < 6000, `${Math.round(found.ms)} ms`)
    t.ok(bad.requests.length > 0, 'it was asked')
  })
}

t.test('a gateway that refuses connections is passed over', async t => {
  const gone = await TestGateway.start(t)
  await gone.stop()
  const { dag, at } = await served(t, { more: ['http://127.0.0.1:9'] })
  const content = pattern(MIB, 10)
  const found = await askOne({ op: 'digest', path: at(await dag.import([{ content }])) })
  t.equal(found.sha256, sha256(content))
  t.ok(found.ms < 3000, `${Math.round(found.ms)} ms`)
})

t.test('when every source says no, a read is EIO at once, and it is told why', async t => {
  const other = await TestGateway.start(t)
  const { gateway, mount, dag, at } = await served(t, { more: [other.url] })
  const leaf = dag.raw(pattern(5000, 11))
  const file = dag.file([{ cid: leaf, sizeBytes: 5000 }]).cid
  const absent = dag.node({ type: 'file', data: Buffer.from('absent') })
  const dir = dag.directory([link(absent, 'absent')])
  gateway.remove(leaf)
  gateway.remove(absent)
  const paths = [at(file), at(dir, 'absent'), at(absent)]
  const found = await ask(paths.map((path): Question => ({ op: 'read', path })))
  for (const { errno, ms } of found) {
    t.equal(errno, 'EIO')
    t.ok(ms < 2000, `after ${Math.round(ms)} ms`)
  }
  const reasons = [
    [at(file), leaf],
    [at(dir), absent],
    [mount.path('ipfs'), absent],
  ] as const
  for (const [path, cid] of reasons) {
    const { stdout } = await mount.run('getfattr', [
      '--absolute-names',
      '--only-values',
      '-n',
      'user.ipfs.error',
      path,
    ])
    for (const part of [`${cid}`, gateway.url, other.url]) t.match(stdout, part)
    t.match(stdout, /404|not have/)
  }
  t.match(mount.log, new RegExp(`${leaf}.*could not be had`), 'the log says it, too')
})

t.test('bytes that nobody has right are EIO, never data', async t => {
  const { gateway, dag, at } = await served(t)
  gateway.fault = () => ({ wrongBytes: true })
  const found = await askOne({ op: 'read', path: at(dag.raw(pattern(5000, 12))) })
  t.equal(found.errno, 'EIO')
  t.ok(found.ms < 3000, `after ${Math.round(found.ms)} ms`)
})

t.test('what nobody answers is EIO at the deadline', async t => {
  const { gateway, mount, dag, at } = await served(t, { args: ['--read-deadline', '1500ms'] })
  gateway.fault = () => ({ hang: true })
  const path = at(dag.raw(pattern(5000, 13)))
  const { errno, ms } = await askOne({ op: 'read', path })
  t.equal(errno, 'EIO')
  t.ok(ms > 1400 && ms < 4000, `after ${Math.round(ms)} ms`)
  const error = await askOne({ op: 'xattr', path: mount.path('ipfs'), name: 'user.ipfs.error' })
  t.match(error.bytes?.toString(), /did not come within 1[45]\d\d ms/)
})

t.test('what could not be had is had as soon as a source has it', async t => {
  const { gateway, dag, at } = await served(t)
  const content = pattern(5000, 14)
  const cid = dag.raw(content)
  gateway.remove(cid)
  t.equal((await askOne({ op: 'read', path: at(cid) })).errno, 'EIO')
  gateway.add(cid, content)
  await readable(at(cid), content)
})

/** Returns when the file reads as expected: an absence is believed for a moment. */
async function readable(path: string, content: Uint8Array): Promise<void> {
  await until(`${path} reads`, async () => {
    const { bytes } = await askOne({ op: 'read', path })
    if (bytes?.equals(content) === false) throw new Error(`${path}: wrong bytes`)
    return bytes
  })
}

/** A program with its own handler for SIGINT, as interactive ones have. */
const PATIENT = `
import os, signal, sys
def stop(*_): raise SystemExit(42)
signal.signal(signal.SIGINT, stop)
fd = os.open(sys.argv[1], os.O_RDONLY)
print('reading', flush=True)
os.read(fd, 10)
`

// fuse-native is not told of interrupts
for (const handled of isNative ? [false, true] : []) {
  const whom = handled ? 'a program that handles it' : 'a program that dies of it'
  t.test(`SIGINT ends a read that waits for a silent source, of ${whom}`, async t => {
    const { gateway, dag, at } = await served(t, { args: ['--read-deadline', '60s'] })
    const leaf = dag.raw(pattern(5000, 15))
    const file = dag.file([{ cid: leaf, sizeBytes: 5000 }]).cid
    const well = dag.raw(Buffer.from('well'))
    gateway.fault = cid => (cid.equals(leaf) ? { hang: true } : undefined)
    const [tool, args] = handled ? ['python3', ['-c', PATIENT, at(file)]] : ['cat', [at(file)]]
    const reader = spawn(tool as string, args as string[], { stdio: 'ignore' })
    t.teardown(() => void reader.kill('SIGKILL'))
    await until('the leaf is asked for', () => gateway.count(leaf) > 0)
    const start = performance.now()
    reader.kill('SIGINT')
    const [status, signal] = await once(reader, 'exit')
    t.same([status, signal], handled ? [42, null] : [null, 'SIGINT'])
    t.ok(performance.now() - start < 2000, `after ${Math.round(performance.now() - start)} ms`)
    await until('the request is cancelled', () => gateway.active === 0)
    t.equal((await askOne({ op: 'read', path: at(well) })).bytes?.toString(), 'well', 'the daemon goes on')
  })
}

/** Reads the missing sixth leaf of 256 KiB, its neighbours, and it again, through one descriptor. */
const SAME_FILE = `
import errno, os, sys
fd, size, said = os.open(sys.argv[1], os.O_RDONLY), 262144, []
for i in (5, 4, 6, 5):
    try: said.append(str(len(os.pread(fd, size, i * size))))
    except OSError as e: said.append(errno.errorcode[e.errno])
print(*said, end='')
`

t.test('a missing middle block fails only the reads that need it', async t => {
  const { gateway, dag, at } = await served(t)
  const size = 256 * 1024
  const contents = Array.from({ length: 12 }, (_, i) => pattern(size, i + 20))
  const leaves = contents.map(content => ({ cid: dag.raw(content), sizeBytes: size }))
  const file = dag.file(leaves).cid
  gateway.remove(leaves[5]!.cid)
  const orders = [contents.map((_, i) => i), [11, 6, 5, 4, 0]]
  for (const order of orders) {
    const found = await ask(order.map(i => ({ op: 'read', path: at(file), offset: i * size, length: size })))
    const verdicts = found.map(({ errno, bytes }, i) => errno ?? bytes?.equals(contents[order[i]!]!))
    t.same(
      verdicts,
      order.map(i => (i === 5 ? 'EIO' : true)),
      `read in the order ${order}`,
    )
  }
  const edges = [
    [5 * size - 100, 100],
    [6 * size, 1],
    [5 * size - 1, 1],
  ] as const
  for (const { bytes } of await ask(
    edges.map(([offset, length]) => ({ op: 'read', path: at(file), offset, length })),
  )) {
    t.ok(bytes, 'up to its very edges')
  }
  const { status, bytes, stderr } = await run('cat', [at(file)])
  t.not(status, 0)
  t.match(stderr, /Input\/output error/)
  t.ok(bytes.equals(Buffer.concat(contents.slice(0, 5))), 'cat gives what comes before')
  const sameFile = await run('python3', ['-c', SAME_FILE, at(file)])
  t.equal(sameFile.stdout, 'EIO 262144 262144 EIO', 'also of one open file, again and again')
  gateway.add(leaves[5]!.cid, contents[5]!)
  const whole = Buffer.concat(contents)
  await readable(at(file), whole)
})

// needs the page cache to be bypassed for one file
const perFile = isNative ? t : undefined
perFile?.test(
  'where blocks end within pages, what is there is read from the second try on at the latest',
  async t => {
    const { gateway, dag, at } = await served(t)
    const size = 1000
    const contents = Array.from({ length: 4096 / 8 }, (_, i) => pattern(size, i + 200))
    const leaves = contents.map(content => ({ cid: dag.raw(content), sizeBytes: size }))
    // nodes of 64 leaves whose own boundaries are those of pages hide the odd ones below
    const nodes = Array.from({ length: 8 }, (_, i) =>
      dag.file(leaves.slice(64 * i, 64 * (i + 1)), pattern(1536, i)),
    )
    const { cid } = dag.file(nodes)
    t.equal(nodes[0]!.sizeBytes % 4096, 0)
    const offset = 1536 + 10 * size
    gateway.remove(leaves[10]!.cid)
    await askOne({ op: 'read', path: at(cid) })
    const range = (i: number): Question => ({
      op: 'read',
      path: at(cid),
      offset: offset + i * size,
      length: size,
    })
    const found = await ask([-1, 0, 1].map(range))
    const verdicts = found.map(({ errno, bytes }, i) => errno ?? bytes?.equals(contents[9 + i]!))
    t.same(verdicts, [true, 'EIO', true])
  },
)
