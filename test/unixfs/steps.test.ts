import t from 'tap'
import { isPromise } from '../../src/core/maybe-promise.js'
import { runNow, runSliced, type Steps } from '../../src/unixfs/steps.js'

function* busy(milliseconds: number, fail = false): Steps<string> {
  for (let i = 0; i < milliseconds; i++) {
    const end = performance.now() + 1
    while (performance.now() < end);
    yield
  }
  if (fail) throw new Error('boom')
  return 'done'
}

t.test('a short computation is done at once', async t => {
  t.equal(runSliced(busy(0)), 'done')
  t.throws(() => runSliced(busy(0, true)), /boom/)
})

t.test('a long one lets the event loop turn, and its error is a rejection', async t => {
  let turns = 0
  const timer = setInterval(() => turns++, 1)
  const result = runSliced(busy(40))
  t.ok(isPromise(result))
  t.equal(await result, 'done')
  clearInterval(timer)
  t.ok(turns >= 3, `${turns} turns`)
  await t.rejects(Promise.resolve(runSliced(busy(10, true))), /boom/)
})

t.test('in a worker it runs through', async t => {
  t.equal(runNow(busy(10)), 'done')
  t.throws(() => runNow(busy(1, true)), /boom/)
})
