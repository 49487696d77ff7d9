import { spawn } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t from 'tap'
import type { CID } from '../../src/core/cid.js'
import { encodeSectionHead } from '../../src/store/car-format.js'
import { fsck } from '../../src/store/fsck.js'
import type { Block } from '../../src/store/packs.js'
import { Store, type StoreOptions } from '../../src/store/store.js'
import { distRoot } from '../support/root.js'
import { type Owner, tempDir } from '../support/temp.js'
import { openStore, QUIET, rawBlock } from './support.js'

const CHILD = join(distRoot, 'test', 'store', 'crash-child.js')
/** A boot that is not the one the store was written in. */
const REBOOTED: StoreOptions = { ...QUIET, bootId: 'another boot' }

/** The last numbers that a writing child had printed as put and as flushed when it was killed. */
async function writeAndKill(
  dir: string,
  first: number,
  lines: number,
): Promise<{ put: number; flushed: number }> {
  const child = spawn(process.execPath, [CHILD, dir, `${first}`], { stdio: ['ignore', 'pipe', 'inherit'] })
  const said = { put: first, flushed: first }
  let left = lines
  for await (const line of createInterface({ input: child.stdout })) {
    const [what, count] = line.split(' ')
    said[what as keyof typeof said] = Number(count)
    if (--left === 0) child.kill('SIGKILL')
  }
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  return said
}

/** A copy of the state as a crash of the process at this instant would leave it. */
function crashed(t: Owner, store: Store): string {
  // synchronous: no flush that is under way gets any further
  const dir = fs.mkdtempSync(join(tmpdir(), 'cidfs-crash-'))
  t.teardown(() => fs.rmSync(dir, { recursive: true, force: true }))
  fs.cpSync(store.path, dir, { recursive: true })
  return dir
}

function isHeld(store: Store, { cid, bytes }: Block): boolean {
  return (
    Buffer.compare(store.get(cid) ?? Buffer.alloc(0), bytes) === 0 || (bytes.length === 0 && store.has(cid))
  )
}

function childBlock(n: number): Block {
  return rawBlock(n, 500 + (n % 7) * 1000)
}

t.test('what a killed process had put is there, and the store works on', { timeout: 60_000 }, async t => {
  const dir = join(await tempDir(t), 'state')
  let next = 0
  for (const lines of [3, 27, 61]) {
    const { put, flushed } = await writeAndKill(dir, next, lines)
    t.ok(put > next && flushed <= put, `killed behind ${put} blocks, ${flushed} flushed`)
    const store = await Store.open(dir, QUIET)
    const missing = Array.from({ length: put }, (_, n) => n).filter(n => !isHeld(store, childBlock(n)))
    t.same(missing, [])
    for (let n = 0; n < put; n += 100) t.ok(store.pins.has(childBlock(n).cid))
    t.same((await fsck(store)).bad, [])
    await store.close()
    next = put
  }
})

t.test('a power failure leads back to the last flush, whatever was committed since', async t => {
  const store = await openStore(t)
  const early = Array.from({ length: 500 }, (_, i) => rawBlock(`early ${i}`))
  for (const { cid, bytes } of early) store.put(cid, bytes)
  store.pins.add(early[0]?.cid as CID, 'early')
  await store.flush()
  // without a turn of the event loop: nothing of this is flushed, and much of the index is rewritten
  for (let i = 0; i < 3000; i++) {
    const { cid, bytes } = rawBlock(`late ${i}`)
    store.put(cid, bytes)
    store.pins.add(cid, 'late')
    if (i % 2 === 0) store.pins.remove(cid, 'late')
  }
  const [killedDir, rebootedDir] = [crashed(t, store), crashed(t, store)]
  const killed = await openStore(t, QUIET, killedDir)
  t.ok(killed.pins.has(rawBlock('late 1').cid), 'a crash of the process alone loses nothing')
  const rebooted = await openStore(t, REBOOTED, rebootedDir)
  t.same(
    [...rebooted.pins.list()].map(({ owners }) => owners),
    [['early']],
  )
  t.ok(early.every(block => isHeld(rebooted, block)))
  t.ok(isHeld(rebooted, rawBlock('late 2999')), 'blocks that reached a pack are found again')
  t.same((await fsck(rebooted)).bad, [])
  await rebooted.close()
  const again = await openStore(t, REBOOTED, rebooted.path)
  t.ok(early.every(block => isHeld(again, block)))
})

t.test('what is committed while a flush runs belongs to the next one', async t => {
  const store = await openStore(t)
  const a = rawBlock('a')
  const b = rawBlock('b')
  store.put(a.cid, a.bytes)
  store.pins.add(a.cid, 'a')
  const flushing = store.flush()
  await new Promise(resolve => setImmediate(resolve))
  store.put(b.cid, b.bytes)
  store.pins.add(b.cid, 'b')
  await flushing
  const rebooted = await openStore(t, REBOOTED, crashed(t, store))
  t.ok(rebooted.pins.has(a.cid))
  t.notOk(rebooted.pins.has(b.cid))
})

t.test('an index entry never survives the bytes it points to', async t => {
  const store = await openStore(t)
  const kept = rawBlock('kept', 5000)
  const lost = Array.from({ length: 10 }, (_, i) => rawBlock(`lost ${i}`, 5000))
  store.put(kept.cid, kept.bytes)
  await store.flush()
  store.putMany(lost)
  const dir = crashed(t, store)
  const pack = join(dir, 'packs', '1.car')
  const size = fs.statSync(pack).size
  // the machine wrote the length of the file, and zeros where the third of the late blocks was to be
  const hole = store.locate(lost[2]?.cid as CID)?.offset as number
  const fd = fs.openSync(pack, 'r+')
  fs.writeSync(fd, Buffer.alloc(100), 0, 100, hole + 50)
  fs.closeSync(fd)
  for (const options of [QUIET, REBOOTED]) {
    const copy = join(await tempDir(t), 'state')
    fs.cpSync(dir, copy, { recursive: true })
    const reopened = await openStore(t, options, copy)
    t.ok(isHeld(reopened, kept))
    t.same(
      lost.map(({ cid }) => reopened.has(cid)),
      lost.map((_, i) => i < 2),
    )
    t.ok(fs.statSync(join(copy, 'packs', '1.car')).size < size, 'the torn tail is cut off')
    reopened.putMany(lost)
    t.ok(lost.every(block => isHeld(reopened, block)))
    t.ok((reopened.locate(lost[9]?.cid as CID)?.container as number) > 1, 'a cut pack is never written again')
  }
})

t.test('whole sections that only the pack knows are indexed, a torn one is cut off', async t => {
  const store = await openStore(t)
  const known = rawBlock('known')
  store.put(known.cid, known.bytes)
  const dir = crashed(t, store)
  const pack = join(dir, 'packs', '1.car')
  const [whole, torn] = [rawBlock('whole', 3000), rawBlock('torn', 3000)]
  const section = ({ cid, bytes }: Block) => Buffer.concat([encodeSectionHead(cid, bytes.length), bytes])
  fs.appendFileSync(pack, section(whole))
  const end = fs.statSync(pack).size
  fs.appendFileSync(pack, section(torn).subarray(0, 2000))
  const reopened = await openStore(t, QUIET, dir)
  t.ok(isHeld(reopened, known))
  t.ok(isHeld(reopened, whole))
  t.notOk(reopened.has(torn.cid))
  t.equal(fs.statSync(pack).size, end)
})

t.test('a pack that has not even its header is forgotten', async t => {
  const store = await openStore(t)
  const { cid, bytes } = rawBlock('a')
  store.put(cid, bytes)
  const dir = crashed(t, store)
  fs.truncateSync(join(dir, 'packs', '1.car'), 3)
  const reopened = await openStore(t, QUIET, dir)
  t.notOk(reopened.has(cid))
  reopened.put(cid, bytes)
  t.same(reopened.get(cid), bytes)
})

t.test('packs and objects begun after the last flush: blocks are kept, unknown objects removed', async t => {
  const store = await openStore(t, { ...QUIET, packMaxBytes: 2000 })
  await store.flush()
  const blocks = Array.from({ length: 10 }, (_, i) => rawBlock(i, 1000))
  for (const { cid, bytes } of blocks) store.put(cid, bytes)
  const { container, path } = store.createObject()
  fs.writeFileSync(path, 'never referred to')
  const dir = crashed(t, store)
  fs.writeFileSync(join(dir, 'packs', 'README'), 'not ours')
  const reopened = await openStore(t, { ...REBOOTED, packMaxBytes: 2000 }, dir)
  t.ok(blocks.every(block => isHeld(reopened, block)))
  t.same(reopened.unsealedObjects(), [])
  t.notOk(fs.existsSync(path.replace(store.path, dir)))
  t.ok(fs.existsSync(join(dir, 'packs', 'README')))
  t.ok(reopened.createObject().container > container - 1, 'no id is used twice')
  const more = rawBlock('more', 1000)
  reopened.put(more.cid, more.bytes)
  t.ok(blocks.every(block => isHeld(reopened, block)) && isHeld(reopened, more))
})

t.test('a sealed object is durable with the flush behind it', async t => {
  const store = await openStore(t)
  const { container, path } = store.createObject()
  const leaf = rawBlock('leaf', 1000)
  fs.writeFileSync(path, leaf.bytes)
  store.sealObject(container, [{ cid: leaf.cid, offset: 0, length: 1000 }])
  const before = await openStore(t, REBOOTED, crashed(t, store))
  t.notOk(before.has(leaf.cid))
  await store.flush()
  const after = await openStore(t, REBOOTED, crashed(t, store))
  t.ok(isHeld(after, leaf))
})

t.test('thousands of commits cost no sync each, and what a flush frees is used again', async t => {
  const store = await openStore(t)
  const start = performance.now()
  for (let i = 0; i < 20_000; i++) {
    const { cid, bytes } = rawBlock(i)
    store.put(cid, bytes)
    if (i % 500 === 499) await store.flush()
  }
  t.ok(performance.now() - start < 20_000)
  t.ok(store.usage().indexBytes < 128 * 1024 * 1024, `${store.usage().indexBytes} bytes of index`)
})
