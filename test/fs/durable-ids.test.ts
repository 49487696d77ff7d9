/**
 * A node id is a durable handle: a file system that finds nothing but the state directory answers about every
 * id that an earlier one gave out, as that one did.
 */
import t from 'tap'
import { parseCid } from '../../src/core/cid.js'
import type { Attributes } from '../../src/fs/file-system.js'
import { bytesOf, context, type Listed, World } from './support.js'

/** What one id answers. */
interface Answers {
  attributes: Attributes
  content?: string
  target?: string
  listed?: Listed[]
  children?: Record<string, number>
  cid?: string
}

async function answersOf(world: World, ino: number): Promise<Answers> {
  const { attributes } = await world.fs.getattr(ino, undefined, context())
  const answers: Answers = { attributes }
  const type = attributes.mode & 0o170000
  if (type === 0o040000) {
    answers.listed = await world.list(ino)
    answers.children = {}
    for (const { name } of answers.listed.filter(
      ({ name }) => !/^\.\.?$/.test(Buffer.from(name).toString()),
    )) {
      const found = await world.fs.lookup(ino, name, context())
      answers.children[Buffer.from(name).toString('hex')] = found.attributes?.ino ?? -1
    }
  } else if (type === 0o120000) {
    answers.target = Buffer.from(await world.fs.readlink(ino, context())).toString()
  } else {
    // by the old handle, without an open: its number means nothing to the new daemon
    const bytes = bytesOf(await world.fs.read(ino, 4711, 0, 1 << 20, context()))
    answers.content = bytes.toString('hex')
  }
  if (ino > 15) answers.cid = await world.xattr(ino, 'user.ipfs.cid')
  return answers
}

/** Every id below a directory, found as programs find them. */
async function walk(world: World, ino: number, into: Set<number>): Promise<Set<number>> {
  into.add(ino)
  const { attributes } = await world.fs.getattr(ino, undefined, context())
  if ((attributes.mode & 0o170000) !== 0o040000) return into
  for (const { name } of await world.list(ino, true)) {
    if (/^\.\.?$/.test(Buffer.from(name).toString())) continue
    const found = await world.fs.lookup(ino, name, context())
    await walk(world, found.attributes!.ino, into)
  }
  return into
}

async function published(world: World): Promise<string> {
  const { dag } = world
  const link = (cid: ReturnType<typeof parseCid>, name: string, tsize: number) => ({
    cid,
    name: Buffer.from(name),
    tsize,
  })
  const raw = dag.raw(Buffer.from('raw leaf'))
  const { cid: file } = dag.file([
    { cid: dag.raw(Buffer.from('part one ')), sizeBytes: 9 },
    { cid: dag.raw(Buffer.from('part two')), sizeBytes: 8 },
  ])
  const symlink = dag.node({ type: 'symlink', data: Buffer.from('../raw') })
  const sub = dag.directory([link(raw, 'again', 8), link(file, 'file', 17), link(symlink, 'link', 10)])
  const hamt = await dag.import(
    Array.from({ length: 40 }, (_, i) => ({ path: `hamt/f${i}`, content: Buffer.from(`${i}`) })),
    { shardSplitThresholdBytes: 0, wrapWithDirectory: false },
  )
  const empty = dag.directory([])
  return dag
    .directory([
      link(empty, 'empty', 4),
      link(hamt, 'hamt', 5000),
      link(raw, 'raw', 8),
      link(sub, 'sub', 100),
      link(sub, 'twin', 100),
    ])
    .toString()
}

t.test('ids of both trees answer alike after everything but the state directory is gone', async t => {
  const first = await World.open(t)
  const root = await published(first)
  const dir = await first.fs.mkdir(await first.ino('staging'), Buffer.from('dir'), 0o755, context())
  const staged = [
    await first.stage('published', 'x'.repeat(5000), dir.attributes.ino),
    await first.stage('large', 'y'.repeat(200_000)),
  ]
  const { ino: symlink } = (
    await first.fs.symlink(dir.attributes.ino, Buffer.from('link'), Buffer.from('published'), context())
  ).attributes
  const { waitUntilPublished } = await import('../../src/staging/waiter.js')
  await waitUntilPublished(first.staging, [16], () => {}, new AbortController().signal)

  const inos = await walk(first, await first.ino(`ipfs/${root}`), new Set())
  for (const ino of [16, dir.attributes.ino, symlink, ...staged]) inos.add(ino)
  t.ok(inos.size > 50, `${inos.size} ids`)
  t.ok([...inos].every(ino => Number.isSafeInteger(ino)))
  const before = new Map<number, Answers>()
  for (const ino of inos) before.set(ino, await answersOf(first, ino))
  await first.close(false)

  const second = await World.open(t, { dir: first.dir, resume: true })
  for (const [ino, expected] of before) t.same(await answersOf(second, ino), expected, `${ino}`)
  t.equal(second.network.requests.length, 0)
  t.equal(await second.ino(`ipfs/${root}`), await second.ino(`ipfs/${parseCid(root).toString()}`))
  t.ok(before.has(await second.ino(`ipfs/${root}/sub/file`)), 'new lookups find the old ids')
})

t.test('a raw child of which only the link was seen keeps its size and can be read later', async t => {
  const first = await World.open(t)
  const leaf = first.dag.raw(Buffer.alloc(1000, 'r'))
  const root = first.dag.directory([{ cid: leaf, name: Buffer.from('leaf'), tsize: 1000 }])
  const ino = await first.ino(`ipfs/${root}/leaf`)
  t.equal(first.network.count(leaf), 0)
  await first.close(false)
  const second = await World.open(t, { dir: first.dir, resume: true, network: first.network })
  const { attributes } = await second.fs.getattr(ino, undefined, context())
  t.equal(attributes.sizeBytes, 1000)
  t.equal(second.network.count(leaf), 0)
  t.equal((await second.read(ino)).length, 1000)
})

t.test('a file that is open and not published goes on where it was', async t => {
  const first = await World.open(t, { idle: true })
  const staging = await first.ino('staging')
  const { entry, opened } = await first.fs.create(staging, Buffer.from('file'), 0o644, 2, context())
  const { ino } = entry.attributes
  await first.fs.write(ino, opened.fh, 0, Buffer.from('before '), 2, context())
  await first.close(false)
  const second = await World.open(t, { dir: first.dir, resume: true, idle: true })
  await second.fs.write(ino, opened.fh, 7, Buffer.from('after'), 2, context())
  t.equal(bytesOf(await second.fs.read(ino, opened.fh, 0, 100, context())).toString(), 'before after')
  await second.fs.release(ino, opened.fh, 2)
  second.staging.start()
  const { waitUntilPublished } = await import('../../src/staging/waiter.js')
  const result = await waitUntilPublished(second.staging, [ino], () => {}, new AbortController().signal)
  t.same(result, { pinned: 1, failed: [] })
  const cid = await second.xattr(ino, 'ipfs.cid')
  t.equal((await second.read(await second.ino(`ipfs/${cid}`))).toString(), 'before after')
})

t.test(
  'an unlinked file that is still open survives with its bytes, and ends when it is forgotten',
  async t => {
    const first = await World.open(t, { idle: true })
    const ino = await first.stage('file', 'no name')
    await first.fs.open(ino, 0, context())
    await first.fs.unlink(await first.ino('staging'), Buffer.from('file'), context())
    await first.close(false)
    const second = await World.open(t, { dir: first.dir, resume: true, idle: true })
    t.equal(bytesOf(await second.fs.read(ino, ino, 0, 100, context())).toString(), 'no name')
    second.fs.forget(ino, 2)
    t.equal(second.staging.names.find(ino), undefined)
    t.same(second.store.unsealedObjects(), [])
  },
)

t.test('after an unmount the ids of immutable nodes mean nothing any more', async t => {
  const first = await World.open(t)
  const root = await published(first)
  const ino = await first.ino(`ipfs/${root}/sub`)
  await first.close(true)
  const second = await World.open(t, { dir: first.dir, network: first.network })
  t.throws(() => second.fs.getattr(ino, undefined, context()), { code: 'STALE' })
  t.equal(await second.ino(`ipfs/${root}/sub`), ino, 'and are the same when they are looked up again')
})
