/** What is handed to a back-end, in which order, and what survives its failures. */
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type CID, CODEC_RAW, cidOf } from '../../src/core/cid.js'
import { CidfsError } from '../../src/core/errors.js'
import { BackendQueue } from '../../src/staging/backend-queue.js'
import type { Store } from '../../src/store/store.js'
import { openStore, QUIET } from '../store/support.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'
import { bytes, content, FakeBackend, ROOT, Stage } from './support.js'

const [A, B, C] = ['a', 'b', 'c'].map(text => cidOf(CODEC_RAW, Buffer.from(text))) as [CID, CID, CID]

class Fixture {
  readonly backend = new FakeBackend()
  private constructor(
    readonly store: Store,
    backend?: FakeBackend,
  ) {
    if (backend !== undefined) this.backend = backend
    this.queue = new BackendQueue(store, this.backend)
  }

  readonly queue: BackendQueue

  static async open(t: Test, dir?: string, backend?: FakeBackend): Promise<Fixture> {
    const fixture = new Fixture(await openStore(t, QUIET, dir), backend)
    t.teardown(() => fixture.queue.stop())
    fixture.queue.start()
    return fixture
  }

  want(ino: number, cid: CID | undefined): void {
    this.store.transaction(() => this.queue.want(ino, `n${ino}`, cid))
  }

  replace(from: number, to: number): void {
    this.store.transaction(() => this.queue.replace(from, to, `n${from}`))
  }

  async done(): Promise<void> {
    await until('nothing is pending', () => this.queue.pendingCount === 0)
  }

  get pinned(): string[] {
    return [...this.backend.pinned].sort()
  }
}

function strings(...cids: CID[]): string[] {
  return cids.map(String).sort()
}

t.test('what is wanted is pinned under the name of its entry, and unpinned when it is not', async t => {
  const fixture = await Fixture.open(t)
  fixture.want(20, A)
  t.ok(fixture.queue.state(20).pending)
  await fixture.done()
  t.same(fixture.backend.calls, [`pin n20 ${A}`])
  t.notOk(fixture.queue.state(20).pending)
  fixture.want(20, undefined)
  await fixture.done()
  t.same(fixture.pinned, [])
})

t.test('new content is pinned before the old is unpinned', async t => {
  const fixture = await Fixture.open(t)
  fixture.want(20, A)
  await fixture.done()
  fixture.want(20, B)
  await fixture.done()
  t.same(fixture.backend.calls.slice(1), [`pin n20 ${B}`, `unpin ${A}`])
})

t.test('the same content again costs nothing', async t => {
  const fixture = await Fixture.open(t)
  fixture.want(20, A)
  await fixture.done()
  fixture.want(20, A)
  t.equal(fixture.queue.pendingCount, 0)
})

t.test('a failure keeps the entry queued, tells the error, and comes again', async t => {
  const fixture = await Fixture.open(t)
  fixture.want(20, A)
  await fixture.done()
  fixture.backend.broken = 'connection refused'
  fixture.want(20, B)
  await until('it has failed', () => fixture.queue.state(20).tries === 1)
  t.same(fixture.queue.state(20), { pending: true, tries: 1, error: 'fake: connection refused' })
  t.same(fixture.pinned, strings(A), 'the old content stays')
  fixture.backend.broken = undefined
  await fixture.done()
  t.same(fixture.pinned, strings(B))
  t.same(fixture.queue.state(20), { pending: false, tries: 0, error: undefined })
})

t.test('an unpin that fails is not forgotten', async t => {
  const fixture = await Fixture.open(t)
  fixture.want(20, A)
  await fixture.done()
  fixture.backend.broken = 'busy'
  fixture.want(20, undefined)
  await until('it has failed', () => fixture.queue.state(20).tries === 1)
  fixture.backend.broken = undefined
  await fixture.done()
  t.same(fixture.pinned, [])
})

t.test('content that another entry needs stays pinned', async t => {
  const fixture = await Fixture.open(t)
  fixture.want(20, A)
  fixture.want(21, A)
  await fixture.done()
  fixture.want(20, undefined)
  await fixture.done()
  t.same(fixture.pinned, strings(A))
  fixture.want(21, undefined)
  await fixture.done()
  t.same(fixture.pinned, [])
})

t.test('two entries with the same content that go at once leave no pin', async t => {
  const fixture = await Fixture.open(t)
  for (const ino of [20, 21, 22]) fixture.want(ino, A)
  await fixture.done()
  for (const ino of [20, 21, 22]) fixture.want(ino, undefined)
  await fixture.done()
  t.same(fixture.pinned, [])
})

t.test('content whose pin somebody else is about to replace stays until that is done', async t => {
  const fixture = await Fixture.open(t)
  fixture.want(20, A)
  fixture.want(21, A)
  await fixture.done()
  fixture.backend.broken = 'no'
  fixture.want(21, B)
  await until('it has failed', () => fixture.queue.state(21).tries > 0)
  fixture.backend.broken = undefined
  fixture.want(20, undefined)
  await until('the other is done', () => !fixture.queue.state(20).pending)
  t.ok(fixture.backend.pinned.has(`${A}`), 'entry 21 has nothing else yet')
  await fixture.done()
  t.same(fixture.pinned, strings(B))
})

t.test('what is wanted anew while it is being unpinned is pinned in the end', async t => {
  const fixture = await Fixture.open(t)
  fixture.want(20, A)
  await fixture.done()
  let release = (): void => {}
  fixture.backend.gate = new Promise(resolve => (release = resolve))
  fixture.want(20, undefined)
  await until('the unpin is under way', () => fixture.backend.calls.includes(`unpin ${A}`))
  fixture.want(21, A)
  await new Promise(resolve => setTimeout(resolve, 20))
  t.equal(fixture.backend.calls.length, 2, 'the pin waits for the unpin')
  fixture.backend.gate = undefined
  release()
  await fixture.done()
  t.same(fixture.pinned, strings(A))
})

t.test('what changes while it is handed over ends as the last wish says', async t => {
  const fixture = await Fixture.open(t)
  let release = (): void => {}
  fixture.backend.gate = new Promise(resolve => (release = resolve))
  fixture.want(20, A)
  await until('it is under way', () => fixture.backend.active === 1)
  fixture.want(20, B)
  fixture.want(20, C)
  fixture.backend.gate = undefined
  release()
  await fixture.done()
  t.same(fixture.pinned, strings(C))
})

t.test('a pin whose answer got lost is given back when it is not wanted any more', async t => {
  const fixture = await Fixture.open(t)
  const { backend } = fixture
  const publish = backend.publish.bind(backend)
  backend.publish = async (...args) => {
    await publish(...args)
    throw new Error('connection reset')
  }
  fixture.want(20, A)
  await until('it has failed', () => fixture.queue.state(20).tries === 1)
  t.same(fixture.pinned, strings(A))
  backend.publish = publish
  fixture.want(20, undefined)
  await fixture.done()
  t.same(fixture.pinned, [])
})

t.test('an entry that replaces another keeps what that has until it has its own', async t => {
  const fixture = await Fixture.open(t)
  fixture.want(20, A)
  await fixture.done()
  fixture.replace(20, 21)
  t.equal(fixture.queue.pendingCount, 0)
  fixture.want(20, undefined)
  await fixture.done()
  t.same(fixture.pinned, strings(A))
  fixture.want(21, B)
  await fixture.done()
  t.same(fixture.backend.calls.slice(-2), [`pin n21 ${B}`, `unpin ${A}`])
})

t.test('a restart takes up what was left', async t => {
  const dir = join(await tempDir(t), 'state')
  const first = await Fixture.open(t, dir)
  first.want(19, A)
  await first.done()
  first.backend.broken = 'down'
  first.want(19, B)
  first.want(20, C)
  await until('both have failed', () => [19, 20].every(ino => first.queue.state(ino).tries > 0))
  await first.queue.stop()
  await first.store.close()
  const backend = new FakeBackend()
  backend.pinned.add(`${A}`)
  const second = await Fixture.open(t, dir, backend)
  t.match(second.queue.state(19), { pending: true, error: 'fake: down' })
  await second.done()
  t.same(second.pinned, strings(B, C))
})

t.test('stopping ends what is under way, which is no failure', async t => {
  const fixture = await Fixture.open(t)
  fixture.backend.gate = new Promise(() => {})
  fixture.want(20, A)
  await until('it is under way', () => fixture.backend.active === 1)
  await fixture.queue.stop()
  t.match(fixture.queue.state(20), { pending: true, tries: 0, error: undefined })
})

t.test('a long upload does not keep the thread busy', async t => {
  const fixture = await Fixture.open(t)
  let release = (): void => {}
  fixture.backend.gate = new Promise(resolve => (release = resolve))
  fixture.want(20, A)
  await until('it is under way', () => fixture.backend.active === 1)
  const { setTimeout: original } = globalThis
  let timers = 0
  globalThis.setTimeout = ((...args: Parameters<typeof original>) => {
    timers++
    return original(...args)
  }) as typeof original
  t.teardown(() => (globalThis.setTimeout = original))
  await new Promise(resolve => original(resolve, 100))
  t.equal(timers, 0, 'it waits for the answer and for no time')
  release()
})

t.test('a transaction that fails wants nothing', async t => {
  const fixture = await Fixture.open(t)
  t.throws(() =>
    fixture.store.transaction(() => {
      fixture.queue.want(20, 'x', A)
      throw new Error('no')
    }),
  )
  await fixture.done()
  t.same(fixture.pinned, [])
})

t.test('staged entries: published, renamed over, moved and removed', async t => {
  const backend = new FakeBackend()
  const stage = await Stage.open(t, { backend })
  const dir = stage.mkdir('dir')
  const inner = await stage.write('inner', content(10), dir)
  const old = await stage.cid(await stage.write('file', 'old'))
  await stage.cid(inner)
  t.ok(backend.pinned.has(`${await stage.cid(dir)}`))
  const temporary = await stage.write('tmp', 'new')
  stage.staging.rename(ROOT, bytes('tmp'), ROOT, bytes('file'), true)
  const fresh = await stage.cid(temporary)
  const calls = backend.calls.map(call => call.split(' ').at(-1))
  t.ok(calls.indexOf(`${fresh}`) < calls.lastIndexOf(`${old}`), 'the new content was pinned first')
  stage.staging.unlink(ROOT, bytes('file'))
  stage.staging.rename(dir, bytes('inner'), ROOT, bytes('outer'), true)
  const both = [`${await stage.cid(inner)}`, `${await stage.cid(dir)}`].sort()
  await until('the rest is unpinned', () => [...backend.pinned].sort().join() === both.join())
})

t.test('a nested file is pinned only when its top-level directory is handed over', async t => {
  const backend = new FakeBackend()
  backend.broken = 'down'
  const stage = await Stage.open(t, { backend })
  const dir = stage.mkdir('dir')
  const inner = await stage.write('inner', 'x', dir)
  await until('it has failed', () => stage.state(inner) === 'failed')
  t.match(stage.staging.publicationOf(stage.node(inner)), { error: 'fake: down' })
  backend.broken = undefined
  await stage.cid(inner)
  t.ok(backend.pinned.has(`${await stage.cid(dir)}`))
})

t.test('a failure that cannot be written down is tried again all the same', async t => {
  const fixture = await Fixture.open(t)
  const { store, backend } = fixture
  let release = () => {}
  backend.gate = new Promise<void>(resolve => {
    release = resolve
  })
  fixture.want(20, A)
  await until('it is at work', () => backend.active > 0)
  const transaction = store.transaction.bind(store)
  let refused = 0
  store.transaction = () => {
    refused++
    throw new CidfsError('NO_SPACE', 'no space')
  }
  release()
  await until('it could not be written', () => refused >= 2)
  store.transaction = transaction
  await fixture.done()
  t.same(fixture.pinned, strings(A))
})
