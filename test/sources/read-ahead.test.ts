import t from 'tap'
import type { CID } from '../../src/core/cid.js'
import type { MaybePromise } from '../../src/core/maybe-promise.js'
import type { ReadOptions } from '../../src/sources/block-service.js'
import { type Plan, ReadAhead } from '../../src/sources/read-ahead.js'
import { rawBlock } from './fake-gateway.js'

const MIB = 1024 * 1024

/** A file of 1 MiB leaves, and who asked for which of them. */
function file(sizeMib: number) {
  const cids = Array.from({ length: sizeMib }, () => rawBlock().cid)
  const asked: number[] = []
  const signals: AbortSignal[] = []
  const plans: [number, number][] = []
  const blocks = {
    failAt: -1,
    ensure(cid: CID, options: ReadOptions = {}): MaybePromise<void> {
      const index = cids.indexOf(cid)
      t.equal(options.priority, 'read-ahead')
      if (options.signal) signals.push(options.signal)
      if (!asked.includes(index)) asked.push(index)
      return index === this.failAt ? Promise.reject(new Error('gone')) : undefined
    },
  }
  const plan: Plan = (start, end) => {
    plans.push([start / MIB, end / MIB])
    const first = Math.floor(start / MIB)
    return cids.slice(first, Math.ceil(end / MIB)).map(cid => ({ cid, sizeBytes: MIB }))
  }
  return { asked, signals, plans, blocks, plan, sizeBytes: sizeMib * MIB }
}

/** Plans are awaited, even those that are there. */
const settle = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

t.test('one read is no reason to guess, two in a row are', async t => {
  const { asked, blocks, plan, sizeBytes } = file(64)
  const ahead = new ReadAhead(blocks, sizeBytes, plan)
  ahead.onRead(0, 128 * 1024)
  await settle()
  t.strictSame(asked, [])
  ahead.onRead(128 * 1024, 128 * 1024)
  await settle()
  t.strictSame(asked, [0, 1, 2])
})

t.test('the window doubles up to its limit while reads go on, and never runs past the end', async t => {
  const { asked, blocks, plan, sizeBytes } = file(200)
  const ahead = new ReadAhead(blocks, sizeBytes, plan)
  for (let position = 0; position < 200; position++) {
    ahead.onRead(position * MIB, MIB)
    await settle()
    const furthest = Math.max(-1, ...asked)
    t.ok(furthest < position + 1 + ahead.windowBytes / MIB, `at ${position}: ${furthest}`)
    if (position > 80 && position < 160) t.ok(furthest >= position + 24, `at ${position}: ${furthest}`)
  }
  t.equal(ahead.windowBytes, 32 * MIB)
  t.equal(asked.length, 198, 'everything but what was read before the second read')
})

t.test('pieces of one read may come in any order', async t => {
  const { asked, signals, blocks, plan, sizeBytes } = file(16)
  const ahead = new ReadAhead(blocks, sizeBytes, plan)
  for (const piece of [0, 2, 1, 3, 5, 4]) ahead.onRead(piece * 128 * 1024, 128 * 1024)
  await settle()
  t.ok(asked.length >= 2)
  t.ok(signals.every(signal => !signal.aborted))
})

t.test('a reader that skips into what is on its way cancels nothing and goes on from there', async t => {
  const { asked, signals, blocks, plan, sizeBytes } = file(64)
  const ahead = new ReadAhead(blocks, sizeBytes, plan)
  for (let position = 0; position < 8; position++) {
    ahead.onRead(position * MIB, MIB)
    await settle()
  }
  const furthest = Math.max(...asked)
  t.ok(furthest > 12, `asked up to ${furthest}`)
  ahead.onRead(furthest * MIB, MIB) // others of the file's readers have brought the pages between
  await settle()
  t.ok(signals.every(signal => !signal.aborted))
  t.ok(Math.max(...asked) > furthest, 'and more is asked for')
})

t.test('a jump cancels what is on its way, shrinks the window, and needs two reads again', async t => {
  const { asked, signals, blocks, plan, sizeBytes } = file(400)
  const ahead = new ReadAhead(blocks, sizeBytes, plan)
  for (let position = 0; position < 60; position++) {
    ahead.onRead(position * MIB, MIB)
    await settle()
  }
  const before = ahead.windowBytes
  ahead.onRead(300 * MIB, MIB)
  await settle()
  t.ok(signals.at(-1)?.aborted)
  t.ok(ahead.windowBytes < before)
  t.ok(asked.every(index => index < 300))
  ahead.onRead(301 * MIB, MIB)
  await settle()
  t.ok(asked.some(index => index > 301))
})

t.test('random reads never guess', async t => {
  const { asked, blocks, plan, sizeBytes } = file(100)
  const ahead = new ReadAhead(blocks, sizeBytes, plan)
  for (let i = 0; i < 50; i++) {
    ahead.onRead(((i * 37) % 100) * MIB, 128 * 1024)
    await settle()
  }
  t.strictSame(asked, [])
})

t.test('an error stops guessing until the reader has come past it', async t => {
  const { plans, blocks, plan, sizeBytes } = file(100)
  blocks.failAt = 3
  const ahead = new ReadAhead(blocks, sizeBytes, plan)
  const furthest: number[] = []
  for (let position = 0; position < 20; position++) {
    ahead.onRead(position * MIB, MIB)
    await settle()
    furthest.push(plans.at(-1)?.[1] ?? 0)
  }
  const stop = furthest.find(end => end > 3) ?? 0
  t.equal(furthest.filter((end, position) => position + 1 < stop && end > stop).length, 0, furthest.join(' '))
  t.ok((furthest.at(-1) ?? 0) > 20, 'and it goes on behind it')
})

t.test('a plan that fails fails nothing', async t => {
  const { blocks, sizeBytes } = file(10)
  const ahead = new ReadAhead(blocks, sizeBytes, () => Promise.reject(new Error('malformed')))
  for (let position = 0; position < 5; position++) ahead.onRead(position * MIB, MIB)
  await settle()
  t.pass('no unhandled rejection')
})

t.test('closing cancels what is on its way and ends guessing', async t => {
  const { asked, signals, blocks, plan, sizeBytes } = file(64)
  const ahead = new ReadAhead(blocks, sizeBytes, plan)
  ahead.onRead(0, MIB)
  ahead.onRead(MIB, MIB)
  await settle()
  const count = asked.length
  ahead.close()
  ahead.onRead(2 * MIB, MIB)
  await settle()
  t.ok(signals.length > 0 && signals.every(signal => signal.aborted))
  t.equal(asked.length, count)
})
