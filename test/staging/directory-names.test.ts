import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { PutOutcome } from '../../src/p2p/ipns-record.js'
import { verifyRecord } from '../../src/p2p/ipns-verify.js'
import { type NameNetwork, NameResolver } from '../../src/sources/names.js'
import { DirectoryNames } from '../../src/staging/directory-names.js'
import { NameKeys } from '../../src/staging/name-keys.js'
import { NamePublisher } from '../../src/staging/name-publisher.js'
import { NameRecords } from '../../src/staging/name-records.js'
import { context, World } from '../fs/support.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'

const DIRECTORY = 0o755

/** Directories whose names follow them, and what was published of them. */
async function open(t: Test, { dir, debounceMs = 20 }: { dir?: string; debounceMs?: number } = {}) {
  const state = dir ?? join(await tempDir(t), 'state')
  const world = await World.open(t, { dir: state })
  const published: string[] = []
  const network: NameNetwork = {
    unavailable: undefined,
    find: async () => ({ record: undefined, problems: [] }),
    publish: async (multihash, record): Promise<PutOutcome[]> => {
      published.push((await verifyRecord(multihash, record)).value)
      return [{ routing: 'test', error: null }]
    },
  }
  const { store, staging } = world
  const resolver = new NameResolver(store, { network, dns: undefined, offline: false, deadlineMs: 1000 })
  const shared = { keys: new NameKeys(state), records: new NameRecords(store) }
  const publisher = new NamePublisher({ ...shared, store, resolver, network })
  const names = new DirectoryNames({ ...shared, staging, publisher, debounceMs })
  const stop = async () => {
    names.stop()
    await publisher.stop()
    await resolver.stop()
  }
  t.teardown(stop)
  const mkdir = async (name: string, parent?: number) => {
    const into = parent ?? (await world.ino('staging'))
    return (await world.fs.mkdir(into, Buffer.from(name), DIRECTORY, context())).attributes.ino
  }
  const node = (ino: number) => staging.names.get(ino)
  const cid = (ino: number) =>
    until('it has a CID', () => {
      const found = staging.publishedCid(node(ino))
      return found && `/ipfs/${found}`
    })
  return { world, state, published, names, keys: shared.keys, publisher, stop, mkdir, node, cid }
}

t.test('the name follows the CID of the directory, the last of many changes at once', async t => {
  const { world, names, keys, published, mkdir, node, cid } = await open(t, { debounceMs: 200 })
  const { name } = keys.generate('site')
  const ino = await mkdir('site')
  names.bind(node(ino), 'site')
  names.start()
  t.match(names.of(ino), { keyName: 'site', name: name.text, error: undefined })
  t.equal(names.pathOf('site'), 'staging/site')
  for (let i = 0; i < 20; i++) await world.stage(`file ${i}`, `content ${i}`, ino)
  await until(
    'all is published',
    async () => published.at(-1) === (await cid(ino)) && world.staging.queue.get(ino) === undefined,
  )
  t.ok(published.length < 10, `${published.length} publications of 20 changes`)
  const before = published.length
  await world.stage('elsewhere', 'content')
  await mkdir('other')
  const file = await world.stage('last', 'content', ino)
  await cid(file)
  await until('the change is published', () => published.length > before)
  t.equal(published.at(-1), await cid(ino))
})

t.test('a directory deep below follows too, and keeps its name when it moves', async t => {
  const { world, names, keys, published, mkdir, node, cid } = await open(t)
  keys.generate('site')
  const outer = await mkdir('outer')
  const ino = await mkdir('inner', outer)
  names.start()
  names.bind(node(ino), 'site')
  await until('it is published', () => published.length > 0)
  const staging = await world.ino('staging')
  await world.fs.rename(outer, Buffer.from('inner'), staging, Buffer.from('moved'), 0, context())
  t.equal(names.pathOf('site'), 'staging/moved')
  await world.stage('file', 'content', ino)
  await until(
    'the change is published',
    async () => published.at(-1) === (await cid(ino)) && published.length > 1,
  )
})

t.test('a directory that follows no name any more is not published', async t => {
  const { world, names, keys, published, mkdir, node, cid } = await open(t)
  keys.generate('site')
  keys.generate('other')
  const [ino, other] = [await mkdir('site'), await mkdir('other')]
  names.start()
  names.bind(node(ino), 'site')
  await until('it is published', async () => published.at(-1) === (await cid(ino)))
  names.unbind(ino)
  await world.stage('file', 'content', ino)
  const changed = await cid(ino)
  await world.stage('file', 'other content', other)
  names.bind(node(other), 'other')
  await until('the other one is published', async () => published.at(-1) === (await cid(other)))
  t.notOk(published.includes(changed))
})

t.test('what changed before a crash is published at the next start', async t => {
  const first = await open(t, { debounceMs: 3_600_000 })
  first.keys.generate('site')
  const ino = await first.mkdir('site')
  first.names.start()
  first.names.bind(first.node(ino), 'site')
  await first.world.stage('file', 'content', ino)
  await first.cid(ino)
  await first.stop()
  await first.world.close(true)
  t.same(first.published, [])
  const second = await open(t, { dir: first.state })
  second.names.start()
  await until('it is published', async () => second.published.at(-1) === (await second.cid(ino)))
})

t.test('one key follows one directory, inside of staging/, that is there', async t => {
  const { world, names, keys, mkdir, node } = await open(t)
  keys.generate('site')
  const [one, two] = [await mkdir('one'), await mkdir('two')]
  const file = await world.stage('file', 'content')
  t.throws(() => names.bind(node(one), 'other'), { code: 'NOT_FOUND' })
  t.throws(() => names.bind(node(file), 'site'), { code: 'NOT_SUPPORTED' })
  const root = await world.ino('staging')
  t.throws(() => names.bind(node(root), 'site'), { code: 'NOT_SUPPORTED' })
  names.bind(node(one), 'site')
  names.bind(node(one), 'site')
  t.throws(() => names.bind(node(two), 'site'), { code: 'BUSY', message: /follows staging\/one/ })
  await world.fs.rmdir(root, Buffer.from('one'), context())
  names.bind(node(two), 'site')
  t.equal(names.pathOf('site'), 'staging/two', 'a directory that is gone holds no key')
  names.unbind(two)
  t.throws(() => names.unbind(two), { code: 'NO_ATTRIBUTE' })
  t.equal(names.of(two), undefined)
})

t.test('a key that is gone is an error of the directory, and of nothing else', async t => {
  const { names, keys, mkdir, node } = await open(t)
  keys.generate('site')
  const ino = await mkdir('site')
  names.bind(node(ino), 'site')
  keys.remove('site')
  names.start()
  await until('the error is shown', () => names.of(ino)?.error?.includes('there is no key "site"'))
  t.equal(names.of(ino)?.name, undefined)
})
