/** Waiting for publication. */
import { rmSync } from 'node:fs'
import t from 'tap'
import { type WaitProgress, waitUntilPublished } from '../../src/staging/waiter.js'
import { until } from '../support/until.js'
import { bytes, content, FakeBackend, ROOT, Stage } from './support.js'

const never = new AbortController().signal

function wait(stage: Stage, inos: number[], progress: WaitProgress[] = [], signal = never) {
  return waitUntilPublished(stage.staging, inos, step => progress.push(step), signal)
}

t.test('it ends when everything under the nodes is published, and counts the files', async t => {
  const stage = await Stage.open(t, { settleMs: 20 })
  const dir = stage.mkdir('dir')
  for (let i = 0; i < 5; i++) await stage.write(`f${i}`, content(100, i), dir)
  const outside = stage.create('outside')
  const progress: WaitProgress[] = []
  t.same(await wait(stage, [dir], progress), { pinned: 5, failed: [] })
  t.equal(stage.state(dir), 'pinned')
  t.ok(progress.length > 0 && progress.every(({ total, pinned }) => total === 5 && pinned <= 5))
  t.equal(stage.state(outside), 'writing', 'and does not wait for others')
  stage.staging.close(outside, true)
  t.same(await wait(stage, [ROOT]), { pinned: 6, failed: [] })
})

t.test('it waits for files that are still being written', async t => {
  const stage = await Stage.open(t)
  const ino = stage.create('file')
  let ended = false
  const waiting = wait(stage, [ino]).then(result => {
    ended = true
    return result
  })
  const progress: WaitProgress[] = []
  const other = wait(stage, [ROOT], progress)
  await until('it looked several times', () => progress.length > 2)
  t.notOk(ended)
  stage.staging.close(ino, true)
  t.same(await waiting, { pinned: 1, failed: [] })
  await other
})

t.test('a file that is unlinked while it is waited for is waited for no more', async t => {
  const stage = await Stage.open(t)
  const ino = stage.create('file')
  const waiting = wait(stage, [ROOT])
  stage.staging.unlink(ROOT, bytes('file'))
  await stage.staging.contents.write(ino, 0, bytes('still open'), false)
  t.same(await waiting, { pinned: 0, failed: [] })
  stage.staging.close(ino, true)
  stage.staging.purge(ino)
})

t.test('a failure is told instead of waited for, with the directories above it', async t => {
  const stage = await Stage.open(t, { idle: true })
  const dir = stage.mkdir('dir')
  const bad = await stage.write('bad', 'x', dir)
  await stage.write('good', 'y', dir)
  rmSync(stage.store.objectPath(stage.node(bad).object!))
  stage.staging.start()
  const result = await wait(stage, [dir])
  t.match(result, { pinned: 1, failed: [{ path: 'dir/bad', error: /ENOENT/ }] })
})

t.test('a directory that failed before a file in it did holds nobody up', async t => {
  const stage = await Stage.open(t, { idle: true })
  const dir = stage.mkdir('dir')
  const bad = await stage.write('bad', 'x', dir)
  stage.staging.queue.failed(dir, 'first the directory')
  stage.staging.queue.failed(bad, 'then the file')
  const { failed } = await wait(stage, [dir])
  t.same(failed.map(({ path }) => path).sort(), ['dir', 'dir/bad'])
})

t.test('it waits for the back-end, also of a directory above the node', async t => {
  const backend = new FakeBackend()
  let release = (): void => {}
  backend.gate = new Promise(resolve => (release = resolve))
  const stage = await Stage.open(t, { backend })
  const dir = stage.mkdir('dir')
  const inner = await stage.write('inner', 'x', dir)
  const progress: WaitProgress[] = []
  const waiting = wait(stage, [inner], progress)
  await until('the back-end is at it', () => backend.active > 0)
  const seen = progress.length
  await until('it goes on waiting', () => progress.length > seen + 1)
  release()
  t.same(await waiting, { pinned: 1, failed: [] })
  t.ok(backend.pinned.has(`${await stage.cid(dir)}`))
})

t.test('a back-end that fails is told', async t => {
  const backend = new FakeBackend()
  backend.broken = 'unreachable'
  const stage = await Stage.open(t, { backend })
  await stage.write('file', 'x')
  await until('it has failed', () => stage.staging.backend!.state(stage.lookup('file')!.ino).tries > 0)
  const { failed } = await wait(stage, [ROOT])
  t.same(failed, [{ path: 'file', error: 'fake: unreachable' }])
})

t.test('an interrupted wait ends', async t => {
  const stage = await Stage.open(t)
  const ino = stage.create('file')
  const controller = new AbortController()
  const waiting = wait(stage, [ino], [], controller.signal)
  controller.abort()
  await t.rejects(waiting, { code: 'INTERRUPTED' })
  stage.staging.close(ino, true)
})

t.test('nodes that need no publication are done at once', async t => {
  const stage = await Stage.open(t)
  t.same(await wait(stage, [ROOT]), { pinned: 0, failed: [] })
  t.same(await wait(stage, []), { pinned: 0, failed: [] })
})
