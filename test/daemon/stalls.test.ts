import t from 'tap'
import { Stalls } from '../../src/daemon/stalls.js'
import { until } from '../support/until.js'

function block(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end; );
}

t.test('a thread that is kept busy is late by about as long as it was busy', async t => {
  const stalls = new Stalls()
  t.same(stalls.report(), { p50Ms: 0, p99Ms: 0, maxMs: 0 })
  stalls.start()
  await until('it was late', () => {
    block(300)
    return stalls.report().maxMs > 100
  })
  stalls.stop()
  const { p50Ms, p99Ms, maxMs } = stalls.report()
  t.ok(p50Ms <= p99Ms && p99Ms <= maxMs)
})
