import { constants } from 'node:os'
import t from 'tap'
import { CidfsError } from '../../src/core/errors.js'
import { IPNS_INO, isName, isPin, isStaged } from '../../src/fs/ino.js'
import { generateKey } from '../../src/p2p/ipns-key.js'
import { NameResolver } from '../../src/sources/names.js'
import { context, errno, World } from './support.js'

const E = constants.errno
const CIDS = ['bafkqaaa', 'bafkqablimvwgy3y']

/** What `_dnslink` names lead to; `hang`: the server is silent. */
const dns = {
  name: 'fake dns',
  links: new Map<string, string>(),
  hang: false,
  async resolve(name: string, signal: AbortSignal) {
    if (dns.hang) await new Promise(resolve => signal.addEventListener('abort', resolve))
    if (signal.aborted) throw new CidfsError('INTERRUPTED', 'interrupted')
    const text = dns.links.get(name.slice('_dnslink.'.length))
    return { records: text === undefined ? [] : [{ text: `dnslink=${text}`, ttlMs: 0 }] }
  },
  async close() {},
}

function open(t: Parameters<typeof World.open>[0], dir?: string): Promise<World> {
  dns.links.clear()
  dns.hang = false
  const network = { unavailable: 'no network', find: async () => none, publish: async () => [] }
  const none = { record: undefined, problems: [] }
  const names = (store: World['store']) =>
    new NameResolver(store, { network, dns, offline: false, deadlineMs: 5_000, patienceMs: 20 })
  return World.open(t, { names, ...(dir === undefined ? {} : { dir, resume: true }) })
}

async function readlink(world: World, path: string): Promise<string> {
  return Buffer.from(await world.fs.readlink(await world.ino(path), context())).toString()
}

t.test('a name is a symbolic link that the kernel keeps for a second at most', async t => {
  const world = await open(t)
  dns.links.set('example.org', `/ipfs/${CIDS[1]}`)
  const { attributes, entryTtlMs } = await world.entry('ipns/example.org')
  t.equal(await readlink(world, 'ipns/example.org'), `../ipfs/${CIDS[1]}`)
  t.equal(attributes.mode, 0o120777)
  t.equal(attributes.sizeBytes, `../ipfs/${CIDS[1]}`.length)
  t.ok(entryTtlMs <= 1000)
  t.ok(isName(attributes.ino) && !isStaged(attributes.ino) && !isPin(attributes.ino))
  t.equal(await world.ino('ipns'), IPNS_INO)
  t.equal(await world.ino('ipns/example.org'), attributes.ino, 'the same target is the same node')
})

t.test('another target is another node, so that the kernel reads the link again', async t => {
  const world = await open(t)
  dns.links.set('example.org', `/ipfs/${CIDS[0]}`)
  const before = await world.ino('ipns/example.org')
  const cached = world.fs.readlink(before, context())
  dns.links.set('example.org', `/ipfs/${CIDS[1]}`)
  let after = before
  let lookups = 0
  for (const end = performance.now() + 5_000; after === before && performance.now() < end; ) {
    await new Promise(resolve => setTimeout(resolve, 20))
    after = await world.ino('ipns/example.org')
    lookups++
  }
  t.not(after, before)
  t.equal(await readlink(world, 'ipns/example.org'), `../ipfs/${CIDS[1]}`)
  t.same(
    await world.fs.readlink(before, context()),
    await cached,
    'who has the old node reads the old target',
  )
  world.fs.forget(before, lookups) // the first one, and all but the last of the loop
  t.equal(await errno(() => world.fs.readlink(before, context())), E.ESTALE, 'until the kernel forgets it')
})

t.test('what is no name, or leads nowhere, does not exist; what cannot be asked for is an error', async t => {
  const world = await open(t)
  for (const name of ['nonsense', 'bafkqaaa', 'none.example']) {
    t.equal(await errno(() => world.entry(`ipns/${name}`)), E.ENOENT, name)
  }
  const { text } = generateKey().name
  t.equal(await errno(() => world.entry(`ipns/${text}`)), E.EIO)
  t.match(await world.xattr(IPNS_INO, 'user.ipfs.error'), /no record of k51.* no network/)
  t.same(await world.fs.listxattr(IPNS_INO, context()), ['user.ipfs.error'])
  dns.links.set('example.org', `/ipfs/${CIDS[0]}`)
  await world.entry('ipns/example.org')
  t.equal(
    await errno(() => world.xattr(IPNS_INO, 'user.ipfs.error')),
    E.ENODATA,
    'gone with the next success',
  )
})

t.test('only what is known is listed, and nobody is asked for it', async t => {
  const world = await open(t)
  t.same(await world.names(IPNS_INO), [])
  for (let i = 0; i < 7; i++) {
    dns.links.set(`n${i}.org`, `/ipfs/${CIDS[i % 2]}`)
    await world.entry(`ipns/n${i}.org`)
  }
  dns.hang = true
  t.same(
    await world.names(IPNS_INO),
    [0, 1, 2, 3, 4, 5, 6].map(i => `n${i}.org`),
  )
  const [listed] = (await world.list(IPNS_INO)).slice(2)
  t.equal(listed?.ino, await world.ino('ipns/n0.org'), 'with the id that stat shows')
  t.match(await world.xattr(await world.ino('ipns/n0.org'), 'ipfs.state'), /^(fresh|stale)$/)
})

t.test('waiting for a name can be interrupted', async t => {
  const world = await open(t)
  dns.hang = true
  const controller = new AbortController()
  const waiting = errno(() => world.fs.lookup(IPNS_INO, Buffer.from('slow.org'), context(controller.signal)))
  controller.abort()
  t.equal(await waiting, E.EINTR)
})

t.test('nothing can be changed in it', async t => {
  const world = await open(t)
  const { fs } = world
  t.equal(await errno(() => fs.symlink(IPNS_INO, Buffer.from('x.org'), Buffer.from('y'), context())), E.EROFS)
  t.equal(await errno(() => fs.unlink(IPNS_INO, Buffer.from('x.org'), context())), E.EROFS)
  t.equal(await errno(() => fs.mkdir(IPNS_INO, Buffer.from('x.org'), 0o755, context())), E.EROFS)
})

t.test('a daemon that takes over knows the links that the kernel knows', async t => {
  const first = await open(t)
  dns.links.set('example.org', `/ipfs/${CIDS[0]}`)
  const ino = await first.ino('ipns/example.org')
  await first.close(false)
  const second = await open(t, first.dir)
  const target = await second.fs.readlink(ino, context())
  t.equal(Buffer.from(target).toString(), `../ipfs/${CIDS[0]}`)
  dns.links.set('example.org', `/ipfs/${CIDS[0]}`)
  t.equal(await second.ino('ipns/example.org'), ino)
  second.fs.forget(ino, 1)
  await second.fs.readlink(ino, context())
  t.pass('how often the kernel holds it is not known, so it stays')
})
