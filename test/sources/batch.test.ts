import t from 'tap'
import { type CID, keyOf } from '../../src/core/cid.js'
import type { MaybePromise } from '../../src/core/maybe-promise.js'
import { prefetch } from '../../src/sources/batch.js'
import type { ReadOptions } from '../../src/sources/block-service.js'
import { rawBlock } from './fake-gateway.js'

t.test('all are asked for, a few at a time, and what is missing is named', async t => {
  const cids = Array.from({ length: 100 }, () => rawBlock().cid)
  const missing = new Set([3, 40].map(index => keyOf(cids[index] as CID)))
  let running = 0
  let most = 0
  const progress: number[] = []
  const ensure = async (cid: CID, options: ReadOptions = {}): Promise<void> => {
    t.equal(options.priority, 'read-ahead')
    most = Math.max(most, ++running)
    await new Promise(resolve => setImmediate(resolve))
    running--
    if (missing.has(keyOf(cid))) throw new Error('gone')
  }
  const missed = await prefetch({ ensure }, cids, { concurrency: 8, onProgress: done => progress.push(done) })
  t.equal(most, 8)
  t.strictSame(
    missed.map(({ cid }) => cids.indexOf(cid)),
    [3, 40],
  )
  t.strictSame(
    progress,
    Array.from({ length: 100 }, (_, index) => index + 1),
  )
})

t.test('what is held here, and what fails at once, needs no promise', async t => {
  const cids = [rawBlock().cid, rawBlock().cid]
  const ensure = (cid: CID): MaybePromise<void> => {
    if (cid === cids[1]) throw new Error('unsupported')
  }
  t.strictSame(
    (await prefetch({ ensure }, cids)).map(({ cid }) => cid),
    [cids[1]],
  )
  t.strictSame(await prefetch({ ensure }, []), [])
})

t.test('an abort ends the batch', async t => {
  const controller = new AbortController()
  let asked = 0
  const ensure = async (): Promise<void> => {
    if (++asked === 5) controller.abort()
  }
  const cids = Array.from({ length: 1_000 }, () => rawBlock().cid)
  const { signal } = controller
  await t.rejects(prefetch({ ensure }, cids, { concurrency: 2, signal }), { code: 'INTERRUPTED' })
  t.ok(asked < 10)
})
