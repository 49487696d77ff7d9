/** From paths to node ids: every lookup is given back once, whatever happens in between. */
import t from 'tap'
import type { Context, Entry, NegativeEntry } from '../../src/fs/file-system.js'
import { keyOf, Names } from '../../src/fuse-native/names.js'
import { MemoryFileSystem } from '../fuse/memory-file-system.js'

const ctx: Context = { uid: 0, gid: 0, pid: 0, signal: new AbortController().signal }
const ROOT = 1

/** Answers later, so that lookups overlap. */
class SlowFileSystem extends MemoryFileSystem {
  override lookup(parent: number, name: Uint8Array, ctx: Context): never {
    const found = super.lookup(parent, name, ctx)
    return new Promise<Entry | NegativeEntry>(resolve => setImmediate(resolve, found)) as never
  }
}

/** How often the file system believes itself to be looked up. */
function held(fs: MemoryFileSystem): number {
  return [...fs.nlookup.values()].reduce((sum, count) => sum + count, 0)
}

/** `/d/a`, `/d/b`, `/d/c` and `/f`, of which nothing is looked up yet. */
function tree<T extends MemoryFileSystem>(fs: T): T {
  const dir = fs.mkdir(ROOT, Buffer.from('d'), 0o755, ctx).attributes.ino
  for (const name of ['a', 'b', 'c']) fs.mknod(dir, Buffer.from(name), 0o100644, 0, ctx)
  fs.addFile('f', Buffer.from('f'))
  fs.nlookup.clear()
  return fs
}

for (const FileSystem of [MemoryFileSystem, SlowFileSystem]) {
  const make = () => new FileSystem({ ttlMs: 60_000 })
  const kind = FileSystem.name
  t.test(`${kind}: a path is looked up name by name, and once as long as the names are good`, async t => {
    const fs = tree(make())
    const names = new Names(fs)
    for (let i = 0; i < 3; i++) names.release(await names.resolve('/d/a', ctx))
    t.equal(held(fs), 2)
    t.equal(names.size, 2)
    const root = await names.resolve('/', ctx)
    t.equal(root.ino, ROOT)
    names.release(root)
  })

  t.test(`${kind}: of lookups that overlap, all but one are given back`, async t => {
    const fs = tree(make())
    const names = new Names(fs)
    const found = await Promise.all(Array.from({ length: 5 }, () => names.resolve('/d/a', ctx)))
    t.equal(new Set(found.map(name => name.ino)).size, 1)
    for (const name of found) names.release(name)
    t.equal(held(fs), 2)
  })

  t.test(`${kind}: the table is bounded, and what is held outlives it`, async t => {
    const fs = tree(make())
    const names = new Names(fs, 2)
    const kept = await names.resolve('/d/a', ctx)
    for (const path of ['/d/b', '/d/c', '/f']) names.release(await names.resolve(path, ctx))
    t.ok(names.size <= 2, `${names.size} names`)
    t.equal(held(fs), 3, 'those of the table, and the one that is held')
    names.release(kept)
    t.equal(held(fs), 2)
  })

  t.test(`${kind}: a path that leads nowhere holds nothing but what exists of it`, async t => {
    const fs = tree(make())
    const names = new Names(fs)
    const resolve = async (path: string) => names.resolve(path, ctx)
    await t.rejects(resolve('/d/missing/x'), { code: 'NOT_FOUND' })
    await t.rejects(resolve('/d/\ufffd'), { code: 'NOT_FOUND' })
    await t.rejects(resolve(`/${'x'.repeat(256)}`), { code: 'NAME_TOO_LONG' })
    t.equal(held(fs), 1, 'd')
  })
}

t.test('a name without a time to live is looked up each time', async t => {
  const fs = tree(new MemoryFileSystem({ ttlMs: 0 }))
  let lookups = 0
  const lookup = fs.lookup.bind(fs)
  fs.lookup = (...args) => {
    lookups++
    return lookup(...args)
  }
  const names = new Names(fs)
  for (let i = 0; i < 3; i++) names.release(await names.resolve('/f', ctx))
  t.equal(lookups, 3)
  t.equal(held(fs), 1)
})

t.test('a name that is forgotten while its node is held gives it back with the last hold', async t => {
  const fs = tree(new MemoryFileSystem({ ttlMs: 60_000 }))
  const names = new Names(fs)
  const name = await names.resolve('/f', ctx)
  names.forgetName(ROOT, Buffer.from('f'))
  t.equal(held(fs), 1)
  names.release(name)
  t.equal(held(fs), 0)
})

t.test('a hidden name leads to its node until that is closed, and then to nothing', async t => {
  const fs = tree(new MemoryFileSystem({ ttlMs: 60_000 }))
  const names = new Names(fs)
  const hidden = Buffer.from('.fuse_hidden0000000100000001')
  const open = await names.resolve('/f', ctx)
  fs.unlink(ROOT, Buffer.from('f'))
  names.forgetName(ROOT, Buffer.from('f'))
  names.hide(open, ROOT, hidden)
  const again = await names.resolve(`/${hidden}`, ctx)
  t.equal(again.ino, open.ino)
  names.release(again)
  names.release(open)
  t.equal(held(fs), 1)
  names.unhide(open.ino)
  t.equal(held(fs), 0)
  t.equal(names.unlinksHidden(ROOT, hidden), true, 'what libfuse does last')
  t.equal(names.unlinksHidden(ROOT, hidden), false)
  await t.rejects(async () => names.resolve(`/${hidden}`, ctx), { code: 'NOT_FOUND' })
})

t.test('keys tell names apart that are not UTF-8', async t => {
  t.not(keyOf(1, Buffer.from([0xff])), keyOf(1, Buffer.from([0xfe])))
})
