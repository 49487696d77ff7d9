import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { deadline } from '../../src/core/deadline.js'
import { until } from '../support/until.js'

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

t.test('it fires after its time, also when garbage was collected meanwhile', async t => {
  let fired = 0
  const parent = new AbortController()
  for (let i = 0; i < 50; i++) {
    deadline(50, parent.signal).addEventListener('abort', ({ target }) => {
      t.equal((target as AbortSignal).reason.name, 'TimeoutError')
      fired++
    })
  }
  collectGarbage()
  await sleep(0)
  collectGarbage()
  await until('all have fired', () => fired === 50)
})

t.test('it fires when one of the others does, with its reason, once', async t => {
  const [a, b] = [new AbortController(), new AbortController()]
  const signal = deadline(60_000, a.signal, undefined, b.signal)
  let fired = 0
  signal.addEventListener('abort', () => fired++)
  t.notOk(signal.aborted)
  b.abort('enough')
  a.abort('too late')
  t.equal(signal.reason, 'enough')
  t.equal(fired, 1)
})

t.test('what was aborted before is aborted from the beginning', async t => {
  t.equal(deadline(60_000, new AbortController().signal, AbortSignal.abort('gone')).reason, 'gone')
})
