/**
 * What is left when the machine loses its power: files as they are, the index as it was last synced.
 *
 * Why a copy: with another boot id the store takes its state directory for one that was cut off like that.
 */
import { readlinkSync } from 'node:fs'
import { cp, type FileHandle, open } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { tempDir } from '../support/temp.js'
import { bytes, content, ROOT, Stage } from './support.js'

const MIB = 1024 * 1024

/** The stage as the next boot finds it. */
async function afterPowerFailure(t: Test, stage: Stage): Promise<Stage> {
  const dir = join(await tempDir(t), 'state')
  await cp(stage.dir, dir, { recursive: true })
  return Stage.open(t, { dir, bootId: 'the next boot', idle: true })
}

async function textOf(stage: Stage, name: string): Promise<string | undefined> {
  const node = stage.lookup(name)
  return node && Buffer.from(await stage.read(node.ino)).toString()
}

t.test('a file that was synced is there, although it was deleted since', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = await stage.write('file', 'synced')
  await stage.staging.sync(ino)
  stage.staging.unlink(ROOT, bytes('file'))
  stage.staging.purge(ino)
  t.equal(
    await textOf(await afterPowerFailure(t, stage), 'file'),
    'synced',
    'nobody said that it is gone for good',
  )
  await stage.staging.sync(ROOT)
  t.equal(await textOf(await afterPowerFailure(t, stage), 'file'), undefined, 'now somebody has')
})

t.test('a file that was synced is there, although another had taken its place', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = await stage.write('file', 'synced')
  await stage.staging.sync(ino)
  const temporary = await stage.write('temporary', 'new')
  stage.staging.rename(ROOT, bytes('temporary'), ROOT, bytes('file'), true)
  stage.staging.purge(ino)
  t.equal(await textOf(await afterPowerFailure(t, stage), 'file'), 'synced')
  await stage.staging.sync(temporary)
  t.equal(await textOf(await afterPowerFailure(t, stage), 'file'), 'new')
})

t.test('a file that was synced is there, although it was published since', async t => {
  const stage = await Stage.open(t, { idle: true })
  const small = await stage.write('small', 'synced')
  const large = await stage.write('large', content(MIB + 1))
  for (const ino of [small, large]) await stage.staging.sync(ino)
  stage.staging.start()
  for (const ino of [small, large]) await stage.cid(ino)
  const next = await afterPowerFailure(t, stage)
  t.equal(await textOf(next, 'small'), 'synced')
  t.equal(Buffer.compare(await next.read(next.lookup('large')!.ino), content(MIB + 1)), 0)
})

/** Paths that are synced with fsync(2), whatever becomes of them on this disk. */
async function watchSyncs(t: Test): Promise<string[]> {
  const synced: string[] = []
  const handle = await open('/dev/null', 'r')
  const methods = Object.getPrototypeOf(handle) as FileHandle
  await handle.close()
  const { sync } = methods
  t.teardown(() => void (methods.sync = sync))
  methods.sync = function (this: FileHandle) {
    synced.push(readlinkSync(`/proc/self/fd/${this.fd}`))
    return sync.call(this)
  }
  return synced
}

t.test('a new file that was synced keeps its name in the state directory, on any file system', async t => {
  const stage = await Stage.open(t, { idle: true })
  const ino = await stage.write('file', content(200_000))
  const folder = dirname(stage.store.objectPath(stage.node(ino).object!))
  const synced = await watchSyncs(t)
  await stage.staging.sync(ino)
  t.same(synced, [folder, dirname(folder)], 'the folder, and where that lies')
  await stage.rewrite(ino, 'more')
  await stage.staging.sync(ino)
  t.equal(synced.length, 2, 'once')
})
