/** What may still be written, asked as writers ask. */
import { closeSync, existsSync, ftruncateSync, openSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { codeOf } from '../../src/core/errors.js'
import { NetworkBlocks } from '../../src/store/network-blocks.js'
import type { SpaceLimits } from '../../src/store/space.js'
import { Store } from '../../src/store/store.js'
import { freeBytes, smallDisk } from '../support/small-disk.js'
import { tempDir } from '../support/temp.js'
import { QUIET, rawBlock } from './support.js'

const MIB = 1024 * 1024
const skip = process.geteuid?.() === 0 ? false : 'needs root to mount a small disk'

async function limited(t: Test, space: SpaceLimits, disk?: string): Promise<Store> {
  const store = await Store.open(join(disk ?? (await tempDir(t)), 'state'), { ...QUIET, space })
  t.teardown(() => store.close().catch(() => {}))
  return store
}

/** A file of an object, as staging writes it. */
function writeObject(store: Store, sizeBytes: number): number {
  const { container, path } = store.createObject()
  const fd = openSync(path, 'w')
  writeSync(fd, Buffer.alloc(sizeBytes, 1))
  closeSync(fd)
  store.space.wrote(container)
  return container
}

/** Writes pieces until one is refused; returns how much was written. */
function fill(store: Store, pieceBytes: number): number {
  const { container, path } = store.createObject()
  const fd = openSync(path, 'w')
  let taken = 0
  for (; store.space.spend(pieceBytes); taken += pieceBytes) {
    writeSync(fd, Buffer.alloc(pieceBytes, 1))
    store.space.wrote(container)
  }
  closeSync(fd)
  return taken
}

t.test('without limits nothing is asked', async t => {
  const store = await Store.open(join(await tempDir(t), 'state'), QUIET)
  t.teardown(() => store.close())
  t.ok(store.space.spend(Number.MAX_SAFE_INTEGER))
  t.equal(store.space.looks, 0)
  t.notOk(existsSync(join(store.path, 'reserve')))
})

t.test('many small writes look at the disk now and then', async t => {
  const store = await limited(t, { maxBytes: 1024 * MIB })
  const before = store.space.looks
  for (let i = 0; i < 10_000; i++) if (!store.space.spend(4096)) t.fail('refused')
  // 40 MiB in budgets of 64, renewed once a second on however slow a machine
  t.ok(store.space.looks - before < 100, `${store.space.looks - before} times`)
})

t.test('a limit lets through what it has room for, and not more', async t => {
  const store = await limited(t, { maxBytes: 64 * MIB })
  const room = store.space.room()
  t.ok(room > 50 * MIB && room < 64 * MIB)
  const taken = fill(store, 64 * 1024)
  t.ok(taken > room - MIB && taken <= room, `${taken} of ${room}`)
  t.throws(() => store.space.take(room + 1), { code: 'NO_SPACE', message: /--max-size.*remove files/ })
})

t.test('what objects take is counted by their blocks, and given back when they go', async t => {
  const store = await limited(t, { maxBytes: 64 * MIB })
  const before = store.space.room()
  const object = writeObject(store, 10 * MIB)
  const path = store.objectPath(object)
  t.ok(Math.abs(before - store.space.room() - 10 * MIB) < MIB / 2)
  const fd = openSync(path, 'r+')
  ftruncateSync(fd, 40 * 1024 * MIB)
  closeSync(fd)
  store.space.wrote(object)
  t.ok(Math.abs(before - store.space.room() - 10 * MIB) < MIB / 2, 'holes are free')
  store.dropObject(object)
  await store.space.giveBack()
  t.notOk(existsSync(path))
  t.ok(before - store.space.room() < MIB / 2)
})

t.test('holes of earlier runs are free, too, when it matters', async t => {
  const first = await limited(t, { maxBytes: 64 * MIB })
  const { container, path } = first.createObject()
  const fd = openSync(path, 'w')
  ftruncateSync(fd, 1024 * MIB)
  closeSync(fd)
  first.sealObject(container, [{ ...rawBlock('x'), offset: 0, length: 1024 * MIB }])
  await first.close()
  const again = await Store.open(first.path, { ...QUIET, space: { maxBytes: 64 * MIB } })
  t.teardown(() => again.close())
  t.ok(again.space.room() > 50 * MIB)
})

t.test('who is refused waits for what can be freed, once', async t => {
  const store = await limited(t, { maxBytes: 32 * MIB })
  const object = writeObject(store, 30 * MIB)
  let asked = 0
  store.space.onShortage = async () => {
    if (asked++ === 0) store.dropObject(object)
    store.space.takeGarbage()
    if (store.space.takeDropped()) await store.space.giveBack()
  }
  await store.space.take(8 * MIB)
  t.ok(asked > 0)
  writeObject(store, 24 * MIB)
  store.space.changed()
  await t.rejects(
    Promise.resolve().then(() => store.space.take(30 * MIB)),
    { code: 'NO_SPACE' },
  )
  const before = asked
  t.throws(() => store.space.take(30 * MIB), { code: 'NO_SPACE' }, 'nothing is left to be freed')
  t.equal(asked, before, 'so nobody is asked')
})

t.test('at the floor the network is refused before the disk is full', { skip }, async t => {
  const disk = await smallDisk(t, 32, 'tmpfs')
  const store = await limited(t, { minFree: 12 * MIB }, disk)
  const blocks = new NetworkBlocks(store)
  let kept = 0
  t.throws(
    () => {
      for (; kept < 40; kept++) {
        const { cid, bytes } = rawBlock(`${kept}`, MIB)
        blocks.put(cid, bytes)
      }
    },
    { code: 'NO_SPACE' },
  )
  t.ok(kept > 10 && kept < 20, `${kept} blocks were kept`)
  t.ok((await freeBytes(disk)) >= 12 * MIB)
  const { cid, bytes } = rawBlock('own', 4 * MIB)
  store.put(cid, bytes)
  t.ok(store.has(cid), 'publishing has what is held back')
  await store.close()
})

t.test('the reserve is given up on a full disk, and taken again when there is room', { skip }, async t => {
  const disk = await smallDisk(t, 32, 'tmpfs')
  const store = await limited(t, {}, disk)
  const reserve = join(store.path, 'reserve')
  t.equal(statSync(reserve).size, MIB)
  const foreign = openSync(join(disk, 'foreign'), 'w')
  const fillUp = () => {
    try {
      for (;;) writeSync(foreign, Buffer.alloc(4096))
    } catch (err) {
      t.match(err, { code: 'ENOSPC' })
    }
  }
  fillUp()
  const failures: unknown[] = []
  for (let i = 0; i < 200; i++) {
    try {
      store.pins.add(rawBlock(`${i}`).cid, 'test')
    } catch (err) {
      failures.push(codeOf(err))
      await store.space.giveBack()
    }
    if (i % 32 === 31) await store.flush() // by itself a moment later
  }
  t.ok(failures.length < 20, `${failures.length} of 200 met the full disk`)
  t.ok(failures.every(code => code === 'NO_SPACE'))
  t.equal(statSync(reserve).size, 0)
  t.throws(() => store.space.takeName(), { code: 'NO_SPACE' }, 'what is left is not for new names')
  ftruncateSync(foreign, 0)
  closeSync(foreign)
  store.space.takeName()
  t.equal(statSync(reserve).size, MIB)
  await store.flush()
  await store.close()
})

t.test('a file system that gives no space in advance does without a reserve', { skip }, async t => {
  const disk = await smallDisk(t, 32, 'ext2')
  const store = await limited(t, {}, disk)
  t.equal(statSync(join(store.path, 'reserve')).blocks, 0)
  store.space.takeName()
  t.ok(store.space.spend(MIB))
  await store.close()
})
