import t from 'tap'
import { cidOf } from '../../src/core/cid.js'
import { generateKey } from '../../src/p2p/ipns-key.js'
import { IpnsNetwork, type ValueRouting } from '../../src/p2p/ipns-network.js'
import { signRecord } from '../../src/p2p/ipns-record.js'

const VALUE = `/ipfs/${cidOf(0x55, Buffer.from('content'))}`
const key = generateKey()
const { multihash } = key.name

function record(sequence: bigint, over: object = {}): Uint8Array {
  return signRecord(key, { value: VALUE, sequence, eolMs: Date.now() + 3_600_000, ttlMs: 1000, ...over })
}

/** A place that has these values; a function is waited for. */
function place(name: string, values: (Uint8Array | (() => Promise<Uint8Array>))[]): ValueRouting {
  return {
    name,
    async *get() {
      for (const value of values) yield typeof value === 'function' ? await value() : value
    },
  }
}

const never = (name: string): ValueRouting => place(name, [() => new Promise(() => {})])
const broken = (name: string): ValueRouting =>
  place(name, [() => Promise.reject(new Error('connection refused'))])
const forever = new AbortController().signal

t.test('the newest of all places is found, whoever answers first', async t => {
  const network = new IpnsNetwork([
    place('a', [record(1n)]),
    place('b', [record(3n), record(2n)]),
    place('c', []),
  ])
  const { record: best, problems } = await network.find(multihash, forever)
  t.equal(best?.sequence, 3n)
  t.same(problems, [{ routing: 'c', error: 'has no record' }])
})

t.test('a place that is silent, broken or hostile costs only its own answer', async t => {
  const other = generateKey()
  const forged = signRecord(other, { value: VALUE, sequence: 99n, eolMs: Date.now() + 1e6, ttlMs: 1 })
  const hostile = place('hostile', [forged, Buffer.from('nonsense'), record(98n, { eolMs: Date.now() - 1 })])
  const network = new IpnsNetwork(
    [never('silent'), broken('broken'), hostile, place('good', [record(5n)])],
    20,
  )
  const { record: best, problems } = await network.find(multihash, forever)
  t.equal(best?.sequence, 5n)
  t.match(problems.map(({ routing }) => routing).sort(), ['broken', 'hostile'])
  t.match(problems.find(({ routing }) => routing === 'hostile')?.error, /^sent a bad record: /)
})

t.test('a newer record has a moment after the first one', async t => {
  let release: (bytes: Uint8Array) => void = () => {}
  const later = new Promise<Uint8Array>(resolve => (release = resolve))
  const network = new IpnsNetwork([place('fast', [record(1n)]), place('slow', [() => later])], 5_000)
  const found = network.find(multihash, forever)
  release(record(2n))
  t.equal((await found).record?.sequence, 2n)
})

t.test('an endless stream of records ends', async t => {
  let sent = 0
  const endless: ValueRouting = {
    name: 'endless',
    async *get() {
      for (;;) {
        sent++
        yield Buffer.from('nonsense')
      }
    },
  }
  const { record: best, problems } = await new IpnsNetwork([endless]).find(multihash, forever)
  t.equal(best, undefined)
  t.equal(problems.length, 1)
  t.ok(sent < 100, `${sent} were taken`)
})

t.test('at the deadline what has come is the answer', async t => {
  const deadline = new AbortController()
  // asked for more when the first record has been looked at
  const late = async () => {
    deadline.abort()
    return record(1n)
  }
  const good = place('good', [record(4n), late])
  const network = new IpnsNetwork([good, never('silent')], 60_000)
  const { record: best, problems } = await network.find(multihash, deadline.signal)
  t.equal(best?.sequence, 4n)
  t.same(problems, [{ routing: 'silent', error: 'no answer in time' }])
})

t.test('when somebody has taken a record, others go on unheard', async t => {
  const takes = { ...place('takes', []), put: async () => {} }
  const silent = { ...place('silent', []), put: () => new Promise<void>(() => {}) }
  const outcomes = await new IpnsNetwork([silent, takes], 5).publish(multihash, record(1n), forever)
  t.same(outcomes, [
    { routing: 'silent', error: 'still under way' },
    { routing: 'takes', error: null },
  ])
})

t.test('a record is given to everybody who takes records, once it is verified', async t => {
  const taken: Uint8Array[] = []
  const takes = {
    ...place('takes', []),
    put: async (_: unknown, bytes: Uint8Array) => void taken.push(bytes),
  }
  const refuses = { ...place('refuses', []), put: () => Promise.reject(new Error('HTTP 500')) }
  const network = new IpnsNetwork([place('reads only', []), takes, refuses])
  t.same(await network.publish(multihash, record(1n), forever), [
    { routing: 'takes', error: null },
    { routing: 'refuses', error: 'HTTP 500' },
  ])
  t.equal(taken.length, 1)
  await t.rejects(network.publish(generateKey().name.multihash, record(1n), forever), { code: 'BAD_BLOCK' })
  t.equal(taken.length, 1, 'one that nobody would believe is not sent')
})
