/** Small files that share one file until they are published. */
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { checkStaging } from '../../src/staging/check.js'
import { SLOT_CONTENT_BYTES } from '../../src/staging/nursery.js'
import { descriptorsBelow } from '../store/support.js'
import { until } from '../support/until.js'
import { bytes, content, OWNER, PUNCH_HOLE, ROOT, Stage, type StageOptions } from './support.js'

/** After so many small files, the next one gets a slot. */
const WARM_UP = 4

/** A stage whose next new files have slots. */
async function open(t: Test, options: StageOptions = {}): Promise<Stage> {
  const stage = await Stage.open(t, options)
  for (let i = 0; i < WARM_UP; i++) await stage.write(`warm-up-${i}`, `${i}`)
  return stage
}

function nurseryBytes(stage: Stage): number {
  return statSync(join(stage.dir, 'nursery'), { throwIfNoEntry: false })?.size ?? 0
}

async function isSound(t: Test, stage: Stage): Promise<void> {
  const { faults, leftovers } = await checkStaging(stage.store)
  t.same({ faults, leftovers }, { faults: [], leftovers: 0 })
}

t.test('a new file behind small ones has no file of its own, and reads as it was written', async t => {
  const stage = await open(t, { idle: true })
  const objects = stage.store.unsealedObjects().length
  const ino = await stage.write('file', 'hello')
  t.equal(stage.store.unsealedObjects().length, objects)
  t.equal(stage.node(ino).object, undefined)
  t.type(stage.node(ino).slot, 'number')
  await stage.rewrite(ino, 'y world', 4)
  await stage.rewrite(ino, 'end', 20)
  const expected = Buffer.concat([bytes('helly world'), Buffer.alloc(9), bytes('end')])
  t.same(Buffer.from(await stage.read(ino)), expected, 'with zeros in what was skipped')
  await isSound(t, stage)
})

t.test('what was cut off does not come back when the file grows', async t => {
  const stage = await open(t, { idle: true })
  const ino = await stage.write('file', 'secret')
  await stage.staging.setAttributes(ino, { sizeBytes: 2 })
  await stage.staging.setAttributes(ino, { sizeBytes: 4 })
  await stage.rewrite(ino, '!', 6)
  t.same(Buffer.from(await stage.read(ino)).toString('latin1'), 'se\0\0\0\0!')
  t.type(stage.node(ino).slot, 'number')
})

t.test('a file that outgrows its slot becomes a file, with all of its content', async t => {
  const stage = await open(t, { idle: true })
  const data = content(SLOT_CONTENT_BYTES + 1)
  const ino = stage.create('file')
  await stage.staging.contents.write(ino, 0, data.subarray(0, SLOT_CONTENT_BYTES), false)
  t.type(stage.node(ino).slot, 'number', 'it fits')
  await stage.staging.contents.write(ino, 0, data.subarray(SLOT_CONTENT_BYTES), true)
  t.equal(stage.node(ino).slot, undefined)
  stage.staging.close(ino, true)
  t.equal(Buffer.compare(await stage.read(ino), data), 0)
  t.type(
    stage.node(await stage.write('next', 'x')).object,
    'number',
    'the next is expected to be large as well',
  )
  await isSound(t, stage)
})

t.test('what only a file of its own can do makes it one', async t => {
  const stage = await open(t, { idle: true })
  const ino = await stage.write('file', 'abcdef')
  await stage.staging.contents.fallocate(ino, 1, 2, PUNCH_HOLE)
  t.same(Buffer.from(await stage.read(ino)).toString('latin1'), 'a\0\0def')
  t.type(stage.node(ino).object, 'number')
  await isSound(t, stage)
})

t.test('published files leave the nursery, which then takes no space', async t => {
  const stage = await open(t)
  const inos = []
  for (let i = 0; i < 40; i++) inos.push(await stage.write(`file-${i}`, content(3000, i)))
  t.ok(nurseryBytes(stage) > 0)
  for (const [i, ino] of inos.entries()) {
    t.equal(Buffer.compare(await stage.readCid(await stage.cid(ino)), content(3000, i)), 0)
    t.equal(stage.node(ino).slot, undefined)
  }
  await until('it is empty', () => nurseryBytes(stage) === 0 || undefined)
  t.equal(Buffer.compare(await stage.read(inos[7]!), content(3000, 7)), 0)
  await isSound(t, stage)
})

t.test('one file that stays does not keep the space of all others', async t => {
  const stage = await open(t)
  const kept = stage.create('kept')
  const inos = []
  for (let i = 0; i < 40; i++) inos.push(await stage.write(`file-${i}`, content(SLOT_CONTENT_BYTES, i)))
  for (const ino of inos) await stage.cid(ino)
  const blockBytes = () => statSync(join(stage.dir, 'nursery')).blocks * 512
  await until('the rest is holes', () => blockBytes() < 3 * SLOT_CONTENT_BYTES || undefined)
  t.type(stage.node(kept).slot, 'number')
  stage.staging.close(kept, true)
})

t.test('a file that is removed before it is published gives its slot back', async t => {
  const stage = await open(t)
  const inos = await Promise.all(Array.from({ length: 10 }, (_, i) => stage.write(`file-${i}`, `${i}`)))
  for (const [i, ino] of inos.entries()) {
    stage.staging.unlink(stage.node(ino).parent, bytes(`file-${i}`))
    stage.staging.purge(ino)
  }
  await until('it is empty', () => nurseryBytes(stage) === 0 || undefined)
})

t.test('after the death of the daemon, content and size are those of the last write', async t => {
  const first = await open(t, { idle: true })
  const ino = await first.write('file', 'first')
  const emptied = await first.write('emptied', 'nothing is left')
  await first.rewrite(emptied, '', 0, true)
  const other = await first.write('other', 'other')
  await first.rewrite(ino, ' and second', 5)
  await first.crash()
  const second = await Stage.open(t, { dir: first.dir, idle: true })
  t.same(Buffer.from(await second.read(ino)).toString(), 'first and second')
  t.equal(second.node(emptied).sizeBytes, 0)
  t.same(Buffer.from(await second.read(other)).toString(), 'other')
  await isSound(t, second)
  second.staging.start()
  t.equal(Buffer.from(await second.readCid(await second.cid(ino))).toString(), 'first and second')
})

t.test('a slot that is used again shows nothing of who had it before', async t => {
  const first = await open(t)
  const kept = first.create('kept') // keeps the nursery from being emptied
  const old = await first.write('old', 'an old secret')
  const { slot } = first.node(old)
  await first.cid(old)
  const again = await until('the slot is given out again', async () => {
    const ino = first.create(`new-${Math.random()}`)
    return first.node(ino).slot === slot ? ino : undefined
  })
  await first.staging.contents.write(again, 3, bytes('x'), false)
  t.same(Buffer.from(await first.read(again)).toString('latin1'), '\0\0\0x')
  first.staging.close(kept, true)
  await first.crash()
  const second = await Stage.open(t, { dir: first.dir, idle: true })
  t.same(Buffer.from(await second.read(again)).toString('latin1'), '\0\0\0x')
})

t.test('what was lost with the power reads as nothing, and not as somebody else’s', async t => {
  const first = await open(t, { idle: true })
  const ino = await first.write('file', 'was never synced')
  const mine = await first.write('synced', 'was synced')
  await first.staging.sync(mine)
  const { slot } = first.node(ino)
  await first.crash()
  const path = join(first.dir, 'nursery')
  const nursery = readFileSync(path)
  const slotBytes = nursery.indexOf('was synced') - nursery.indexOf('was never synced')
  nursery.writeDoubleLE(999_999, slot! * slotBytes) // the page of an earlier owner
  writeFileSync(path, nursery)
  const second = await Stage.open(t, { dir: first.dir, idle: true })
  t.equal(second.node(ino).sizeBytes, 0)
  t.same(Buffer.from(await second.read(mine)).toString(), 'was synced')
})

t.test('a nursery cut short fails what lay in it, and nothing else', async t => {
  const stage = await open(t, { idle: true })
  const ino = await stage.write('file', content(5000))
  stage.staging.contents.saveAll()
  truncateSync(join(stage.dir, 'nursery'), 1000)
  const { faults } = await checkStaging(stage.store)
  t.match(faults, [{ path: 'file', problem: /^slot \d+ of the nursery is missing$/ }], 'fsck finds it')
  stage.staging.start()
  await until('it fails', () => stage.staging.queue.get(ino)?.error?.includes('lost a part') || undefined)
  for (let i = 0; i < WARM_UP; i++)
    await stage.cid(stage.staging.names.existing(stage.node(ino).parent, bytes(`warm-up-${i}`)).ino)
})

t.test('a file whose creation fails leaves neither slot nor object nor descriptor', async t => {
  const stage = await Stage.open(t, { idle: true })
  for (const place of ['object', 'slot'] as const) {
    const before = stage.store.unsealedObjects().length
    const fail = () =>
      stage.store.transaction(() => {
        const ino = stage.staging.createFile(ROOT, bytes('file'), 0o644, OWNER, true).ino
        t.type(stage.node(ino)[place], 'number')
        throw new Error('the disk is full')
      })
    t.throws(fail, { message: 'the disk is full' })
    t.same(stage.lookup('file'), undefined)
    t.same(
      [...stage.staging.queue.jobs()]
        .map(job => stage.node(job.ino).name)
        .filter(name => Buffer.from(name).equals(bytes('file'))),
      [],
    )
    t.equal(stage.store.unsealedObjects().length, before)
    t.equal(descriptorsBelow(`${stage.dir}/objects`), 0)
    for (let i = 0; i < WARM_UP; i++) await stage.write(`${place}-${i}`, `${i}`)
  }
  const inos = [await stage.write('a', 'a'), await stage.write('b', 'b')]
  t.notSame(stage.node(inos[0]!).slot, stage.node(inos[1]!).slot)
  t.same(Buffer.from(await stage.read(inos[0]!)).toString(), 'a')
  await isSound(t, stage)
})
