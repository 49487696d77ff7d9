/** What no tree but `staging/` lets anybody do, and what no two trees do together. */
import { constants } from 'node:os'
import t from 'tap'
import { link } from '../unixfs/support.js'
import { context, errno, O_RDWR, O_WRONLY, World } from './support.js'

const E = constants.errno
const NAME = Buffer.from('x')

interface Place {
  directory: number
  file: number
}

async function places(world: World): Promise<Record<string, Place>> {
  const leaf = world.dag.raw(Buffer.from('content'))
  const root = world.dag.directory([link(leaf, 'x', 7)])
  return {
    root: { directory: 1, file: await world.ino('.cidfs/status') },
    'ipfs/': { directory: 2, file: await world.ino(`ipfs/${leaf}`) },
    'ipfs/<cid>': { directory: await world.ino(`ipfs/${root}`), file: await world.ino(`ipfs/${root}/x`) },
    '.cidfs': { directory: await world.ino('.cidfs'), file: await world.ino('.cidfs/status') },
  }
}

t.test('every change outside of staging is EROFS', async t => {
  const world = await World.open(t)
  const { fs } = world
  for (const [place, { directory, file }] of Object.entries(await places(world))) {
    const calls = {
      mkdir: () => fs.mkdir(directory, NAME, 0o755, context()),
      mknod: () => fs.mknod(directory, NAME, 0o100644, 0, context()),
      create: () => fs.create(directory, NAME, 0o644, O_RDWR, context()),
      symlink: () => fs.symlink(directory, NAME, NAME, context()),
      unlink: () => fs.unlink(directory, NAME, context()),
      rmdir: () => fs.rmdir(directory, NAME, context()),
      rename: () => fs.rename(directory, NAME, directory, Buffer.from('y'), 0, context()),
      exchange: () => fs.rename(directory, NAME, directory, Buffer.from('y'), 2, context()),
      'open for writing': () => fs.open(file, O_WRONLY, context()),
      'open for both': () => fs.open(file, O_RDWR, context()),
      write: () => fs.write(file, 0, 0, NAME, O_WRONLY, context()),
      truncate: () => fs.setattr(file, { sizeBytes: 0 }, context()),
      chmod: () => fs.setattr(file, { mode: 0o777 }, context()),
      'chmod of the directory': () => fs.setattr(directory, { mode: 0o777 }, context()),
      utimens: () => fs.setattr(file, { mtime: 'now' }, context()),
      fallocate: () => fs.fallocate(file, 0, 0, 10, 0, context()),
      setxattr: () => fs.setxattr(file, 'user.x', NAME, 0, context()),
      removexattr: () => fs.removexattr(file, 'user.ipfs.cid', context()),
    }
    for (const [name, call] of Object.entries(calls)) t.equal(await errno(call), E.EROFS, `${place}: ${name}`)
  }
  t.equal((await world.names(1)).length, 4, 'nothing was made')
})

t.test('what would join two trees is EXDEV', async t => {
  const world = await World.open(t)
  const { fs } = world
  const staged = await world.stage('staged', 'x')
  const { 'ipfs/<cid>': immutable } = await places(world)
  const { directory, file } = immutable!
  const across: [string, () => unknown][] = [
    ['rename out', () => fs.rename(16, Buffer.from('staged'), directory, NAME, 0, context())],
    ['rename in', () => fs.rename(directory, NAME, 16, NAME, 0, context())],
    ['rename to the root', () => fs.rename(16, Buffer.from('staged'), 1, NAME, 0, context())],
    ['link', () => fs.link(file, 16, NAME, context())],
    ['copy_file_range', () => fs.copyFileRange(file, 0, 0, staged, 0, 0, 1, context())],
  ]
  for (const [name, call] of across) t.equal(await errno(call as () => never), E.EXDEV, name)
})

t.test('within one tree the kernel is told to copy by itself', async t => {
  const world = await World.open(t, { idle: true })
  const ino = await world.stage('staged', 'x')
  const copying = () => world.fs.copyFileRange(ino, 0, 0, ino, 0, 5, 1, context())
  t.equal(await errno(copying), E.EOPNOTSUPP)
})

t.test('reading is allowed everywhere', async t => {
  const world = await World.open(t)
  for (const [place, { directory, file }] of Object.entries(await places(world))) {
    t.ok((await world.read(file)).length > 0, `${place}: a file`)
    t.ok((await world.list(directory)).length >= 2, `${place}: a directory`)
    t.equal(await errno(() => world.fs.getxattr(file, 'user.x', context())), E.ENODATA)
  }
})

t.test('the root shows its trees, and .cidfs only to those who know of it', async t => {
  const world = await World.open(t)
  t.same(await world.names(1), ['ipfs', 'ipns', 'staging', 'pins'])
  t.equal(await world.ino('.cidfs'), 6)
  t.same(await world.names(6), ['status', 'exists'])
  t.equal(await errno(() => world.entry('nothing')), E.ENOENT)
  const { attributes } = await world.fs.getattr(1, undefined, context())
  t.equal(attributes.nlink, 7)
})

t.test('a status file has one text for each open', async t => {
  const { ControlTree } = await import('../../src/fs/control-tree.js')
  let made = 0
  const tree = new ControlTree({ status: () => `made ${++made}\n` })
  const first = tree.open(7, 0)
  const read = async (fh: number, offset: number): Promise<string> =>
    Buffer.from((await tree.read(7, fh, offset, 100, context())) as Uint8Array).toString()
  t.equal(await read(first.fh, 0), 'made 1\n')
  t.equal(await read(first.fh, 5), '1\n')
  const second = tree.open(7, 0)
  t.equal(await read(second.fh, 0), 'made 2\n')
  tree.release(7, first.fh)
  t.equal(first.directIo, true)
  t.equal(await errno(() => tree.open(8, 0)), E.ESTALE)
})

t.test('free space is that of the disk of the store', async t => {
  const world = await World.open(t)
  const { statfsSync } = await import('node:fs')
  const disk = statfsSync(world.dir)
  const found = await world.fs.statfs()
  t.match(found, { blocks: disk.blocks, blockSizeBytes: disk.bsize, nameMaxBytes: 255 })
})
