/** `staging/` as the kernel asks for it: entries, handles, lookups counted, attributes. */
import { constants } from 'node:os'
import t from 'tap'
import { FOREVER_MS } from '../../src/fs/tree.js'
import { descriptorsBelow } from '../store/support.js'
import { until } from '../support/until.js'
import { bytesOf, context, errno, O_RDWR, O_WRONLY, Sink, World } from './support.js'

const E = constants.errno
const STAGING = 16
const O_TRUNC = 0o1000
const O_APPEND = 0o2000

t.test('a created file is written, read and published through its handle', async t => {
  const world = await World.open(t)
  const { entry, opened } = await world.fs.create(STAGING, Buffer.from('f'), 0o640, O_RDWR, context())
  const { ino } = entry.attributes
  t.match(entry.attributes, { mode: 0o100640, uid: 1000, gid: 1000, nlink: 1, sizeBytes: 0 })
  t.equal(await world.fs.write(ino, opened.fh, 0, Buffer.from('abc'), O_RDWR, context()), 3)
  t.equal(await world.fs.write(ino, opened.fh, 0, Buffer.from('def'), O_RDWR | O_APPEND, context()), 3)
  t.equal(bytesOf(await world.fs.read(ino, opened.fh, 1, 100, context())).toString(), 'bcdef')
  t.equal(await world.xattr(ino, 'user.ipfs.state'), 'writing')
  t.equal(await errno(() => world.fs.getxattr(ino, 'user.ipfs.cid', context())), E.ENODATA)
  t.same(await world.fs.listxattr(ino, context()), ['user.ipfs.state'])
  await world.fs.release(ino, opened.fh, O_RDWR)
  await until('it is pinned', async () => (await world.xattr(ino, 'ipfs.state')) === 'pinned')
  t.same(await world.fs.listxattr(ino, context()), ['user.ipfs.cid', 'user.ipfs.state'])
  const cid = await world.xattr(ino, 'user.ipfs.cid')
  t.equal(cid, await world.xattr(ino, 'ipfs.cid'))
  t.equal(await world.xattr(ino, 'user.ipfs.cached'), '100')
  t.equal((await world.read(await world.ino(`ipfs/${cid}`))).toString(), 'abcdef')
  t.equal((await world.read(ino)).toString(), 'abcdef', 'and at its place')
})

t.test('a write makes the CID absent until the next publication', async t => {
  const world = await World.open(t)
  const ino = await world.stage('f', 'old')
  const first = await until('it has a CID', () => world.xattr(ino, 'ipfs.cid').catch(() => undefined))
  const { fh } = await world.fs.open(ino, O_WRONLY, context())
  t.equal(await world.xattr(ino, 'ipfs.cid'), first, 'an open alone changes nothing')
  await world.fs.write(ino, fh, 0, Buffer.from('new'), O_WRONLY, context())
  t.equal(await errno(() => world.fs.getxattr(ino, 'ipfs.cid', context())), E.ENODATA)
  t.equal(await errno(() => world.fs.getxattr(ino, 'ipfs.cached', context())), E.ENODATA)
  await world.fs.release(ino, fh, O_WRONLY)
  const second = await until('it has a CID', () => world.xattr(ino, 'ipfs.cid').catch(() => undefined))
  t.not(second, first)
})

t.test('the root of staging has a CID when everything in it has', async t => {
  const world = await World.open(t)
  const empty = await world.xattr(STAGING, 'user.ipfs.cid')
  const ino = await world.stage('f', 'x')
  const full = await until('it has one', () => world.xattr(STAGING, 'ipfs.cid').catch(() => undefined))
  t.not(full, empty)
  t.equal((await world.read(await world.ino(`ipfs/${full}/f`))).toString(), 'x')
  const { fh } = await world.fs.open(ino, O_WRONLY | O_TRUNC, context())
  t.equal(await errno(() => world.fs.getxattr(STAGING, 'ipfs.cid', context())), E.ENODATA)
  await world.fs.release(ino, fh, O_WRONLY)
})

t.test('what a failed publication says is in an attribute', async t => {
  const world = await World.open(t, { idle: true })
  const ino = await world.stage('f', 'x')
  t.equal(await errno(() => world.fs.getxattr(ino, 'ipfs.error', context())), E.ENODATA)
  world.staging.queue.failed(ino, 'disk on fire')
  t.equal(await world.xattr(ino, 'user.ipfs.error'), 'disk on fire (tried 1 times)')
  t.equal(await world.xattr(ino, 'user.ipfs.state'), 'failed')
  t.same(await world.fs.listxattr(ino, context()), ['user.ipfs.state', 'user.ipfs.error'])
})

t.test('absent names are absent until something is made, and then found', async t => {
  const world = await World.open(t, { idle: true })
  const negative = { attributes: undefined, entryTtlMs: FOREVER_MS }
  t.same(await world.fs.lookup(STAGING, Buffer.from('f'), context()), negative)
  await world.stage('f', 'x')
  t.equal((await world.entry('staging/f')).entryTtlMs, FOREVER_MS, 'the kernel makes all changes itself')
})

t.test('names too long are refused in every call that takes one', async t => {
  const { fs } = await World.open(t, { idle: true })
  const long = Buffer.alloc(256, 'n')
  const calls = {
    lookup: () => fs.lookup(STAGING, long, context()),
    mkdir: () => fs.mkdir(STAGING, long, 0o755, context()),
    symlink: () => fs.symlink(STAGING, long, Buffer.from('x'), context()),
    create: () => fs.create(STAGING, long, 0o644, O_RDWR, context()),
    mknod: () => fs.mknod(STAGING, long, 0o100644, 0, context()),
    unlink: () => fs.unlink(STAGING, long, context()),
    rename: () => fs.rename(STAGING, Buffer.from('x'), STAGING, long, 0, context()),
  }
  for (const [name, call] of Object.entries(calls)) t.equal(await errno(call), E.ENAMETOOLONG, name)
})

t.test('a listing in small pieces has every name once, with ids and types of stat', async t => {
  const world = await World.open(t, { idle: true })
  for (let i = 0; i < 10; i++) await world.stage(`f${i}`, 'x')
  await world.fs.mkdir(STAGING, Buffer.from('dir'), 0o755, context())
  await world.fs.symlink(STAGING, Buffer.from('link'), Buffer.from('dir'), context())
  for (const plus of [false, true]) {
    for (const perReply of [1, 3, 100]) {
      const listed = await world.list(STAGING, plus, perReply)
      t.equal(new Set(listed.map(({ name }) => Buffer.from(name).toString())).size, 14)
      t.same(
        listed.slice(0, 2).map(({ ino }) => ino),
        [STAGING, 1],
      )
      for (const { name, ino, type } of listed.slice(2)) {
        const { attributes } = await world.entry(`staging/${Buffer.from(name)}`)
        t.same([ino, type], [attributes.ino, (attributes.mode & 0o170000) >> 12])
      }
    }
  }
})

t.test('entries removed and made between two pieces of a listing cost no others', async t => {
  const world = await World.open(t, { idle: true })
  for (const name of ['a', 'b', 'c', 'd']) await world.stage(name, 'x')
  const sink = new Sink(4)
  await world.fs.readdir(STAGING, 0, 0, false, sink, context())
  const cookie = sink.entries.at(-1)!.nextOffset
  await world.fs.unlink(STAGING, Buffer.from('b'), context())
  await world.fs.rename(STAGING, Buffer.from('c'), STAGING, Buffer.from('z'), 0, context())
  await world.stage('e', 'x')
  const rest = new Sink()
  await world.fs.readdir(STAGING, 0, cookie, false, rest, context())
  t.same(
    rest.entries.map(({ name }) => Buffer.from(name).toString()),
    ['z', 'd', 'e'],
  )
})

t.test('a file without a name ends with its last handle and lookup, in either order', async t => {
  for (const forgetFirst of [true, false]) {
    const world = await World.open(t, { idle: true })
    const { entry, opened } = await world.fs.create(STAGING, Buffer.from('f'), 0o644, O_RDWR, context())
    const { ino } = entry.attributes
    await world.fs.write(ino, opened.fh, 0, Buffer.from('bytes'), O_RDWR, context())
    await world.fs.unlink(STAGING, Buffer.from('f'), context())
    const { attributes } = await world.fs.getattr(ino, opened.fh, context())
    t.equal(attributes.nlink, 0)
    t.equal(bytesOf(await world.fs.read(ino, opened.fh, 0, 10, context())).toString(), 'bytes')
    const steps = [() => world.fs.forget(ino, 1), () => world.fs.release(ino, opened.fh, O_RDWR)]
    if (!forgetFirst) steps.reverse()
    await steps[0]!()
    t.ok(world.staging.names.find(ino), 'not before the last')
    await steps[1]!()
    t.equal(world.staging.names.find(ino), undefined, `forget ${forgetFirst ? 'first' : 'last'}`)
    t.same(world.store.unsealedObjects(), [])
    t.equal(descriptorsBelow(`${world.dir}/objects`), 0)
  }
})

t.test('forgetting a node that has a name removes nothing', async t => {
  const world = await World.open(t, { idle: true })
  const ino = await world.stage('f', 'x')
  world.fs.forget(ino, 1)
  t.equal(await world.ino('staging/f'), ino)
})

t.test('only files, directories and symlinks can be made', async t => {
  const { fs } = await World.open(t, { idle: true })
  for (const type of [0o010000, 0o020000, 0o060000, 0o140000]) {
    t.equal(await errno(() => fs.mknod(STAGING, Buffer.from('x'), type | 0o644, 0, context())), E.EPERM)
  }
  const { attributes } = await fs.mknod(STAGING, Buffer.from('f'), 0o100600, 0, context())
  t.equal(attributes.mode, 0o100600)
  t.equal(await errno(() => fs.link(attributes.ino, STAGING, Buffer.from('hard'), context())), E.EPERM)
})

t.test('a set-group-id directory gives its group on', async t => {
  const { fs } = await World.open(t, { idle: true })
  const { attributes: dir } = await fs.mkdir(STAGING, Buffer.from('d'), 0o755, context())
  await fs.setattr(dir.ino, { mode: 0o2775, gid: 4242 }, context())
  const { attributes: file } = await fs.mknod(dir.ino, Buffer.from('f'), 0o100644, 0, context())
  const { attributes: sub } = await fs.mkdir(dir.ino, Buffer.from('s'), 0o755, context())
  t.equal(file.gid, 4242)
  t.match(sub, { gid: 4242, mode: 0o042755 })
})

t.test('attributes are set one by one and together', async t => {
  const world = await World.open(t, { idle: true })
  const { fs } = world
  const ino = await world.stage('f', '0123456789')
  const set = async (changes: Parameters<typeof fs.setattr>[1]) =>
    (await fs.setattr(ino, changes, context())).attributes
  t.equal((await set({ mode: 0o106755 })).mode, 0o106755)
  t.equal((await set({ killSuidGid: true })).mode, 0o100755)
  t.match(await set({ uid: 7, gid: 8 }), { uid: 7, gid: 8, mode: 0o100755 })
  const past = { seconds: -1, nanoseconds: 5 }
  t.match(await set({ mtime: past, atime: past }), { mtime: past, atime: past })
  t.ok((await set({ mtime: 'now' })).mtime.seconds > 1_600_000_000)
  t.equal((await set({ sizeBytes: 3, mode: 0o600 })).sizeBytes, 3)
  t.equal((await world.read(ino)).toString(), '012')
  t.equal(await errno(() => fs.setattr(STAGING, { sizeBytes: 0 }, context())), E.EISDIR)
  t.equal((await fs.setattr(STAGING, { mode: 0o700 }, context())).attributes.mode, 0o040700)
})

t.test('rename flags are obeyed, and unknown ones refused', async t => {
  const world = await World.open(t, { idle: true })
  const [a, b] = [await world.stage('a', 'A'), await world.stage('b', 'B')]
  const rename = (flags: number) =>
    errno(() => world.fs.rename(STAGING, Buffer.from('a'), STAGING, Buffer.from('b'), flags, context()))
  t.equal(await rename(1), E.EEXIST)
  t.equal(await rename(4), E.EINVAL, 'RENAME_WHITEOUT')
  t.equal(await rename(3), E.EINVAL, 'NOREPLACE and EXCHANGE exclude one another')
  t.equal(await rename(2), 0)
  t.equal(await world.ino('staging/a'), b)
  t.equal(await rename(0), 0)
  t.equal(await world.ino('staging/b'), b)
  t.equal(await errno(() => world.entry('staging/a')), E.ENOENT)
  t.ok(world.staging.names.find(a), 'the replaced node lives until it is forgotten')
  world.fs.forget(a, 100)
  t.equal(world.staging.names.find(a), undefined)
})

t.test('extended attributes of others are refused as on a file system without them', async t => {
  const world = await World.open(t, { idle: true })
  const ino = await world.stage('f', 'x')
  t.equal(await errno(() => world.fs.setxattr(ino, 'user.x', Buffer.from('1'), 0, context())), E.EOPNOTSUPP)
  t.equal(await errno(() => world.fs.removexattr(ino, 'user.x', context())), E.EOPNOTSUPP)
  t.equal(await errno(() => world.fs.getxattr(ino, 'user.x', context())), E.ENODATA)
})

t.test('holes of published and unpublished files are found by lseek', async t => {
  const world = await World.open(t)
  const ino = await world.stage('f', 'x'.repeat(5000))
  await until('it is pinned', async () => (await world.xattr(ino, 'ipfs.state')) === 'pinned')
  t.equal(await world.fs.lseek(ino, 0, 10, 3, context()), 10)
  t.equal(await world.fs.lseek(ino, 0, 10, 4, context()), 5000)
  t.equal(await errno(() => world.fs.lseek(ino, 0, 5000, 3, context())), E.ENXIO)
})

t.test('fsync answers when the bytes are on the disk, of files and directories', async t => {
  const world = await World.open(t, { idle: true })
  const ino = await world.stage('f', 'x')
  await world.fs.fsync(ino, 0, false, context())
  await world.fs.fsyncdir(STAGING, 0, false, context())
  t.pass()
})
