import t, { type Test } from 'tap'
import { cidOf } from '../../src/core/cid.js'
import { CidfsError } from '../../src/core/errors.js'
import { generateKey, type NameKey } from '../../src/p2p/ipns-key.js'
import { keyName, type Name, parseName } from '../../src/p2p/ipns-name.js'
import type { Found } from '../../src/p2p/ipns-network.js'
import { signRecord } from '../../src/p2p/ipns-record.js'
import { verifyRecord } from '../../src/p2p/ipns-verify.js'
import type { TxtResolver } from '../../src/sources/dns.js'
import { NameCache } from '../../src/sources/name-cache.js'
import { type NameNetwork, NameResolver, type NameResolverOptions } from '../../src/sources/names.js'
import { openStore } from '../store/support.js'
import { until } from '../support/until.js'

const [A, B] = ['a', 'b'].map(text => `/ipfs/${cidOf(0x55, Buffer.from(text))}`) as [string, string]
const HOUR_MS = 3_600_000

/** Records by name, as a network has them. */
class FakeNetwork implements NameNetwork {
  unavailable: string | undefined
  readonly records = new Map<string, Uint8Array>()
  finds = 0
  /** Searches that were told to end. */
  ended = 0
  hang = false

  put(key: NameKey, value: string, over: object = {}): this {
    const fields = { value, sequence: 1n, eolMs: Date.now() + HOUR_MS, ttlMs: HOUR_MS, ...over }
    this.records.set(key.name.text, signRecord(key, fields))
    return this
  }

  async find(multihash: Uint8Array, { signal }: { signal?: AbortSignal }): Promise<Found> {
    this.finds++
    if (this.hang) await new Promise(resolve => signal?.addEventListener('abort', resolve))
    if (signal?.aborted) this.ended++
    if (signal?.aborted) throw new CidfsError('INTERRUPTED', 'interrupted')
    const bytes = this.records.get(keyName(multihash).text)
    if (bytes === undefined)
      return { record: undefined, problems: [{ routing: 'fake', error: 'has no record' }] }
    return { record: await verifyRecord(multihash, bytes), problems: [] }
  }

  async publish(): Promise<[]> {
    return []
  }
}

/** TXT records at `_dnslink.` of names. */
class FakeDns implements TxtResolver {
  readonly name = 'fake dns'
  readonly links = new Map<string, string>()
  failing = false
  asked = 0

  async resolve(name: string) {
    this.asked++
    if (this.failing) throw new CidfsError('UNREACHABLE', 'SERVFAIL')
    const text = this.links.get(name.replace(/^_dnslink\./, ''))
    return { records: text === undefined ? [] : [{ text: `dnslink=${text}`, ttlMs: 0 }] }
  }

  async close(): Promise<void> {}
}

async function world(t: Test, over: Partial<NameResolverOptions> = {}) {
  const [network, dns] = [new FakeNetwork(), new FakeDns()]
  const store = await openStore(t)
  const options = { network, dns, offline: false, deadlineMs: 2_000, patienceMs: 50, ...over }
  const names = new NameResolver(store, options)
  // deadlines alone keep no process running
  const alive = setInterval(() => {}, 1000)
  t.teardown(() => names.stop().then(() => clearInterval(alive)))
  return { network, dns, store, names, options }
}

const dnsName = (text: string): Name => parseName(text)!

t.test('a name is searched once for all who wait, and answered at once while it is fresh', async t => {
  const { names, network } = await world(t)
  const key = generateKey()
  network.put(key, A)
  const all = await Promise.all([1, 2, 3].map(() => names.resolve(key.name)))
  t.match(all, [{ path: A, state: 'fresh' }, { path: A }, { path: A }])
  t.equal(network.finds, 1)
  const again = names.resolve(key.name)
  t.notOk(again instanceof Promise, 'no promise')
  t.match(again, { path: A })
})

t.test('who waits can leave, the others go on', async t => {
  const { names, network } = await world(t)
  const key = generateKey()
  network.hang = true
  const leaving = new AbortController()
  const first = names.resolve(key.name, { signal: leaving.signal })
  const second = names.resolve(key.name)
  leaving.abort()
  await t.rejects(first as Promise<unknown>, { code: 'INTERRUPTED' })
  await t.rejects(second as Promise<unknown>, { code: 'TIMEOUT', message: /within 2000 ms/ })
  t.equal(network.finds, 1)
})

t.test('a search that nobody waits for any more ends, and is no failure', async t => {
  const { names, network } = await world(t)
  const key = generateKey()
  network.hang = true
  const leaving = new AbortController()
  const waiting = [1, 2].map(() => names.resolve(key.name, { signal: leaving.signal }) as Promise<unknown>)
  leaving.abort()
  for (const wait of waiting) await t.rejects(wait, { code: 'INTERRUPTED' })
  t.equal(network.ended, 1, 'it was told')
  network.hang = false
  network.put(key, A)
  t.match(await names.resolve(key.name), { path: A }, 'and begins anew')
  t.equal(network.finds, 2)
})

t.test('what failed fails at once for a while, and says why', async t => {
  const { names, network } = await world(t)
  const key = generateKey()
  await t.rejects(names.resolve(key.name) as Promise<unknown>, {
    code: 'UNREACHABLE',
    message: /fake: has no rec/,
  })
  await t.rejects(names.resolve(key.name) as Promise<unknown>, { code: 'UNREACHABLE' })
  t.equal(network.finds, 1)
  t.match(names.lastError(key.name.text), /has no record/)
})

t.test('a stale name leads where it did while nobody says otherwise', async t => {
  const { names, dns } = await world(t)
  dns.links.set('example.org', A)
  t.match(await names.resolve(dnsName('example.org')), { path: A })
  await until('it is stale', () => names.peek(dnsName('example.org'))?.state === 'stale')
  dns.failing = true
  t.match(await names.resolve(dnsName('example.org')), { path: A, state: 'stale' })
  const { asked } = dns
  t.match(await names.resolve(dnsName('example.org')), { path: A })
  t.equal(dns.asked, asked, 'the server that failed is left alone for a while')
})

t.test('a name that is proven to lead nowhere is forgotten', async t => {
  const { names, dns } = await world(t)
  dns.links.set('example.org', A)
  await names.resolve(dnsName('example.org'))
  await until('it is stale', () => names.peek(dnsName('example.org'))?.state === 'stale')
  dns.links.clear()
  await t.rejects(names.resolve(dnsName('example.org')) as Promise<unknown>, { code: 'NOT_FOUND' })
  t.same(names.cache.names(), [])
})

t.test('an older record never replaces a newer one', async t => {
  const { names, network } = await world(t)
  const key = generateKey()
  network.put(key, B, { sequence: 5n })
  await names.resolve(key.name)
  network.put(key, A, { sequence: 4n })
  await names.refresh(key.name, undefined)
  t.match(await names.resolve(key.name), { path: B })
  network.put(key, A, { sequence: 6n })
  await names.refresh(key.name, undefined)
  t.match(await names.resolve(key.name), { path: A })
})

t.test('a record past its end counts off line only', async t => {
  const { names, network, store, options } = await world(t)
  const key = generateKey()
  network.put(key, A, { eolMs: Date.now() + 2_000, ttlMs: 0 })
  await names.resolve(key.name)
  network.unavailable = 'no network'
  await until('it has ended', () => names.peek(key.name) === undefined)
  await t.rejects(names.resolve(key.name) as Promise<unknown>, { code: 'UNREACHABLE' })
  const offline = new NameResolver(store, { ...options, dns: undefined, offline: true })
  t.match(await offline.resolve(key.name), { path: A, state: 'expired' })
  await offline.stop()
})

t.test('names that lead to names end in a path, or in an error', async t => {
  const { names, network, dns } = await world(t)
  const key = generateKey()
  network.put(key, `${A}/dir`)
  dns.links.set('one.org', '/ipns/two.org/x')
  dns.links.set('two.org', `/ipns/${key.name.text}/y`)
  t.match(await names.resolve(dnsName('one.org')), { path: `${A}/dir/y/x` })
  dns.links.set('circle.org', '/ipns/circle.org/deeper')
  await t.rejects(names.resolve(dnsName('circle.org')) as Promise<unknown>, {
    code: 'MALFORMED_DAG',
    message: /more than 32 names/,
  })
  dns.links.set('long.org', `${A}/${`${'x'.repeat(200)}/`.repeat(15)}`)
  dns.links.set('longer.org', `/ipns/long.org/${`${'y'.repeat(200)}/`.repeat(15)}`)
  await t.rejects(names.resolve(dnsName('longer.org')) as Promise<unknown>, { message: /too long/ })
})

t.test('names in use are refreshed by themselves', async t => {
  const { names, dns } = await world(t)
  dns.links.set('example.org', A)
  names.start()
  await names.resolve(dnsName('example.org'))
  dns.links.set('example.org', B)
  await until('it leads elsewhere', () => names.peek(dnsName('example.org'))?.path === B)
})

t.test('the end of the resolver ends what runs', async t => {
  const { names, network } = await world(t)
  network.hang = true
  const waiting = names.resolve(generateKey().name) as Promise<unknown>
  const failed = t.rejects(waiting, { code: 'INTERRUPTED' })
  await names.stop()
  await failed
})

t.test('the cache is bounded, and survives a restart with all it knows', async t => {
  const store = await openStore(t)
  const cache = new NameCache(store, 8)
  for (let i = 0; i < 20; i++) cache.put(`n${i}.org`, { value: A, confirmedMs: i, ttlMs: 1 })
  t.ok(cache.names().length <= 8, `${cache.names().length} entries`)
  t.ok(cache.names().includes('n19.org'), 'the newest stays')
  const signed = { record: Buffer.from('record'), sequence: 2n ** 64n - 1n, eolMs: 5 }
  cache.put('key', { value: B, confirmedMs: 99, ttlMs: 1, signed })
  t.match(new NameCache(store).get('key'), { value: B, signed: { sequence: 2n ** 64n - 1n, eolMs: 5 } })
})
