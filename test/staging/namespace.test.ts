/** The writable tree by itself: names, cookies, transactions, what a restart finds. */
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { codeOf } from '../../src/core/errors.js'
import { Namespace } from '../../src/staging/namespace.js'
import type { NodeType, StagingNode } from '../../src/staging/node.js'
import type { Store } from '../../src/store/store.js'
import { openStore, QUIET } from '../store/support.js'
import { tempDir } from '../support/temp.js'
import { codeThrown } from '../unixfs/support.js'
import { bytes, OWNER, ROOT } from './support.js'

async function open(t: Test): Promise<{ names: Namespace; store: Store }> {
  const store = await openStore(t)
  return { names: new Namespace(store, OWNER), store }
}

function make(names: Namespace, name: string, type: NodeType = 'file', parent = ROOT): StagingNode {
  return names.create(parent, bytes(name), type, 0o640, OWNER)
}

function list(names: Namespace, parent = ROOT, cookie = 0): string[] {
  return [...names.entries(parent, cookie)].map(item => Buffer.from(item.name).toString())
}

t.test('a new node has the attributes it was made with', async t => {
  const { names } = await open(t)
  const before = Math.floor(Date.now() / 1000)
  const node = make(names, 'file')
  t.match(node, { type: 'file', parent: ROOT, mode: 0o640, uid: 1000, gid: 1000, sizeBytes: 0, dirty: true })
  t.ok(node.mtime.seconds >= before && node.mtime.seconds <= before + 60)
  t.equal(names.lookup(ROOT, bytes('file')), node)
  const link = names.create(ROOT, bytes('link'), 'symlink', 0o777, OWNER, bytes('över'))
  t.equal(link.sizeBytes, 5)
})

t.test('names are refused as a local file system refuses them', async t => {
  const { names } = await open(t)
  const file = make(names, 'file')
  t.equal(
    codeThrown(() => make(names, 'file')),
    'EXISTS',
  )
  t.equal(
    codeThrown(() => make(names, 'x', 'file', file.ino)),
    'NOT_DIRECTORY',
  )
  t.equal(
    codeThrown(() => make(names, 'x', 'file', 4711)),
    'STALE',
  )
  t.equal(
    codeThrown(() => make(names, 'n'.repeat(256))),
    'NAME_TOO_LONG',
  )
  t.equal(
    codeThrown(() => names.existing(ROOT, bytes('none'))),
    'NOT_FOUND',
  )
  make(names, 'n'.repeat(255))
  const gone = make(names, 'gone', 'directory')
  names.unlink(gone)
  t.equal(
    codeThrown(() => make(names, 'x', 'file', gone.ino)),
    'NOT_FOUND',
    'nothing is made in a removed directory',
  )
})

t.test('names are bytes', async t => {
  const { names } = await open(t)
  const name = Buffer.from([0xff, 0xfe, 0x80])
  const node = names.create(ROOT, name, 'file', 0o644, OWNER)
  t.equal(names.lookup(ROOT, name)?.ino, node.ino)
  t.same([...names.entries(ROOT)], [{ ino: node.ino, name: Uint8Array.from(name) }])
})

t.test('a listing that goes on behind a cookie neither repeats nor misses what stayed', async t => {
  const { names } = await open(t)
  const nodes = ['a', 'b', 'c', 'd', 'e'].map(name => make(names, name))
  const cookie = nodes[1]!.ino
  names.rename(nodes[0]!, ROOT, bytes('zz'), undefined)
  names.rename(nodes[3]!, ROOT, bytes('a'), undefined)
  names.unlink(nodes[2]!)
  make(names, 'f')
  t.same(list(names, ROOT, cookie), ['a', 'e', 'f'])
  t.same(list(names), ['zz', 'b', 'a', 'e', 'f'])
})

t.test('entries of one directory are not those of the next', async t => {
  const { names } = await open(t)
  const one = make(names, 'one', 'directory')
  const two = make(names, 'two', 'directory')
  make(names, 'x', 'file', one.ino)
  make(names, 'y', 'file', two.ino)
  t.same(list(names, one.ino), ['x'])
  t.same(list(names, two.ino), ['y'])
  t.notOk(names.isEmpty(one.ino))
  names.unlink(names.existing(one.ino, bytes('x')))
  t.ok(names.isEmpty(one.ino))
})

t.test('a directory counts its subdirectories, wherever they come from and go', async t => {
  const { names } = await open(t)
  const count = (ino: number): number => names.get(ino).subdirectories
  const [a, b] = [make(names, 'a', 'directory'), make(names, 'b', 'directory')]
  const inner = make(names, 'inner', 'directory', a.ino)
  t.same([count(ROOT), count(a.ino)], [2, 1])
  names.rename(inner, b.ino, bytes('moved'), undefined)
  t.same([count(a.ino), count(b.ino)], [0, 1])
  const file = make(names, 'file', 'file', a.ino)
  names.exchange(inner, file)
  t.same([count(a.ino), count(b.ino)], [1, 0])
  names.unlink(inner)
  t.equal(count(a.ino), 0)
})

t.test('an exchange swaps names, not content', async t => {
  const { names } = await open(t)
  const dir = make(names, 'dir', 'directory')
  const a = make(names, 'a')
  const b = make(names, 'b', 'file', dir.ino)
  names.exchange(a, b)
  t.equal(names.existing(ROOT, bytes('a')).ino, b.ino)
  t.equal(names.existing(dir.ino, bytes('b')).ino, a.ino)
  t.equal(names.pathOf(a), 'dir/b')
})

t.test('an unlinked node is an orphan until it is removed', async t => {
  const { names } = await open(t)
  const node = make(names, 'file')
  names.unlink(node)
  t.equal(names.lookup(ROOT, bytes('file')), undefined)
  t.same(names.orphans(), [node.ino])
  t.equal(names.get(node.ino).parent, 0)
  names.remove(node.ino)
  t.same(names.orphans(), [])
  t.equal(
    codeThrown(() => names.get(node.ino)),
    'STALE',
  )
})

t.test('a transaction that fails leaves nothing, neither on record nor in memory', async t => {
  const { names } = await open(t)
  const dir = make(names, 'dir', 'directory')
  const file = make(names, 'file')
  const { mtime } = names.get(ROOT)
  t.throws(
    () =>
      names.transaction(() => {
        make(names, 'new')
        names.rename(file, dir.ino, bytes('moved'), undefined)
        throw new Error('out of space')
      }),
    /out of space/,
  )
  t.same(list(names), ['dir', 'file'])
  t.ok(names.isEmpty(dir.ino))
  t.match(names.get(file.ino), { parent: ROOT, name: bytes('file') })
  t.same(names.get(ROOT).mtime, mtime)
  t.equal(names.lookup(ROOT, bytes('new')), undefined)
})

t.test('a held node keeps what ran ahead of its record, and loses what was rolled back', async t => {
  const { names } = await open(t)
  const { ino } = make(names, 'file')
  const node = names.hold(ino)
  node.sizeBytes = 5
  t.throws(() =>
    names.transaction(() => {
      names.rename(node, ROOT, bytes('other'), undefined)
      node.cid = new Uint8Array([1])
      throw new Error('no')
    }),
  )
  t.equal(names.get(ino), node, 'it is still the same object')
  t.match(node, { name: bytes('file'), sizeBytes: 5, cid: undefined })
  names.letGo(ino)
})

t.test('get returns the held object until the last holder lets go', async t => {
  const { names } = await open(t)
  const { ino } = make(names, 'file')
  const node = names.hold(ino)
  names.hold(ino)
  node.sizeBytes = 99
  names.letGo(ino)
  t.equal(names.get(ino).sizeBytes, 99)
})

t.test('the top-level entry above a node is found, and its path', async t => {
  const { names } = await open(t)
  const a = make(names, 'a', 'directory')
  const b = make(names, 'b', 'directory', a.ino)
  const c = make(names, 'c', 'file', b.ino)
  t.equal(names.topLevel(c)?.ino, a.ino)
  t.equal(names.topLevel(a)?.ino, a.ino)
  t.equal(names.topLevel(names.get(ROOT)), undefined)
  t.equal(names.pathOf(c), 'a/b/c')
  t.ok(names.isWithin(c.ino, a.ino))
  t.notOk(names.isWithin(a.ino, c.ino))
  names.unlink(c)
  t.equal(names.topLevel(c), undefined)
})

t.test('everything is there again after a restart, and ids are not given out twice', async t => {
  const dir = join(await tempDir(t), 'state')
  const first = await openStore(t, QUIET, dir)
  const names = new Namespace(first, OWNER)
  const folder = make(names, 'folder', 'directory')
  const file = make(names, 'file', 'file', folder.ino)
  names.create(ROOT, bytes('link'), 'symlink', 0o777, OWNER, bytes('target'))
  const removed = make(names, 'removed')
  names.unlink(removed)
  names.remove(removed.ino)
  await first.close()
  const again = new Namespace(await openStore(t, QUIET, dir), { uid: 1, gid: 1 })
  t.same(list(again), ['folder', 'link'])
  t.same(again.get(file.ino), file)
  t.same(again.existing(ROOT, bytes('link')).target, bytes('target'))
  t.equal(again.get(ROOT).uid, 1000, 'the root keeps its owner')
  t.ok(make(again, 'next').ino > removed.ino)
  t.same([...again.all()].map(node => node.ino).length, 5)
})

t.test('errors name what they are about', async t => {
  const { names } = await open(t)
  try {
    names.existing(ROOT, bytes('missing'))
    t.fail('it is not there')
  } catch (err) {
    t.equal(codeOf(err), 'NOT_FOUND')
    t.equal((err as { path?: string }).path, 'missing')
  }
})
