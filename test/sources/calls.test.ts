import t from 'tap'
import { CidfsError } from '../../src/core/errors.js'
import { type CallMessage, Calls, type Handlers, isCallMessage } from '../../src/sources/calls.js'
import { until } from '../support/until.js'

interface Remote {
  double(args: { n: number }): number
  fail(args: null): never
  wait(args: null): string
}

interface Local {
  name(args: null): string
}

/** Two sides joined by cloned messages, as between threads. */
function pair(served: Handlers<Remote>, local: Handlers<Local> = {}) {
  const sent: CallMessage[] = []
  const near: Calls<Remote, Local> = new Calls(message => {
    sent.push(message)
    setImmediate(() => far.receive(structuredClone(message)))
  }, local)
  const far: Calls<Local, Remote> = new Calls(
    message => void setImmediate(() => near.receive(structuredClone(message))),
    served,
  )
  return { near, far, sent }
}

t.test('a call is answered with its result, in both directions at a time', async t => {
  const { near, far } = pair({ double: ({ n }) => 2 * n }, { name: async () => 'near' })
  const answers = await Promise.all([
    near.call('double', { n: 1 }),
    near.call('double', { n: 2 }),
    far.call('name', null),
  ])
  t.same(answers, [2, 4, 'near'])
  t.equal(near.pending, 0)
})

t.test('an error keeps its code and its message; one that is not ours is IO', async t => {
  const { near } = pair({
    fail: () => {
      throw new CidfsError('NO_SPACE', 'full')
    },
    wait: () => Promise.reject(new TypeError('odd')),
  })
  await t.rejects(near.call('fail', null), { code: 'NO_SPACE', message: 'full' })
  await t.rejects(near.call('wait', null), { code: 'IO', message: 'odd' })
  await t.rejects(near.call('double', { n: 1 }), { code: 'NOT_SUPPORTED', message: /double/ })
})

t.test('at its deadline and when it is aborted a call ends, and the other side is told', async t => {
  const told: string[] = []
  const { near } = pair({
    wait: (_, signal) => new Promise(() => signal.addEventListener('abort', () => told.push('abandoned'))),
  })
  await t.rejects(near.call('wait', null, { deadlineMs: 20 }), { code: 'TIMEOUT' })
  const controller = new AbortController()
  const aborted = near.call('wait', null, { signal: controller.signal })
  setImmediate(() => controller.abort())
  await t.rejects(aborted, { code: 'INTERRUPTED' })
  await until('both are told', () => told.length === 2)
  t.equal(near.pending, 0)
  await t.rejects(near.call('wait', null, { signal: controller.signal }), { code: 'INTERRUPTED' })
  t.equal(told.length, 2, 'what was aborted before is not even asked')
})

t.test('when the other side is gone every call ends, and what ran for it is told', async t => {
  const told: string[] = []
  const { near, far } = pair({
    wait: (_, signal) => new Promise(() => signal.addEventListener('abort', () => told.push('over'))),
  })
  const failed = t.rejects(near.call('wait', null), { code: 'UNREACHABLE', message: 'gone' })
  await new Promise(resolve => setImmediate(() => setImmediate(resolve)))
  near.end(new CidfsError('UNREACHABLE', 'gone'))
  far.end(new CidfsError('UNREACHABLE', 'gone'))
  await failed
  t.same(told, ['over'])
})

t.test('an answer that comes too late, or twice, is passed over', async t => {
  const { near, sent } = pair({ double: ({ n }) => n })
  await near.call('double', { n: 1 })
  near.receive({ op: 'result', id: 1, value: 5 })
  near.receive({ op: 'refused', id: 77, code: 'IO', message: '' })
  t.same(
    sent.map(({ op }) => op),
    ['call'],
  )
  t.ok(isCallMessage(sent[0]!))
  t.notOk(isCallMessage({ op: 'fetch' }))
})
