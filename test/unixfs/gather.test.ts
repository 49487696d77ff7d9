import t from 'tap'
import { isPromise } from '../../src/core/maybe-promise.js'
import { gather } from '../../src/unixfs/gather.js'

const bytes = new Uint8Array(1)
const later = () => new Promise<Uint8Array>(resolve => setImmediate(resolve, bytes))

t.test('local blocks need no promise, also those asked for on the way', async t => {
  const work = [5]
  const seen: number[] = []
  const result = gather(
    work,
    () => bytes,
    n => {
      seen.push(n)
      if (n > 0) work.push(n - 1)
    },
  )
  t.notOk(isPromise(result))
  t.same(seen, [5, 4, 3, 2, 1, 0])
})

t.test('no more gets under way than the limit, and all work is done', async t => {
  const work = Array.from({ length: 50 }, (_, i) => i)
  let underWay = 0
  let most = 0
  let taken = 0
  await gather(
    work,
    async () => {
      most = Math.max(most, ++underWay)
      await later()
      underWay--
      return bytes
    },
    n => {
      taken++
      if (n === 3) work.push(1000, 1001)
    },
    { limit: 7 },
  )
  t.equal(most, 7)
  t.equal(taken, 52)
})

t.test('the first failure ends it, of get or take, at once or later', async t => {
  const boom = new Error('boom')
  const fail = () => {
    throw boom
  }
  t.throws(() => gather([1], fail, () => {}), boom)
  t.throws(() => gather([1], () => bytes, fail), boom)
  await t.rejects(
    Promise.resolve(
      gather(
        [1, 2, 3],
        () => Promise.reject(boom),
        () => {},
      ),
    ),
    boom,
  )
  await t.rejects(Promise.resolve(gather([1, 2], later, fail)), boom)
  let asked = 0
  const get = () => {
    asked++
    return asked === 2 ? Promise.reject(boom) : later()
  }
  await t.rejects(
    Promise.resolve(
      gather(
        Array.from({ length: 100 }, () => 0),
        get,
        () => {},
        { limit: 4 },
      ),
    ),
    boom,
  )
  t.ok(asked <= 8, 'asks for no more after a failure')
})

t.test('a long gathering of local blocks lets the event loop turn', async t => {
  let turns = 0
  const timer = setInterval(() => turns++, 1)
  const work = Array.from({ length: 40 }, (_, i) => i)
  const busy = () => {
    const end = performance.now() + 1
    while (performance.now() < end);
  }
  const result = gather(work, () => bytes, busy, { sliceMs: 2 })
  t.ok(isPromise(result))
  await result
  clearInterval(timer)
  t.ok(turns > 3, `${turns} turns`)
})
