import t from 'tap'
import { Health } from '../../src/sources/health.js'
import { SourceError } from '../../src/sources/source.js'

const refused = new SourceError('unreachable', 'connection refused')
const broken = new SourceError('failed', 'HTTP 500')
const absent = new SourceError('absent', 'not found')

t.test('a refused connection starts a pause at once, an error status only when it repeats', async t => {
  const first = new Health(10)
  first.failed(refused, 0)
  t.equal(first.paused, true)
  t.equal(first.state, 'failed')
  const second = new Health(10)
  second.failed(broken, 0)
  second.failed(broken, 0)
  t.equal(second.paused, false)
  second.failed(broken, 0)
  t.equal(second.paused, true)
})

t.test('pauses double up to a minute and only a block ends the series', async t => {
  const health = new Health(10)
  let now = 0
  for (const expectedMs of [1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]) {
    health.failed(refused, now)
    t.equal(health.probeDue(now + expectedMs - 1), false)
    t.equal(health.probeDue(now + expectedMs), true, `after ${expectedMs} ms`)
    now += expectedMs
    health.recovered()
  }
  health.delivered(5, 100, now)
  t.equal(health.state, 'ok')
  health.failed(refused, now)
  t.equal(health.probeDue(now + 1000), true)
  t.equal(health.state, 'backing-off')
})

t.test('after a recovery by probe one failure of any kind is enough', async t => {
  const health = new Health(10)
  health.failed(refused, 0)
  health.recovered()
  t.equal(health.paused, false)
  health.failed(broken, 1)
  t.equal(health.paused, true)
})

t.test('a clear no is not a failure, and costs rank', async t => {
  const health = new Health(10)
  const before = health.score
  for (let i = 0; i < 10; i++) health.failed(absent, i)
  t.equal(health.paused, false)
  t.equal(health.errors, 0)
  t.ok(health.score > before * 2)
})

t.test('silence counts only against a source that answered nothing meanwhile', async t => {
  const health = new Health(10)
  health.delivered(5, 100, 50)
  for (let i = 0; i < 5; i++) health.silent(broken, 40, 60)
  t.equal(health.errors, 0)
  for (let i = 0; i < 5; i++) health.silent(broken, 55, 60)
  t.equal(health.paused, true)
})

t.test('the hedge delay follows the slowest twentieth, within bounds', async t => {
  const health = new Health(10)
  t.equal(health.hedgeMs, 300)
  for (let i = 0; i < 64; i++) health.delivered(1, 1, i)
  t.equal(health.hedgeMs, 50)
  for (let i = 0; i < 64; i++) health.delivered(200, 1, i)
  t.equal(health.hedgeMs, 200)
  for (let i = 0; i < 64; i++) health.delivered(5000, 1, i)
  t.equal(health.hedgeMs, 1000)
  t.equal(health.latencyMsP50, 5000)
})

t.test('the rate decays when nothing comes', async t => {
  const health = new Health(10)
  for (let now = 0; now < 20_000; now += 100) health.delivered(1, 100_000, now)
  const rate = health.rateBytesPerSecond(20_000)
  t.ok(Math.abs(rate - 1_000_000) < 100_000, `${rate} B/s`)
  t.ok(health.rateBytesPerSecond(50_000) < 10_000)
})

t.test('being outrun raises the expected latency, never lowers it', async t => {
  const health = new Health(100)
  health.outrun(50)
  t.equal(health.latencyMs, 100)
  health.outrun(1100)
  t.equal(health.latencyMs, 250)
})
