/** When what is dirty has its turn. */
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { DirtyQueue, type Job } from '../../src/staging/dirty-queue.js'
import { Namespace } from '../../src/staging/namespace.js'
import type { NodeType, StagingNode } from '../../src/staging/node.js'
import { openStore, QUIET } from '../store/support.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'
import { bytes, OWNER, ROOT } from './support.js'

class Fixture {
  private constructor(
    readonly names: Namespace,
    readonly queue: DirtyQueue,
    readonly close: () => Promise<void>,
  ) {}

  static async open(t: Test, settleMs = 0, dir?: string): Promise<Fixture> {
    const store = await openStore(t, QUIET, dir)
    const names = new Namespace(store, OWNER)
    names.hold(ROOT)
    const queue = new DirtyQueue(store, names, settleMs)
    queue.load()
    return new Fixture(names, queue, () => store.close())
  }

  /** A new node, dirty, as when its writer has closed it. */
  make(name: string, type: NodeType = 'file', parent = ROOT): StagingNode {
    return this.names.transaction(() => {
      const node = this.names.create(parent, bytes(name), type, 0o644, OWNER)
      this.queue.mark(node)
      this.queue.settle(node.ino)
      return node
    })
  }

  /** As a publisher that has succeeded. */
  finish(node: StagingNode): void {
    this.names.transaction(() => {
      node.dirty = false
      node.cid = new Uint8Array([1])
      this.names.put(node)
      this.queue.clean(node.ino)
    })
  }

  /** Names of all whose time has come, in order. */
  due(): string[] {
    const jobs: Job[] = []
    for (let job = this.queue.take(); job !== undefined; job = this.queue.take()) jobs.push(job)
    return jobs.map(job => Buffer.from(this.names.get(job.ino).name).toString())
  }

  queued(): string[] {
    return [...this.queue.jobs()].map(job => this.names.pathOf(this.names.get(job.ino))).sort()
  }
}

t.test('a file has its turn a settle delay after its last close, not before', async t => {
  const { queue, ...fixture } = await Fixture.open(t, 60)
  const file = fixture.names.create(ROOT, bytes('file'), 'file', 0o644, OWNER)
  queue.mark(file)
  t.equal(queue.nextDelayMs(), undefined, 'while it is open it waits for no time')
  const closed = Date.now()
  queue.settle(file.ino)
  t.equal(queue.take(), undefined)
  t.ok(queue.nextDelayMs()! > 0 && queue.nextDelayMs()! <= 60)
  const job = await until('the delay is over', () => queue.take())
  t.equal(job.ino, file.ino)
  t.ok(Date.now() - closed >= 60)
  t.equal(queue.take(), undefined, 'it is given out once')
})

t.test('opening for writing again takes it out of the line until the next close', async t => {
  const fixture = await Fixture.open(t)
  const file = fixture.make('file')
  fixture.queue.suspend(file.ino)
  t.same(fixture.due(), [])
  t.equal(fixture.queue.nextDelayMs(), undefined)
  fixture.queue.settle(file.ino)
  t.same(fixture.due(), ['file'])
})

t.test('what is dirty makes every directory above it dirty, and the root never queued', async t => {
  const fixture = await Fixture.open(t)
  const a = fixture.make('a', 'directory')
  const b = fixture.make('b', 'directory', a.ino)
  fixture.make('file', 'file', b.ino)
  t.same(fixture.queued(), ['a', 'a/b', 'a/b/file'])
  for (const name of ['file', 'b', 'a']) {
    t.same(fixture.due(), [name], `${name} alone is ready`)
    const node = [a, b].find(node => Buffer.from(node.name).toString() === name)
    fixture.finish(node ?? fixture.names.existing(b.ino, bytes('file')))
  }
  t.same(fixture.queued(), [])
})

t.test('a directory has one turn for all of its files', async t => {
  const fixture = await Fixture.open(t)
  const dir = fixture.make('dir', 'directory')
  const files = Array.from({ length: 50 }, (_, i) => fixture.make(`f${i}`, 'file', dir.ino))
  t.equal(fixture.due().length, 50)
  for (const file of files.slice(1)) fixture.finish(file)
  t.same(fixture.due(), [], 'one file is still dirty')
  fixture.finish(files[0]!)
  t.same(fixture.due(), ['dir'])
})

t.test('a change below a clean directory makes it dirty again, under a new generation', async t => {
  const fixture = await Fixture.open(t)
  const dir = fixture.make('dir', 'directory')
  const file = fixture.make('file', 'file', dir.ino)
  fixture.due()
  fixture.finish(file)
  fixture.due()
  fixture.finish(dir)
  const { generation } = fixture.names.get(dir.ino)
  fixture.queue.mark(file)
  t.ok(fixture.names.get(dir.ino).dirty)
  t.ok(fixture.names.get(dir.ino).generation > generation)
  t.same(fixture.queued(), ['dir', 'dir/file'])
})

t.test('counts of dirty children follow a move, also of a directory', async t => {
  const fixture = await Fixture.open(t)
  const [from, to] = [fixture.make('from', 'directory'), fixture.make('to', 'directory')]
  const sub = fixture.make('sub', 'directory', from.ino)
  const file = fixture.make('file', 'file', sub.ino)
  fixture.names.transaction(() => {
    fixture.names.rename(sub, to.ino, bytes('sub'), undefined)
    fixture.queue.moved(sub)
    fixture.queue.markDirectory(from.ino)
    fixture.queue.markDirectory(to.ino)
  })
  t.same(fixture.due().sort(), ['file', 'from'], 'the old parent waits for nothing any more')
  fixture.finish(file)
  t.same(fixture.due(), ['sub'])
  fixture.finish(sub)
  t.same(fixture.due(), ['to'])
})

t.test('a removed child holds its directory up no longer', async t => {
  const fixture = await Fixture.open(t)
  const dir = fixture.make('dir', 'directory')
  const file = fixture.make('file', 'file', dir.ino)
  fixture.queue.suspend(file.ino)
  t.same(fixture.due(), [])
  fixture.names.transaction(() => {
    fixture.names.unlink(file)
    fixture.queue.clean(file.ino)
    fixture.queue.markDirectory(dir.ino)
  })
  t.same(fixture.due(), ['dir'])
})

t.test('what fails comes again later and later, with its error, and the others go on', async t => {
  const fixture = await Fixture.open(t)
  const bad = fixture.make('bad')
  t.same(fixture.due(), ['bad'])
  let last = 0
  for (let tries = 1; tries <= 12; tries++) {
    fixture.queue.failed(bad.ino, `error ${tries}`)
    t.match(fixture.queue.get(bad.ino), { tries, error: `error ${tries}`, running: false })
    const delayMs = fixture.queue.nextDelayMs()!
    t.ok(delayMs > last * 1.5 || (tries > 9 && delayMs > 299_000), `${tries}: ${delayMs} ms`)
    last = delayMs
  }
  t.ok(last <= 5 * 60_000)
  fixture.make('good')
  t.same(fixture.due(), ['good'])
})

t.test('a new close does not wait for the end of a back-off', async t => {
  const fixture = await Fixture.open(t)
  const file = fixture.make('file')
  fixture.due()
  fixture.queue.failed(file.ino, 'no')
  t.same(fixture.due(), [])
  fixture.queue.settle(file.ino)
  t.same(fixture.due(), ['file'])
})

t.test('what was put back has a new delay', async t => {
  const fixture = await Fixture.open(t)
  const file = fixture.make('file')
  fixture.due()
  fixture.queue.putBack(file.ino)
  t.same(fixture.due(), ['file'])
})

t.test('a child that becomes dirty while its directory is worked on sends it back', async t => {
  const fixture = await Fixture.open(t)
  const dir = fixture.make('dir', 'directory')
  t.same(fixture.due(), ['dir'])
  const { generation } = fixture.names.get(dir.ino)
  const file = fixture.make('late', 'file', dir.ino)
  t.not(fixture.names.get(dir.ino).generation, generation, 'so that its publication is void')
  fixture.queue.putBack(dir.ino)
  t.same(fixture.due(), ['late'])
  fixture.finish(file)
  t.same(fixture.due(), ['dir'])
})

t.test('nodes without a name are dirty without being queued', async t => {
  const fixture = await Fixture.open(t)
  const file = fixture.make('file')
  fixture.finish(file)
  fixture.names.unlink(file)
  fixture.queue.mark(file)
  t.ok(file.dirty)
  t.same(fixture.queued(), [])
})

t.test('a restart finds the queue, with tries and errors, and the order between levels', async t => {
  const dir = join(await tempDir(t), 'state')
  const before = await Fixture.open(t, 0, dir)
  const folder = before.make('folder', 'directory')
  before.make('file', 'file', folder.ino)
  const bad = before.make('bad', 'file', folder.ino)
  before.queue.failed(bad.ino, 'disk on fire')
  await before.close()
  const after = await Fixture.open(t, 0, dir)
  t.same(after.queued(), ['folder', 'folder/bad', 'folder/file'])
  t.match(after.queue.get(bad.ino), { tries: 1, error: 'disk on fire' })
  t.same(after.due().sort(), ['bad', 'file'])
  for (const name of ['bad', 'file']) after.finish(after.names.existing(folder.ino, bytes(name)))
  t.same(after.due(), ['folder'])
})

t.test('a transaction that fails leaves the queue as it was', async t => {
  const fixture = await Fixture.open(t)
  const dir = fixture.make('dir', 'directory')
  const [a, b] = [fixture.make('a', 'file', dir.ino), fixture.make('b', 'file', dir.ino)]
  t.same(fixture.due().sort(), ['a', 'b'])
  t.throws(() =>
    fixture.names.transaction(() => {
      fixture.finish(a)
      fixture.finish(b)
      fixture.make('c')
      throw new Error('out of space')
    }),
  )
  t.same(fixture.queued(), ['dir', 'dir/a', 'dir/b'])
  fixture.queue.failed(a.ino, 'out of space')
  fixture.queue.failed(b.ino, 'out of space')
  t.same(fixture.due(), [], 'the directory still waits for both')
  for (const name of ['a', 'b']) fixture.queue.settle(fixture.names.existing(dir.ino, bytes(name)).ino)
  t.same(fixture.due().sort(), ['a', 'b'])
})

t.test('whoever publishes hears of everything that may have become ready', async t => {
  const fixture = await Fixture.open(t)
  let calls = 0
  fixture.queue.onChange = () => calls++
  const file = fixture.make('file')
  t.ok(calls > 0, 'a close')
  calls = 0
  fixture.due()
  fixture.queue.failed(file.ino, 'no')
  t.ok(calls > 0, 'a failure, for its delay')
})

t.test('a directory of many entries rests longer before its next update', async t => {
  const fixture = await Fixture.open(t)
  const dir = fixture.make('dir', 'directory')
  t.same(fixture.due(), ['dir'])
  fixture.queue.updating(dir.ino, 10_000_000)
  fixture.finish(dir)
  const file = fixture.make('file', 'file', dir.ino)
  t.same(fixture.due(), ['file'], 'files do not wait for it')
  fixture.finish(file)
  t.same(fixture.due(), [])
  const delayMs = fixture.queue.nextDelayMs() ?? 0
  t.ok(delayMs > 3000 && delayMs <= 5000, `${delayMs} ms, and no longer`)
  await fixture.close()
})

t.test('what has failed is due at once when somebody knows that it may succeed', async t => {
  const { queue, make } = await Fixture.open(t).then(f => ({ queue: f.queue, make: f.make.bind(f) }))
  const node = make('file')
  await until('it is due', () => queue.take() !== undefined)
  queue.failed(node.ino, 'no space')
  t.equal(queue.take(), undefined, 'its back-off runs')
  queue.retryFailed()
  t.equal(queue.take()?.ino, node.ino)
})
