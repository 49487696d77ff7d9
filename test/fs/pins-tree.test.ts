import { constants } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import type { CID } from '../../src/core/cid.js'
import { FIRST_PIN_INO, isPin, isStaged, PINS_INO } from '../../src/fs/ino.js'
import { link, pattern } from '../support/dag.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'
import { context, errno, O_WRONLY, TestNetwork, World } from './support.js'

const E = constants.errno
const S_IFMT = 0o170000
const S_IFLNK = 0o120000

function bytes(text: string): Buffer {
  return Buffer.from(text)
}

async function symlink(world: World, name: string, target: string | CID): Promise<number> {
  const entry = await world.fs.symlink(PINS_INO, bytes(name), bytes(`${target}`), context())
  return entry.attributes.ino
}

async function readlink(world: World, ino: number): Promise<string> {
  return Buffer.from(await world.fs.readlink(ino, context())).toString()
}

/** A directory with one file `a` and one directory `sub` with a file `b`. */
function folder({ dag }: World, seed = 1): { root: CID; a: CID; sub: CID; b: CID } {
  const [a, b] = [dag.raw(pattern(100, seed)), dag.raw(pattern(100, seed + 100))]
  const sub = dag.directory([link(b, 'b')])
  return { root: dag.directory([link(a, 'a'), link(sub, 'sub')]), a, sub, b }
}

async function pinned(world: World, ino: number): Promise<void> {
  await until('it is pinned', async () => (await world.xattr(ino, 'ipfs.state')) === 'pinned')
}

t.test('pins/ is a directory of the mount', async t => {
  const world = await World.open(t)
  t.equal(await world.ino('pins'), PINS_INO)
  t.ok(isPin(PINS_INO) && isPin(FIRST_PIN_INO) && !isStaged(FIRST_PIN_INO))
  const names = (await world.list(1)).map(entry => `${entry.name}`)
  t.same(names.length > 0 && (await world.names(PINS_INO)), [])
  t.ok((await world.names(1)).includes('pins'))
})

t.test('a symbolic link to a CID pins it, and reads as a path to it', async t => {
  const world = await World.open(t)
  const { root, b } = folder(world)
  for (const target of [`/mnt/ipfs/${root}`, `../ipfs/${root}/`, `${root}`, `ipfs://${root}`]) {
    const ino = await symlink(world, 'x', target)
    t.equal(await readlink(world, ino), `../ipfs/${root}`, target)
    const { attributes } = await world.entry('pins/x')
    t.equal(attributes.ino, ino)
    t.equal(attributes.mode & S_IFMT, S_IFLNK)
    t.equal(attributes.sizeBytes, `../ipfs/${root}`.length)
    t.equal(attributes.uid, 1000)
    await pinned(world, ino)
    t.ok(world.store.has(b))
    t.ok(world.store.pins.has(root))
    await world.fs.unlink(PINS_INO, bytes('x'), context())
    t.notOk(world.store.pins.has(root))
    await t.rejects(world.entry('pins/x'), { code: 'NOT_FOUND' })
  }
})

t.test('a target without a CID is refused, and nothing is made', async t => {
  const world = await World.open(t)
  const make = (target: string) =>
    errno(() => world.fs.symlink(PINS_INO, bytes('x'), bytes(target), context()))
  for (const target of ['nonsense', '../staging/x', '/etc/passwd', '../ipfs/', '']) {
    t.equal(await make(target), E.EINVAL, target)
  }
  t.same(await world.names(PINS_INO), [])
  t.same([...world.store.pins.list()], [])
})

t.test('a path below a CID pins what it names, if the way is held here', async t => {
  const world = await World.open(t)
  const { root, sub } = folder(world)
  const make = (path: string) =>
    errno(() => world.fs.symlink(PINS_INO, bytes('x'), bytes(`../ipfs/${root}/${path}`), context()))
  t.equal(await make('sub'), E.EIO)
  t.same(world.network.requests, [], 'nothing is waited for')
  t.same(await world.names(PINS_INO), [])
  await world.list(await world.ino(`ipfs/${root}`))
  t.equal(await make('missing'), E.ENOENT)
  t.equal(await make('a/b'), E.ENOTDIR)
  t.equal(await make('sub'), 0)
  t.equal(await readlink(world, await world.ino('pins/x')), `../ipfs/${sub}`)
  t.ok(world.store.pins.has(sub))
  t.notOk(world.store.pins.has(root))
})

t.test('only symbolic links can be made', async t => {
  const { fs } = await World.open(t)
  const [x, ctx] = [bytes('x'), context()]
  t.equal(await errno(() => fs.mkdir(PINS_INO, x, 0o755, ctx)), E.EPERM)
  t.equal(await errno(() => fs.mknod(PINS_INO, x, 0o100644, 0, ctx)), E.EPERM)
  t.equal(await errno(() => fs.create(PINS_INO, x, 0o644, O_WRONLY, ctx)), E.EPERM)
})

t.test('a pin has one name, no mode, and no entries', async t => {
  const world = await World.open(t)
  const { fs } = world
  const ino = await symlink(world, 'x', folder(world).root)
  const ctx = context()
  t.equal(await errno(() => symlink(world, 'x', folder(world, 2).root)), E.EEXIST)
  t.equal(await errno(() => symlink(world, 'x'.repeat(256), folder(world).root)), E.ENAMETOOLONG)
  t.equal(await errno(() => fs.link(ino, PINS_INO, bytes('y'), ctx)), E.EPERM)
  t.equal(await errno(() => fs.rmdir(PINS_INO, bytes('x'), ctx)), E.ENOTDIR)
  t.equal(await errno(() => fs.rmdir(PINS_INO, bytes('y'), ctx)), E.ENOENT)
  t.equal(await errno(() => fs.unlink(PINS_INO, bytes('y'), ctx)), E.ENOENT)
  t.equal(await errno(() => fs.lookup(ino, bytes('a'), ctx)), E.ENOTDIR)
  t.equal(await errno(() => fs.setattr(ino, { mode: 0o600 }, ctx)), E.EOPNOTSUPP)
  t.equal(await errno(() => fs.setattr(PINS_INO, { mode: 0o600 }, ctx)), E.EROFS)
  t.equal(await errno(() => fs.readlink(PINS_INO, ctx)), E.EINVAL)
  t.equal(await errno(() => fs.getattr(ino + 1, undefined, ctx)), E.ESTALE)
})

t.test('owner and time of a link are kept', async t => {
  const world = await World.open(t)
  const ino = await symlink(world, 'x', folder(world).root)
  const mtime = { seconds: 1_234_567_890, nanoseconds: 5 }
  await world.fs.setattr(ino, { uid: 7, gid: 8, mtime, atime: 'now' }, context())
  const { attributes } = await world.entry('pins/x')
  t.match(attributes, { uid: 7, gid: 8, mtime })
  await world.fs.setattr(ino, { mtime: 'now' }, context())
  t.ok((await world.entry('pins/x')).attributes.mtime.seconds > mtime.seconds)
})

t.test('renames move, replace, exchange, and stay within pins/', async t => {
  const world = await World.open(t)
  const [one, two] = [folder(world, 1), folder(world, 2)]
  const inos = [await symlink(world, 'one', one.root), await symlink(world, 'two', two.root)]
  for (const ino of inos) await pinned(world, ino)
  const rename = (from: string, to: string, flags = 0, into = PINS_INO) =>
    errno(() => world.fs.rename(PINS_INO, bytes(from), into, bytes(to), flags, context()))
  t.equal(await rename('one', 'two', 1), E.EEXIST)
  t.equal(await rename('one', 'two', 2), 0)
  t.equal(await world.ino('pins/two'), inos[0])
  t.equal(await rename('two', 'moved', 1), 0)
  t.equal(await rename('moved', 'one'), 0)
  t.equal(await world.ino('pins/one'), inos[0])
  t.notOk(world.store.pins.has(two.root), 'what was replaced is unpinned')
  t.ok(world.store.pins.has(one.root))
  t.equal(await rename('missing', 'x'), E.ENOENT)
  t.equal(await rename('one', 'x', 4), E.EINVAL)
  t.equal(await rename('one', 'x', 0, await world.ino('staging')), E.EXDEV)
  t.same(await world.names(PINS_INO), ['one'])
})

t.test('a listing has every pin once, also when it goes on after a change', async t => {
  const world = await World.open(t, { idle: true })
  const { root } = folder(world)
  for (let i = 0; i < 10; i++) await symlink(world, `${i}`, root)
  const listed = await world.list(PINS_INO, true)
  t.same(
    listed.slice(2).map(entry => `${entry.name}`),
    Array.from({ length: 10 }, (_, i) => `${i}`),
  )
  t.ok(listed.slice(2).every(entry => entry.attributes?.attributes.ino === entry.ino))
  const behind = listed[6]!.nextOffset
  await world.fs.unlink(PINS_INO, bytes('4'), context())
  await world.fs.rename(PINS_INO, bytes('5'), PINS_INO, bytes('five'), 0, context())
  await symlink(world, 'new', root)
  const rest: string[] = []
  const sink = { add: (entry: { name: Uint8Array }) => rest.push(`${entry.name}`) > 0, addPlus: () => false }
  await world.fs.readdir(PINS_INO, 0, behind, false, sink, context())
  t.same(rest, ['five', '6', '7', '8', '9', 'new'])
})

t.test('attributes tell how far it has come', async t => {
  const world = await World.open(t)
  const { root, a, b } = folder(world)
  const block = world.network.blocks.get([...world.network.blocks.keys()][1]!)!
  world.network.remove(b)
  const ino = await symlink(world, 'x', root)
  await until('it has failed', async () => (await world.xattr(ino, 'ipfs.state')) === 'failed')
  t.match(await world.xattr(ino, 'ipfs.error'), new RegExp(`nobody has ${b}.*tried \\d+ times`))
  await until('percent', async () => (await world.xattr(ino, 'ipfs.cached')) === '75')
  t.equal(await world.xattr(ino, 'ipfs.cid'), `${root}`)
  t.same(await world.fs.listxattr(ino, context()), [], 'copying tools ask for none')
  t.ok(world.store.has(a))
  world.network.add(b, block)
  await pinned(world, ino)
  t.equal(await world.xattr(ino, 'ipfs.cached'), '100')
  t.equal(await errno(() => world.xattr(ino, 'ipfs.error')), E.ENODATA)
  t.equal(await errno(() => world.xattr(ino, 'ipfs.other')), E.ENODATA)
  t.equal(await errno(() => world.xattr(PINS_INO, 'ipfs.state')), E.ENODATA)
  t.equal(await errno(() => world.fs.setxattr(ino, 'user.x', bytes('1'), 0, context())), E.EOPNOTSUPP)
  t.equal(await errno(() => world.fs.removexattr(ino, 'user.x', context())), E.EOPNOTSUPP)
})

t.test('while it is fetched, percent and state say so', async t => {
  const world = await World.open(t)
  const { root } = folder(world)
  world.network.hang = true
  const ino = await symlink(world, 'x', root)
  await until('it is fetched', async () => (await world.xattr(ino, 'ipfs.state')) === 'fetching')
  t.equal(await world.xattr(ino, 'ipfs.cached'), '0')
  await world.fs.unlink(PINS_INO, bytes('x'), context())
})

t.test('another daemon answers for the same ids', async t => {
  const network = new TestNetwork()
  const dir = join(await tempDir(t), 'state')
  const before = await World.open(t, { dir, network })
  const { root } = folder(before)
  const ino = await symlink(before, 'x', root)
  await pinned(before, ino)
  await before.close(false)
  const after = await World.open(t, { dir, network, resume: true })
  t.equal(await readlink(after, ino), `../ipfs/${root}`)
  t.equal(await after.ino('pins/x'), ino)
  t.equal(await after.xattr(ino, 'ipfs.state'), 'pinned')
})

t.test('a name is durable after fsync of the directory', async t => {
  const world = await World.open(t, { idle: true })
  let flushes = 0
  const flush = world.store.flush.bind(world.store)
  world.store.flush = () => {
    flushes++
    return flush()
  }
  await symlink(world, 'x', folder(world).root)
  await world.fs.fsyncdir(PINS_INO, 0, false, context())
  t.equal(flushes, 1)
})
