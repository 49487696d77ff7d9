import { Key } from 'interface-datastore'
import t from 'tap'
import { BoundedDatastore } from '../../src/p2p/bounded-datastore.js'

const key = (name: string | number) => new Key(`/x/${name}`)

async function all<T>(items: Iterable<T> | AsyncIterable<T>): Promise<T[]> {
  const found: T[] = []
  for await (const item of items) found.push(item)
  return found
}

t.test('what was put is there until it is deleted', async t => {
  const store = new BoundedDatastore()
  store.put(key(1), Uint8Array.of(1))
  t.same(store.get(key(1)), Uint8Array.of(1))
  t.ok(store.has(key(1)))
  store.delete(key(1))
  t.notOk(store.has(key(1)))
  t.throws(() => store.get(key(1)), { name: 'NotFoundError' })
})

t.test('no more entries and bytes than its bounds, the oldest go first', async t => {
  const store = new BoundedDatastore({ maxEntries: 10, maxBytes: 100_000 })
  for (let i = 0; i < 100; i++) store.put(key(i), Uint8Array.of(i))
  t.equal(store.size, 10)
  t.ok(store.has(key(99)))
  t.notOk(store.has(key(0)))
  for (let i = 0; i < 10; i++) store.put(key(`big${i}`), new Uint8Array(30_000))
  t.equal(store.size, 3)
})

t.test('an entry above any sensible size is not kept', async t => {
  const store = new BoundedDatastore()
  store.put(key(1), new Uint8Array(10_000_000))
  t.equal(store.size, 0)
})

t.test('queries filter, order and cut', async t => {
  const store = new BoundedDatastore()
  for (let i = 0; i < 5; i++) store.put(key(i), Uint8Array.of(i))
  store.put(new Key('/y/0'), Uint8Array.of(9))
  const even = await all(
    store.query({
      prefix: '/x',
      filters: [({ value }) => value[0]! % 2 === 0],
      orders: [(a, b) => (a.value[0]! > b.value[0]! ? -1 : 1)],
      limit: 2,
    }),
  )
  t.same(
    even.map(({ value }) => value[0]),
    [4, 2],
  )
  t.same((await all(store.queryKeys({ prefix: '/x', offset: 4 }))).length, 1)
})

t.test('many at a time, and batches', async t => {
  const store = new BoundedDatastore()
  const pairs = [1, 2].map(i => ({ key: key(i), value: Uint8Array.of(i) }))
  t.equal((await all(store.putMany(pairs))).length, 2)
  t.same((await all(store.getMany([key(2)])))[0]?.value, Uint8Array.of(2))
  const batch = store.batch()
  batch.put(key(3), Uint8Array.of(3))
  batch.delete(key(1))
  t.notOk(store.has(key(3)))
  await batch.commit()
  t.ok(store.has(key(3)))
  t.notOk(store.has(key(1)))
  t.equal((await all(store.deleteMany([key(2), key(3)]))).length, 2)
  t.equal(store.size, 0)
})
