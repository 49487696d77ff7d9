/**
 * A request that a daemon has carried out without being able to say so comes again to the next one: it is answered as
 * done, and done once.
 */
import t from 'tap'
import type { Context } from '../../src/fs/file-system.js'
import { bytesOf, context, World } from './support.js'

const O_RDWR_CREATE_EXCLUSIVELY = 0o302
const O_WRONLY_APPEND = 0o2001

function request(id: number, repeated = false): Context {
  return Object.assign(context(), { id, repeated })
}

const name = (text: string): Buffer => Buffer.from(text)

/** Everything that makes or takes a name, by the tree of `parent`. */
function changes(world: World, parent: number, ctx: (id: number) => Context) {
  const { fs } = world
  return {
    mkdir: () => fs.mkdir(parent, name('dir'), 0o755, ctx(2)),
    mknod: () => fs.mknod(parent, name('node'), 0o100644, 0, ctx(4)),
    symlink: () => fs.symlink(parent, name('link'), name('target'), ctx(6)),
    create: () => fs.create(parent, name('file'), 0o644, O_RDWR_CREATE_EXCLUSIVELY, ctx(8)),
    rename: () => fs.rename(parent, name('node'), parent, name('renamed'), 0, ctx(10)),
    exchange: () => fs.rename(parent, name('renamed'), parent, name('link'), 2, ctx(12)),
    unlink: () => fs.unlink(parent, name('renamed'), ctx(14)),
    rmdir: () => fs.rmdir(parent, name('dir'), ctx(16)),
  }
}

t.test('what was done is not done again, whatever it was', async t => {
  let world = await World.open(t, { idle: true })
  const staging = await world.ino('staging')
  for (const change of Object.keys(changes(world, staging, request)) as (keyof ReturnType<
    typeof changes
  >)[]) {
    const first = await changes(world, staging, request)[change]()
    const listed = await world.names(staging)
    await world.close(false)
    world = await World.open(t, { dir: world.dir, resume: true, idle: true })
    const again = await changes(world, staging, id => request(id, true))[change]()
    t.same(await world.names(staging), listed, change)
    if (first !== undefined && 'attributes' in first) t.same(again, first, change)
    if (change === 'create') t.match(again, { entry: (first as { entry: object }).entry })
  }
})

t.test('what was not done is done when it comes again', async t => {
  const first = await World.open(t, { idle: true })
  const staging = await first.ino('staging')
  await first.fs.mkdir(staging, name('before'), 0o755, request(2))
  await first.close(false)
  const second = await World.open(t, { dir: first.dir, resume: true, idle: true })
  await second.fs.mkdir(staging, name('dir'), 0o755, request(4, true))
  t.same(await second.names(staging), ['before', 'dir'])
  const twice = async () => second.fs.mkdir(staging, name('dir'), 0o755, request(6, true))
  await t.rejects(twice(), { code: 'EXISTS' }, 'another request for the same is another')
})

t.test('what failed fails again', async t => {
  const first = await World.open(t, { idle: true })
  const staging = await first.ino('staging')
  const missing = async (world: World, ctx: Context) => world.fs.unlink(staging, name('missing'), ctx)
  await t.rejects(missing(first, request(2)), { code: 'NOT_FOUND' })
  await first.close(false)
  const second = await World.open(t, { dir: first.dir, resume: true, idle: true })
  await t.rejects(missing(second, request(2, true)), { code: 'NOT_FOUND' })
})

t.test('with another mount the ids of requests begin anew', async t => {
  const first = await World.open(t, { idle: true })
  const staging = await first.ino('staging')
  await first.fs.mkdir(staging, name('dir'), 0o755, request(2))
  await first.close(true)
  const second = await World.open(t, { dir: first.dir, idle: true })
  await t.rejects(async () => second.fs.mkdir(staging, name('dir'), 0o755, request(2, true)), {
    code: 'EXISTS',
  })
})

t.test('what was appended is not appended again', async t => {
  const first = await World.open(t, { idle: true })
  const ino = await first.stage('log', 'one ')
  const { fh } = await first.fs.open(ino, O_WRONLY_APPEND, context())
  await first.fs.write(ino, fh, 4, name('two '), O_WRONLY_APPEND, request(2))
  await first.close(false)
  const second = await World.open(t, { dir: first.dir, resume: true, idle: true })
  const again = second.fs.reopen(ino, O_WRONLY_APPEND, undefined)
  await second.fs.write(ino, again, 4, name('two '), O_WRONLY_APPEND, request(2, true))
  await second.fs.write(ino, again, 4, name('three'), O_WRONLY_APPEND, request(4))
  t.equal(bytesOf(await second.fs.read(ino, again, 0, 100, context())).toString(), 'one two three')
})

t.test('a file that is open goes on being open: it is neither published nor removed', async t => {
  const first = await World.open(t, { idle: true })
  const staging = await first.ino('staging')
  const ino = await first.stage('file', 'content')
  await first.fs.open(ino, 2, context())
  await first.fs.unlink(staging, name('file'), context())
  await first.close(false)
  const second = await World.open(t, { dir: first.dir, resume: true })
  const fh = second.fs.reopen(ino, 2, undefined)
  second.fs.forget(ino, 1)
  t.equal(bytesOf(await second.fs.read(ino, fh, 0, 100, context())).toString(), 'content')
  await second.fs.release(ino, fh, 2)
  t.equal(second.staging.names.find(ino), undefined, 'until it is closed')
})
