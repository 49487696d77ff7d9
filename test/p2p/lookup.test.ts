import t from 'tap'
import { Lookup, type Search } from '../../src/p2p/lookup.js'
import { until } from '../support/until.js'

const options = { max: 10, timeoutMs: 5_000, keyOf: (item: string) => item }
const never = () => new Promise<never>(() => {})

/** Finds these, then ends. */
function finds(...items: string[]): Search<string> {
  return async function* () {
    yield* items
  }
}

/** Finds these, then goes on until it is told to stop. */
function searches(stopped: () => void, ...items: string[]): Search<string> {
  return async function* (signal) {
    yield* items
    await new Promise<void>(resolve => signal.addEventListener('abort', () => resolve()))
    stopped()
  }
}

async function all(items: AsyncIterable<string>): Promise<string[]> {
  const found: string[] = []
  for await (const item of items) found.push(item)
  return found
}

const patient = () => new AbortController().signal

t.test('what any searcher finds is shown once to every follower, from the beginning', async t => {
  const lookup = new Lookup([finds('a', 'b'), finds('b', 'c')], options)
  const found = await Promise.all([all(lookup.follow(patient())), all(lookup.follow(patient()))])
  for (const items of found) t.same(items.sort(), ['a', 'b', 'c'])
  t.same((await all(lookup.follow(patient()))).sort(), ['a', 'b', 'c'], 'also after the end')
})

t.test('it begins with the first follower, and only then', async t => {
  let begun = 0
  const lookup = new Lookup(
    [
      async function* () {
        begun++
        yield 'x'
      },
    ],
    options,
  )
  await new Promise(resolve => setImmediate(resolve))
  t.equal(begun, 0)
  await Promise.all([all(lookup.follow(patient())), all(lookup.follow(patient()))])
  t.equal(begun, 1)
})

t.test('the searchers stop when the last follower has left, not before', async t => {
  let stopped = 0
  let complete: boolean | undefined
  const lookup = new Lookup([searches(() => stopped++, 'a')], options)
  lookup.onEnd = value => {
    complete = value
  }
  const [first, second] = [new AbortController(), new AbortController()]
  const followers = [all(lookup.follow(first.signal)), all(lookup.follow(second.signal))]
  await until('something is found', () => lookup.found.length === 1)
  first.abort()
  t.same(await followers[0], ['a'])
  t.equal(stopped, 0)
  second.abort()
  await followers[1]
  await until('the searcher is told', () => stopped === 1)
  t.equal(complete, false)
})

t.test('a follower that breaks off leaves as well', async t => {
  let stopped = 0
  const lookup = new Lookup([searches(() => stopped++, 'a')], options)
  for await (const item of lookup.follow(patient())) {
    t.equal(item, 'a')
    break
  }
  await until('the searcher is told', () => stopped === 1)
})

t.test('it ends when enough is known, and after its time', async t => {
  let stopped = 0
  const enough = new Lookup([searches(() => stopped++, 'a', 'b', 'c')], { ...options, max: 2 })
  t.same(await all(enough.follow(patient())), ['a', 'b'])
  const late = new Lookup([never as unknown as Search<string>, searches(() => stopped++)], {
    ...options,
    timeoutMs: 20,
  })
  t.same(await all(late.follow(patient())), [])
})

t.test('a searcher that fails costs only itself', async t => {
  const errors: unknown[] = []
  let complete: boolean | undefined
  const failing: Search<string> = async function* () {
    yield 'a'
    throw new Error('broken')
  }
  const lookup = new Lookup([failing, finds('b')], options)
  lookup.onError = (index, err) => errors.push([index, (err as Error).message])
  lookup.onEnd = value => {
    complete = value
  }
  t.same((await all(lookup.follow(patient()))).sort(), ['a', 'b'])
  t.same(errors, [[0, 'broken']])
  t.equal(complete, false)
})
