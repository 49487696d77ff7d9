/** The log of open files, as the next daemon finds it. */
import { closeSync, fstatSync, openSync, readdirSync, writeSync } from 'node:fs'
import t, { type Test } from 'tap'
import { HandleLog } from '../../src/fuse/handle-log.js'
import { tempDir } from '../support/temp.js'

const FILE = { flags: 2, requestId: 7, backingId: 0, token: 0 }

/** A log, and how its supervisor gives it to the next daemon: nobody has closed anything. */
async function setup(t: Test) {
  const dir = await tempDir(t)
  const log = HandleLog.create(dir)
  t.same(readdirSync(dir), [], 'it has no name')
  const kept = openSync(`/proc/self/fd/${log.fd}`, 'r+')
  t.teardown(() => {
    log.close()
    closeSync(kept)
  })
  const successor = () => {
    const next = HandleLog.resume(openSync(`/proc/self/fd/${kept}`, 'r+'))
    t.teardown(() => next.close())
    return next
  }
  return { log, kept, successor }
}

t.test('what is open is found by the next daemon, what was released is not', async t => {
  const { log, successor } = await setup(t)
  const open = { ino: 2 ** 52 + 5, flags: 0o2001, requestId: 2 ** 40, backingId: 3, token: 99 }
  const [a, b, c] = [log.opened({ ...FILE, ino: 1 }), log.opened(open), log.opened({ ...FILE, ino: 3 })]
  log.released(a)
  log.released(c)
  log.released(c) // a second time means nothing
  t.same(successor().inherited, [{ handle: b, ...open }])
})

t.test('handles of different daemons are never the same', async t => {
  const { log: first, successor } = await setup(t)
  const seen = new Set<number>()
  let log = first
  for (let daemon = 0; daemon < 5; daemon++) {
    for (let i = 0; i < 3; i++) {
      const handle = log.opened({ ...FILE, ino: i + 1 })
      t.notOk(seen.has(handle))
      t.ok(Number.isSafeInteger(handle))
      seen.add(handle)
      if (i === 1) log.released(handle)
    }
    log = successor()
    t.equal(log.inherited.length, 2 * (daemon + 1))
  }
})

t.test('slots are used again: the log does not grow with every open', async t => {
  const { log, kept } = await setup(t)
  for (let i = 0; i < 1000; i++) log.released(log.opened({ ...FILE, ino: 1 }))
  t.ok(fstatSync(kept).size <= 4 * 64)
})

t.test('what is left of a slot that was not written in full is nothing', async t => {
  const { log, kept, successor } = await setup(t)
  const handle = log.opened({ ...FILE, ino: 1 })
  log.close()
  writeSync(kept, Buffer.alloc(20, 1), 0, 20, fstatSync(kept).size)
  t.match(successor().inherited, [{ handle, ino: 1 }])
})

t.test('a log that was closed is another daemon’s', async t => {
  const { log, successor } = await setup(t)
  const handle = log.opened({ ...FILE, ino: 1 })
  log.close()
  log.released(handle)
  log.opened({ ...FILE, ino: 2 })
  t.match(successor().inherited, [{ handle }])
})
