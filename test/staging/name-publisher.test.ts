import { readdir, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { cidOf } from '../../src/core/cid.js'
import { generateKey } from '../../src/p2p/ipns-key.js'
import type { Found } from '../../src/p2p/ipns-network.js'
import type { PutOutcome } from '../../src/p2p/ipns-record.js'
import { signRecord, supersedes } from '../../src/p2p/ipns-record.js'
import { type VerifiedRecord, verifyRecord } from '../../src/p2p/ipns-verify.js'
import { type NameNetwork, NameResolver } from '../../src/sources/names.js'
import { NameKeys } from '../../src/staging/name-keys.js'
import { NamePublisher } from '../../src/staging/name-publisher.js'
import { NameRecords } from '../../src/staging/name-records.js'
import { openStore } from '../store/support.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'

const [A, B, C] = ['a', 'b', 'c'].map(text => `/ipfs/${cidOf(0x55, Buffer.from(text))}`) as [
  string,
  string,
  string,
]
const HOUR_MS = 3_600_000

/** Keeps the newest record of each name, as everybody should. */
class Keeper implements NameNetwork {
  unavailable: string | undefined
  readonly records = new Map<string, VerifiedRecord>()
  readonly taken: VerifiedRecord[] = []
  /** What it answers to a record; null: it takes it. */
  error: string | null = null
  nobody = false

  async find(multihash: Uint8Array): Promise<Found> {
    return { record: this.records.get(Buffer.from(multihash).toString('hex')), problems: [] }
  }

  async publish(multihash: Uint8Array, bytes: Uint8Array): Promise<PutOutcome[]> {
    if (this.nobody) return []
    const record = await verifyRecord(multihash, bytes)
    if (this.error === null) this.keep(multihash, record)
    return [{ routing: 'keeper', error: this.error }]
  }

  keep(multihash: Uint8Array, record: VerifiedRecord): void {
    this.taken.push(record)
    const key = Buffer.from(multihash).toString('hex')
    const known = this.records.get(key)
    if (known === undefined || supersedes(record, known)) this.records.set(key, record)
  }
}

async function world(t: Test, over: { republishMs?: number; network?: Keeper; dir?: string } = {}) {
  const { network = new Keeper(), dir = await tempDir(t) } = over
  const store = await openStore(t, undefined, join(dir, 'state'))
  const resolver = new NameResolver(store, { network, dns: undefined, offline: false, deadlineMs: 2_000 })
  const keys = new NameKeys(join(dir, 'state'))
  const records = new NameRecords(store)
  const publisher = new NamePublisher({ ...over, store, keys, records, resolver, network })
  const alive = setInterval(() => {}, 1000)
  const stop = async () => {
    clearInterval(alive)
    await publisher.stop()
    await resolver.stop()
  }
  t.teardown(stop)
  return { network, dir, store, keys, records, resolver, publisher, stop }
}

t.test('each new value has a sequence above the last, the same value keeps its own', async t => {
  const { publisher, keys, network, resolver } = await world(t)
  const { name } = keys.generate('site')
  const sequences: string[] = []
  for (const value of [A, B, B, A]) sequences.push((await publisher.publish('site', value)).sequence)
  t.same(sequences, ['0', '1', '1', '2'])
  t.match(publisher.publicationOf(name.text), { state: 'published', value: A, tries: 0, error: null })
  t.equal(network.taken.length, 4)
  const life = network.taken[3]!.eolMs - Date.now()
  t.ok(life > 47 * HOUR_MS && life <= 48 * HOUR_MS, 'it holds for two days')
  t.match(await resolver.resolve(name), { path: A, state: 'fresh' }, 'our own name needs no network')
})

t.test('a key that was used elsewhere goes on from there', async t => {
  const { publisher, keys, network } = await world(t)
  const key = generateKey()
  const theirs = signRecord(key, { value: A, sequence: 41n, eolMs: Date.now() + HOUR_MS, ttlMs: 0 })
  network.keep(key.name.multihash, await verifyRecord(key.name.multihash, theirs))
  keys.import('theirs', key.protobuf)
  t.match(await publisher.publish('theirs', B), { sequence: '42', state: 'published' })
})

t.test('a newer record of somebody else with the key is left alone', async t => {
  const { publisher, keys, network, resolver } = await world(t, { republishMs: 1 })
  const key = keys.generate('shared')
  await publisher.publish('shared', A)
  const theirs = signRecord(key, { value: C, sequence: 7n, eolMs: Date.now() + HOUR_MS, ttlMs: 0 })
  network.keep(key.name.multihash, await verifyRecord(key.name.multihash, theirs))
  await resolver.refresh(key.name, undefined)
  t.equal(publisher.publicationOf(key.name.text)?.state, 'superseded')
  t.match(await resolver.resolve(key.name), { path: C })
  t.match(
    await publisher.publish('shared', B),
    { sequence: '8', state: 'published' },
    'until we publish again',
  )
})

t.test('what nobody took is tried again, across a restart', async t => {
  const network = new Keeper()
  network.error = 'HTTP 503'
  const first = await world(t, { network })
  const { name } = first.keys.generate('site')
  const published = await first.publisher.publish('site', A)
  t.match(published, { state: 'failed', tries: 1, error: 'keeper: HTTP 503', takenMs: null })
  await first.stop()
  await first.store.close()
  network.error = null
  const second = await world(t, { network, dir: first.dir })
  t.match(second.publisher.publicationOf(name.text), { state: 'failed', tries: 1 })
  second.publisher.start()
  await until('it was taken', () => second.publisher.publicationOf(name.text)?.state === 'published')
  t.match(network.taken, [{ value: A, sequence: 0n }])
})

t.test('records are renewed before they end', async t => {
  const { publisher, keys, network } = await world(t, { republishMs: 20 })
  keys.generate('site')
  await publisher.publish('site', A)
  await until('it came again', () => network.taken.length >= 3)
  const [first, , third] = network.taken
  t.equal(third!.sequence, 0n, 'with the same sequence')
  t.ok(third!.eolMs > first!.eolMs, 'and a later end')
})

t.test('without anybody who takes records a name is kept here', async t => {
  const { publisher, keys, network, resolver } = await world(t)
  const { name } = keys.generate('site')
  network.nobody = true
  t.match(await publisher.publish('site', A), { state: 'local', outcomes: [] })
  network.unavailable = 'offline'
  t.match(await publisher.publish('site', B), { state: 'local', sequence: '1' })
  t.match(await resolver.resolve(name), { path: B })
  await t.rejects(publisher.publish('other', A), { code: 'NOT_FOUND', message: /cidfs ipns key gen other/ })
})

t.test('a key that is gone is not published any more', async t => {
  const { publisher, keys, network } = await world(t, { republishMs: 10 })
  const { name } = keys.generate('site')
  await publisher.publish('site', A)
  keys.remove('site')
  publisher.forget(name.text)
  const { length } = network.taken
  keys.generate('other')
  await publisher.publish('other', A)
  await until('the other is renewed', () => network.taken.length >= length + 4)
  t.same(
    publisher.list().map(({ keyName }) => keyName),
    ['other'],
  )
})

t.test('keys are files of their own, private and never overwritten', async t => {
  const dir = join(await tempDir(t), 'state')
  await openStore(t, undefined, dir)
  const keys = new NameKeys(dir)
  const site = keys.generate('site')
  const file = join(dir, 'keys', 'site.key')
  t.equal((await stat(file)).mode & 0o777, 0o600)
  t.equal((await stat(join(dir, 'keys'))).mode & 0o777, 0o700)
  t.same(await readdir(join(dir, 'keys')), ['site.key'], 'nothing temporary is left')
  t.equal(new NameKeys(dir).get('site').name.text, site.name.text)
  t.throws(() => keys.generate('site'), { code: 'EXISTS' })
  t.throws(() => keys.import('copy', site.protobuf), { code: 'EXISTS', message: /as site/ })
  const self = keys.get('self')
  t.equal((await stat(join(dir, 'node.key'))).mode & 0o777, 0o600)
  t.equal(new NameKeys(dir).get('self').name.text, self.name.text, 'the key of the node stays')
  t.same(keys.names(), ['self', 'site'])
  t.throws(() => keys.remove('self'), { code: 'INVALID' })
  await writeFile(file, 'damaged')
  t.throws(() => new NameKeys(dir).get('site'), {
    code: 'STORE_DAMAGED',
    message: /site\.key: that is no Ed25519/,
  })
})
