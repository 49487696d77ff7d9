/** `ipfs/`: names, listings, sizes, errors and what they cost. */
import { constants } from 'node:os'
import { base58btc } from 'multiformats/bases/base58'
import t, { type Test } from 'tap'
import type { CID } from '../../src/core/cid.js'
import { FOREVER_MS } from '../../src/fs/tree.js'
import { link } from '../unixfs/support.js'
import { bytesOf, context, errno, Sink, World } from './support.js'

const E = constants.errno

/** A directory of small files under dag-pb roots, and what they are. */
function directoryOf(world: World, count: number): { root: CID; children: CID[] } {
  const children = Array.from({ length: count }, (_, i) => {
    const leaf = world.dag.raw(Buffer.from(`content ${i}`))
    return world.dag.file([{ cid: leaf, sizeBytes: `content ${i}`.length }]).cid
  })
  const name = (i: number): string => `f${String(i).padStart(5, '0')}`
  return { root: world.dag.directory(children.map((cid, i) => link(cid, name(i), 70))), children }
}

async function fileWorld(t: Test): Promise<{ world: World; cid: CID }> {
  const world = await World.open(t)
  return { world, cid: world.dag.raw(Buffer.from('hello')) }
}

t.test('every spelling of a CID is one node', async t => {
  const { world, cid } = await fileWorld(t)
  const dir = world.dag.directory([link(cid, 'x', 5)])
  const inos = new Set<number>()
  for (const text of [`${dir}`, dir.toString(base58btc), `${dir.toV0()}`]) {
    inos.add(await world.ino(`ipfs/${text}`))
  }
  t.equal(inos.size, 1)
})

t.test('names that are no CID are proven absent, for ever and without the network', async t => {
  const { world } = await fileWorld(t)
  const ipfs = await world.ino('ipfs')
  for (const name of ['favicon.ico', '.git', 'Qm', 'bafy', `z${'1'.repeat(60)}`]) {
    const entry = await world.fs.lookup(ipfs, Buffer.from(name), context())
    t.same(entry, { attributes: undefined, entryTtlMs: FOREVER_MS }, name)
  }
  t.equal(world.network.requests.length, 0)
})

t.test('a name that a verified directory does not have is absent for ever', async t => {
  const { world, cid } = await fileWorld(t)
  const ino = await world.ino(`ipfs/${world.dag.directory([link(cid, 'x', 5)])}`)
  t.same(await world.fs.lookup(ino, Buffer.from('y'), context()), {
    attributes: undefined,
    entryTtlMs: FOREVER_MS,
  })
})

t.test('a CID that cannot be had is an error, not an absence', async t => {
  const { world } = await fileWorld(t)
  const cid = world.dag.raw(Buffer.from('gone'))
  world.network.remove(cid)
  const ipfs = await world.ino('ipfs')
  t.equal(await errno(() => world.fs.lookup(ipfs, Buffer.from(`${cid}`), context())), E.EIO)
  t.match(await world.xattr(ipfs, 'user.ipfs.error'), new RegExp(`${cid}`))
})

t.test('a failing lookup is told at its directory, and no more once it works', async t => {
  const world = await World.open(t)
  const { root, children } = directoryOf(world, 2)
  const dir = await world.ino(`ipfs/${root}`)
  world.network.remove(children[1]!)
  t.equal(await errno(() => world.fs.lookup(dir, Buffer.from('f00001'), context())), E.EIO)
  t.match(await world.xattr(dir, 'ipfs.error'), new RegExp(`${children[1]}`))
  t.ok((await world.fs.listxattr(dir, context())).includes('user.ipfs.error'))
  await world.fs.lookup(dir, Buffer.from('f00000'), context())
  t.equal(await errno(() => world.fs.getxattr(dir, 'user.ipfs.error', context())), E.ENODATA)
})

t.test('listing a directory fetches none of its children', async t => {
  const world = await World.open(t)
  const { root } = directoryOf(world, 100)
  const dir = await world.ino(`ipfs/${root}`)
  t.equal((await world.names(dir)).length, 100)
  await world.list(dir, true)
  t.equal(world.network.requests.length, 1, 'the directory itself')
})

t.test('a listing taken in small pieces has every name once, and dots first', async t => {
  const world = await World.open(t)
  const { root } = directoryOf(world, 20)
  const dir = await world.ino(`ipfs/${root}`)
  for (const perReply of [1, 2, 7, 100]) {
    const listed = await world.list(dir, false, perReply)
    const names = listed.map(({ name }) => Buffer.from(name).toString())
    t.same(names.slice(0, 2), ['.', '..'])
    t.equal(new Set(names).size, 22, `${perReply} a time`)
    t.equal(listed[0]!.ino, dir)
    t.equal(listed[1]!.ino, 2, 'the directory above is ipfs/')
  }
})

t.test('the ids of a listing are those of stat for what is held here', async t => {
  const world = await World.open(t)
  const leaf = world.dag.raw(Buffer.from('leaf'))
  const sub = world.dag.directory([link(leaf, 'inner', 4)])
  const { cid: file } = world.dag.file([{ cid: leaf, sizeBytes: 4 }])
  const root = world.dag.directory([link(file, 'file', 50), link(leaf, 'leaf', 4), link(sub, 'sub', 50)])
  const dir = await world.ino(`ipfs/${root}`)
  const stat: number[] = []
  for (const name of ['file', 'leaf', 'sub']) stat.push(await world.ino(`ipfs/${root}/${name}`))
  for (const plus of [false, true]) {
    const listed = (await world.list(dir, plus)).slice(2)
    t.same(
      listed.map(({ ino }) => ino),
      stat,
      plus ? 'readdirplus' : 'readdir',
    )
    t.same(
      listed.map(({ type }) => type),
      [8, 8, 4],
      'and their types',
    )
  }
})

t.test('readdirplus counts a lookup for what it gave, and for nothing that did not fit', async t => {
  const world = await World.open(t)
  const leaf = world.dag.raw(Buffer.from('leaf'))
  const other = world.dag.raw(Buffer.from('other'))
  const root = world.dag.directory([link(leaf, 'a', 4), link(other, 'b', 5)])
  const dir = await world.ino(`ipfs/${root}`)
  const sink = new Sink(3)
  await world.fs.readdir(dir, 0, 0, true, sink, context())
  const given = sink.entries[2]!
  t.equal(given.attributes?.attributes.sizeBytes, 4, 'from its link')
  await world.fs.getattr(given.ino, undefined, context())
  world.fs.forget(given.ino, 1)
  await new Promise(resolve => setImmediate(resolve)) // the kernel forgets many at a time
  t.equal(await errno(() => world.fs.getattr(given.ino, undefined, context())), E.ESTALE)
  const { contentIno } = await import('../../src/fs/ino.js')
  t.equal(await errno(() => world.fs.getattr(contentIno(other), undefined, context())), E.ESTALE)
})

t.test('a walk through a listing asks for the next children ahead, in batches', async t => {
  const world = await World.open(t)
  const { root, children } = directoryOf(world, 300)
  const dir = await world.ino(`ipfs/${root}`)
  const names = await world.names(dir)
  await world.fs.lookup(dir, Buffer.from(names[10]!), context())
  t.equal(world.network.requests.length, 2, 'one lookup is no walk')
  await world.fs.lookup(dir, Buffer.from(names[11]!), context())
  const { until } = await import('../support/until.js')
  await until('the others are on their way', () => world.network.count(children[299]!) === 1)
  for (const name of names) await world.fs.lookup(dir, Buffer.from(name), context())
  t.ok(
    children.every(cid => world.network.count(cid) === 1),
    'each was fetched once',
  )
})

t.test('lookups here and there ask for nothing ahead', async t => {
  const world = await World.open(t)
  const { root } = directoryOf(world, 300)
  const dir = await world.ino(`ipfs/${root}`)
  const names = await world.names(dir)
  for (const index of [200, 100, 0]) await world.fs.lookup(dir, Buffer.from(names[index]!), context())
  await new Promise(resolve => setImmediate(resolve))
  t.equal(world.network.requests.length, 4)
})

t.test('a link that lies about the size of a raw block is put right before anybody reads', async t => {
  const world = await World.open(t)
  const leaf = world.dag.raw(Buffer.from('twelve bytes'))
  const root = world.dag.directory([link(leaf, 'leaf', 5)])
  const entry = await world.entry(`ipfs/${root}/leaf`)
  t.equal(entry.attributes.sizeBytes, 5)
  t.equal((await world.read(entry.attributes.ino)).toString(), 'twelve bytes')
  t.same(world.invalidations, [{ ino: entry.attributes.ino }], 'the kernel is told')
  const { attributes } = await world.fs.getattr(entry.attributes.ino, undefined, context())
  t.equal(attributes.sizeBytes, 12)
})

t.test('a link that promises more than a block can have is not believed', async t => {
  const world = await World.open(t)
  const leaf = world.dag.raw(Buffer.from('small'))
  const root = world.dag.directory([link(leaf, 'leaf', 2 ** 40)])
  t.equal((await world.entry(`ipfs/${root}/leaf`)).attributes.sizeBytes, 5)
})

t.test('a missing middle block fails only the reads that need it', async t => {
  const world = await World.open(t)
  const parts = ['aaaa', 'bbbb', 'cccc'].map(text => ({
    cid: world.dag.raw(Buffer.from(text)),
    sizeBytes: 4,
  }))
  const { cid } = world.dag.file(parts)
  world.network.remove(parts[1]!.cid)
  const ino = await world.ino(`ipfs/${cid}`)
  const { fh, directIo } = await world.fs.open(ino, 0, context())
  t.ok(directIo, 'the page cache would read across the gap')
  t.equal(bytesOf(await world.fs.read(ino, fh, 0, 4, context())).toString(), 'aaaa')
  t.equal(await errno(() => world.fs.read(ino, fh, 2, 4, context())), E.EIO)
  t.match(await world.xattr(ino, 'user.ipfs.error'), new RegExp(`${parts[1]!.cid}`))
  t.equal(bytesOf(await world.fs.read(ino, fh, 8, 100, context())).toString(), 'cccc')
  await world.fs.release(ino, fh, 0)
})

t.test('an interrupted read ends with EINTR', async t => {
  const world = await World.open(t)
  const part = { cid: world.dag.raw(Buffer.from('slow')), sizeBytes: 4 }
  const ino = await world.ino(`ipfs/${world.dag.file([part]).cid}`)
  const { fh } = await world.fs.open(ino, 0, context())
  world.network.hang = true
  const controller = new AbortController()
  const reading = errno(() => world.fs.read(ino, fh, 0, 4, context(controller.signal)))
  controller.abort()
  t.equal(await reading, E.EINTR)
})

t.test('one malformed child fails alone', async t => {
  const world = await World.open(t)
  const bad = world.dag.put(0x70, Buffer.from('not dag-pb at all'))
  const good = world.dag.raw(Buffer.from('good'))
  const root = world.dag.directory([link(bad, 'bad', 17), link(good, 'good', 4)])
  const dir = await world.ino(`ipfs/${root}`)
  t.same(await world.names(dir), ['bad', 'good'])
  for (let i = 0; i < 2; i++) {
    t.equal(await errno(() => world.fs.lookup(dir, Buffer.from('bad'), context())), E.EIO)
    t.equal((await world.list(dir, true)).length, 4, 'also when the block is held')
  }
  t.equal((await world.read(await world.ino(`ipfs/${root}/good`))).toString(), 'good')
})

t.test('attributes tell the CID and how much is held, in both spellings', async t => {
  const world = await World.open(t)
  const parts = ['aaaa', 'bbbb', 'cccc'].map(text => ({
    cid: world.dag.raw(Buffer.from(text)),
    sizeBytes: 4,
  }))
  const { cid } = world.dag.file(parts)
  const ino = await world.ino(`ipfs/${cid}`)
  t.same(await world.fs.listxattr(ino, context()), ['user.ipfs.cid', 'user.ipfs.cached'])
  for (const name of ['user.ipfs.cid', 'ipfs.cid']) t.equal(await world.xattr(ino, name), `${cid}`)
  t.equal(await world.xattr(ino, 'user.ipfs.cached'), '25')
  world.network.requests.length = 0
  await world.read(ino)
  t.equal(await world.xattr(ino, 'ipfs.cached'), '100')
  for (const name of ['user.ipfs.error', 'user.other', 'security.selinux', 'ipfs.', 'user.ipfs.cid2']) {
    t.equal(await errno(() => world.fs.getxattr(ino, name, context())), E.ENODATA, name)
  }
})

t.test('other codecs are plain bytes, and directories cannot be read as files', async t => {
  const world = await World.open(t)
  const cbor = world.dag.put(0x71, Buffer.from([0xa1, 0x61, 0x61, 0x01]))
  t.same([...(await world.read(await world.ino(`ipfs/${cbor}`)))], [0xa1, 0x61, 0x61, 0x01])
  const dir = await world.ino(`ipfs/${world.dag.directory([])}`)
  t.equal(await errno(() => world.fs.open(dir, 0, context())), E.EISDIR)
  t.equal(await errno(() => world.fs.readlink(dir, context())), E.EINVAL)
})

t.test('what is held completely is listed in ipfs/, and what is not is found all the same', async t => {
  const { world, cid } = await fileWorld(t)
  const { root } = directoryOf(world, 3)
  await world.read(await world.ino(`ipfs/${cid}`))
  await world.ino(`ipfs/${root}`)
  const ipfs = await world.ino('ipfs')
  const { until } = await import('../support/until.js')
  await until('the file is listed', async () => (await world.names(ipfs)).includes(`${cid}`))
  t.notOk((await world.names(ipfs)).includes(`${root}`), 'its children are missing')
  for (let i = 0; i < 3; i++) await world.read(await world.ino(`ipfs/${root}/f0000${i}`))
  await until('the directory is listed', async () => (await world.names(ipfs)).includes(`${root}`))
  const listed = (await world.list(ipfs)).find(({ name }) => Buffer.from(name).toString() === `${root}`)
  t.equal(listed?.ino, await world.ino(`ipfs/${root}`), 'under the id that stat shows')
})
