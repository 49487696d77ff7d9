/** Ids of immutable nodes: given out, found again, forgotten. */
import { join } from 'node:path'
import t from 'tap'
import { CODEC_DAG_PB, CODEC_RAW, cidOf } from '../../src/core/cid.js'
import {
  contentIno,
  directoryIno,
  isExists,
  isImmutable,
  isName,
  isPin,
  isStaged,
  nextIno,
} from '../../src/fs/ino.js'
import { NodeTable } from '../../src/fs/node-table.js'
import { openStore, QUIET } from '../store/support.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'
import { codeThrown } from '../unixfs/support.js'

const cids = Array.from({ length: 2000 }, (_, i) => cidOf(CODEC_RAW, Buffer.from(`${i}`)))
const [A, B, C] = cids as [(typeof cids)[0], (typeof cids)[0], (typeof cids)[0]]

t.test('ids are exact numbers below 2^53, and tell their tree', async t => {
  const inos = cids.flatMap((cid, i) => [contentIno(cid), directoryIno(2, Buffer.from(`${i}`))])
  t.ok(inos.every(ino => Number.isSafeInteger(ino) && ino < 2 ** 53 && isImmutable(ino) && !isStaged(ino)))
  t.equal(new Set(inos).size, inos.length)
  t.equal(nextIno(2 ** 53 - 1), 2 ** 52, 'the last one is followed by the first')
  t.ok(isStaged(16) && isStaged(2 ** 50 - 1) && !isStaged(15) && !isStaged(2 ** 50))
  for (const ino of [3, 4, 16, 2 ** 50, 2 ** 50 + 2 ** 48, 2 ** 51, 2 ** 52]) {
    const trees = [isStaged, isName, isExists, isPin, isImmutable].filter(owns => owns(ino))
    t.equal(trees.length, 1, `${ino} belongs to one tree`)
  }
})

t.test('a file has one id by every path, a directory one for each place', async t => {
  t.equal(contentIno(A), contentIno(A.toV1()))
  t.not(contentIno(A), contentIno(cidOf(CODEC_DAG_PB, Buffer.from('0'))), 'another codec is another file')
  t.not(directoryIno(2, Buffer.from('x')), directoryIno(3, Buffer.from('x')))
  t.equal(directoryIno(2, Buffer.from('x')), directoryIno(2, Buffer.from('x')))
})

t.test('an id that belongs to other content is passed over, and both stay apart', async t => {
  const table = new NodeTable(await openStore(t), false)
  const taken = contentIno(A)
  const a = table.intern(A, taken, 0, 0)
  const b = table.intern(B, taken, 0, 0)
  const c = table.intern(C, taken, 0, 0)
  t.same([a.ino, b.ino, c.ino], [taken, nextIno(taken), nextIno(nextIno(taken))])
  t.equal(table.intern(B, taken, 0, 0), b, 'found again, not added again')
  t.equal(table.get(b.ino).cid, B)
})

t.test('collisions are found again after a restart', async t => {
  const dir = join(await tempDir(t), 'state')
  const first = await openStore(t, QUIET, dir)
  const before = new NodeTable(first, false)
  const taken = 2 ** 53 - 1
  const inos = [A, B, C].map(cid => before.intern(cid, taken, 7, 123).ino)
  t.same(inos, [2 ** 53 - 1, 2 ** 52, 2 ** 52 + 1])
  await first.close()
  const after = new NodeTable(await openStore(t, QUIET, dir), true)
  t.same(
    [A, B, C].map(cid => after.intern(cid, taken, 0, 0).ino),
    inos,
  )
  t.match(after.get(inos[1]!), { hintBytes: 123, parent: 7 })
  t.ok(after.get(inos[2]!).cid.equals(C))
})

t.test('an id that was never given out is stale', async t => {
  const table = new NodeTable(await openStore(t), false)
  t.equal(
    codeThrown(() => table.get(contentIno(A))),
    'STALE',
  )
})

t.test('the ids of an earlier mount are void unless it goes on', async t => {
  const dir = join(await tempDir(t), 'state')
  const first = await openStore(t, QUIET, dir)
  const { ino } = new NodeTable(first, false).intern(A, contentIno(A), 0, 0)
  await first.close()
  const table = new NodeTable(await openStore(t, QUIET, dir), false)
  t.equal(
    codeThrown(() => table.get(ino)),
    'STALE',
  )
})

t.test('what the kernel forgot is forgotten, at the last of its lookups', async t => {
  const store = await openStore(t)
  const table = new NodeTable(store, false)
  const records = store.env.openDB<unknown, number>({ name: 'fs:nodes' })
  const node = table.intern(A, contentIno(A), 0, 0)
  node.nlookup = 3
  table.forget(node.ino, 2)
  t.equal(table.get(node.ino), node)
  table.forget(node.ino, 1)
  t.equal(table.size, 0)
  await until('the record is gone', () => records.get(node.ino) === undefined)
})

t.test('what is looked up again right after it was forgotten can be forgotten again', async t => {
  const store = await openStore(t)
  const table = new NodeTable(store, false)
  const records = store.env.openDB<unknown, number>({ name: 'fs:nodes' })
  table.intern(A, contentIno(A), 0, 0).nlookup++
  table.forget(contentIno(A), 1)
  const again = table.intern(A, contentIno(A), 0, 0)
  again.nlookup++
  await new Promise(resolve => setImmediate(resolve))
  t.ok(records.get(contentIno(A)), 'it is in use')
  table.forget(contentIno(A), 1)
  await until('the record is gone', () => records.get(contentIno(A)) === undefined)
})

t.test('a batch that fails gives out nothing', async t => {
  const table = new NodeTable(await openStore(t), false)
  t.throws(() =>
    table.batch(() => {
      table.intern(A, contentIno(A), 0, 0)
      throw new Error('no')
    }),
  )
  t.equal(
    codeThrown(() => table.get(contentIno(A))),
    'STALE',
  )
})
