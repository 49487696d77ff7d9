/** Data that lies or that nobody could have made in good faith: it costs its own path, and nothing else. */
import t, { type Test } from 'tap'
import { CODEC_DAG_PB } from '../../src/core/cid.js'
import { Dag, link, pattern, sha256 } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { Mount } from '../support/mount.js'
import { until } from '../support/until.js'
import { ask, askOne, type Question } from './ask.js'

t.setTimeout(110_000)

const gateway = await TestGateway.start(t)
const mount = await Mount.start(t, { gateways: [gateway.url], args: ['--read-deadline', '10s'] })
const dag = new Dag(gateway)
const at = (cid: { toString(): string }, ...names: string[]) => mount.path('ipfs', cid.toString(), ...names)
const witness = dag.raw(Buffer.from('the mount is well'))

t.afterEach(async () => {
  const { bytes } = await askOne({ op: 'read', path: at(witness) }, 5000)
  if (bytes?.toString() !== 'the mount is well') throw new Error('the mount does not answer any more')
})

/** Returns when stat(2) shows this size: the kernel learns it behind the back of open(2). */
async function statTells(sizeBytes: number, path: string): Promise<void> {
  await until(`stat shows ${sizeBytes} of ${path}`, async () => {
    const { stat } = await askOne({ op: 'stat', path })
    return stat?.sizeBytes === sizeBytes
  })
}

/** Asserts that reading fails with EIO, soon, and that the error is told. */
async function readsEio(t: Test, path: string, reason: RegExp): Promise<void> {
  const [read, error] = await ask([
    { op: 'read', path },
    { op: 'xattr', path, name: 'user.ipfs.error' },
  ])
  t.equal(read?.errno, 'EIO')
  t.ok(read!.ms < 3000, `after ${Math.round(read!.ms)} ms`)
  if (error?.bytes !== undefined) t.match(error.bytes.toString(), reason)
}

for (const [name, tsize] of Object.entries({
  'too small': 1,
  'too large': 1_000_000,
  absurd: 2 ** 52,
  zero: 0,
})) {
  t.test(`the size that a link gives its raw child is ${name}: the true bytes are read`, async t => {
    const content = pattern(10_000 + (tsize % 97), 7)
    const dir = dag.directory([link(dag.raw(content), 'file', tsize)])
    const path = at(dir, 'file')
    const [before, read] = await ask([
      { op: 'stat', path },
      { op: 'digest', path },
    ])
    t.equal(before?.errno, undefined)
    t.match(read, { sizeBytes: content.length, sha256: sha256(content) })
    await statTells(content.length, path)
    const { stdout } = await mount.run('sh', ['-c', 'cat "$1" | wc -c', 'sh', path])
    t.equal(Number(stdout), content.length, 'cat(1) agrees')
  })
}

t.test('a lying size is put right also for tools that look before they read', async t => {
  const content = pattern(9_000, 8)
  const dir = dag.directory([
    link(dag.raw(content), 'long', 100_000),
    link(dag.raw(content.subarray(1)), 'short', 10),
  ])
  await mount.run('ls', ['-l', at(dir)])
  await mount.run('cp', ['-r', at(dir), `${mount.stateDir}.copy`])
  const copies = await ask([
    { op: 'digest', path: `${mount.stateDir}.copy/long` },
    { op: 'digest', path: `${mount.stateDir}.copy/short` },
  ])
  t.match(copies[0], { sizeBytes: 9_000, sha256: sha256(content) })
  t.match(copies[1], { sizeBytes: 8_999, sha256: sha256(content.subarray(1)) })
})

t.test('block sizes that do not match the leaves are EIO, never wrong bytes', async t => {
  const leaf = dag.raw(pattern(4096, 20))
  const lie = (blocksizes: number[], filesize?: number) =>
    dag.node({ type: 'file', blocksizes, filesize }, [link(leaf, '', 4096), link(leaf, '', 4096)])
  await readsEio(t, at(lie([4096, 5000], 9096)), /promised/)
  await readsEio(t, at(lie([4000, 4096], 8096)), /promised/)
  await readsEio(t, at(lie([4096], 4096)), /block sizes/)
  await readsEio(t, at(lie([4096, 4096], 9000)), /file size/)
})

t.test('an interior node that holds less than its parent says is EIO', async t => {
  const inner = dag.file([{ cid: dag.raw(pattern(4096, 21)), sizeBytes: 4096 }])
  await readsEio(t, at(dag.file([{ cid: inner.cid, sizeBytes: 8192 }]).cid), /./)
})

t.test('blocks that are not UnixFS are EIO', async t => {
  await readsEio(t, at(dag.put(CODEC_DAG_PB, Buffer.from('not protobuf at all'))), /./)
  await readsEio(t, at(dag.put(CODEC_DAG_PB, new Uint8Array(0))), /./)
  await readsEio(t, at(dag.raw(pattern(2 * 1024 * 1024 + 1, 22))), /./)
})

t.test('a chain of a thousand and more nodes is EIO', async t => {
  let file = dag.file([{ cid: dag.raw(pattern(100, 23)), sizeBytes: 100 }])
  for (let depth = 0; depth < 1100; depth++) file = dag.file([file])
  await readsEio(t, at(file.cid), /deep/)
})

t.test('a HAMT that is nested deeper than any hash is EIO', async t => {
  const shard = (children: ReturnType<typeof link>[]) =>
    dag.node({ type: 'hamt-shard', data: new Uint8Array([1]), fanout: 8, hashType: 0x22 }, children)
  let root = shard([link(dag.raw(Buffer.from('x')), '0name')])
  for (let depth = 0; depth < 1100; depth++) root = shard([link(root, '0')])
  const [listed, found] = await ask([
    { op: 'list', path: at(root) },
    { op: 'stat', path: at(root, 'name') },
  ])
  t.equal(listed?.errno, 'EIO')
  t.match(found?.errno, /^(EIO|ENOENT)$/)
})

t.test('a HAMT with an impossible fan-out or bitmap is EIO', async t => {
  const child = link(dag.raw(Buffer.from('x')), '0name')
  for (const [fanout, bitmap] of [
    [2048, 1],
    [7, 1],
    [0, 1],
    [8, 64],
  ] as const) {
    const data = new Uint8Array(bitmap).fill(1)
    const root = dag.node({ type: 'hamt-shard', data, fanout, hashType: 0x22 }, [child])
    t.equal((await askOne({ op: 'list', path: at(root) })).errno, 'EIO', `fan-out ${fanout}, ${bitmap} bytes`)
  }
})

t.test('a file of terabytes made of one block is read where it is asked for', async t => {
  const content = pattern(4096, 24)
  let file: { cid: ReturnType<Dag['raw']>; sizeBytes: number } = { cid: dag.raw(content), sizeBytes: 4096 }
  for (let level = 0; level < 5; level++) file = dag.file(Array(64).fill(file))
  const before = gateway.requests.length
  const [stat, end] = await ask([
    { op: 'stat', path: at(file.cid) },
    { op: 'read', path: at(file.cid), offset: file.sizeBytes - 100, length: 1000 },
  ])
  t.equal(stat?.stat?.sizeBytes, 4096 * 64 ** 5)
  t.ok(end?.bytes?.equals(content.subarray(-100)))
  t.ok(gateway.requests.length - before <= 6, 'no block was fetched twice')
})

t.test('names that no directory can hold are hidden, and of two the first counts', async t => {
  const text = (content: string) => dag.raw(Buffer.from(content))
  const names = ['', '.', '..', 'a/b', 'nul\0', 'x'.repeat(256)]
  const hidden = names.map(name => link(text('hidden'), name, 6))
  const dir = dag.directory([...hidden, link(text('first'), 'twice', 5), link(text('second'), 'twice', 6)])
  const [listed, twice] = await ask([
    { op: 'list', path: at(dir) },
    { op: 'read', path: at(dir, 'twice') },
  ])
  t.same(listed?.names?.map(String), ['twice'])
  t.equal(twice?.bytes?.toString(), 'first')
})

t.test('names in ipfs/ that are no CID do not exist, and nobody is asked', async t => {
  const before = gateway.requests.length
  const names = [
    'nonsense',
    'Qm',
    'bafy',
    `${witness}x`,
    `${witness}`.slice(0, -1),
    'b'.repeat(255),
    'z',
    'Q'.repeat(46),
  ]
  const found = await ask(names.map((name): Question => ({ op: 'stat', path: at(name) })))
  t.same(
    found.map(answer => answer.errno),
    names.map(() => 'ENOENT'),
  )
  t.equal(gateway.requests.length, before)
})
