/** Hashing on several threads. */
import { createHash } from 'node:crypto'
import { closeSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import t, { type Test } from 'tap'
import { HashPool } from '../../src/staging/hash-pool.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'
import { content } from './support.js'

const KIB = 1024

async function fileOf(t: Test, data: Uint8Array): Promise<number> {
  const path = join(await tempDir(t), 'file')
  writeFileSync(path, data)
  const fd = openSync(path, 'r')
  t.teardown(() => closeSync(fd))
  return fd
}

function pool(t: Test, size?: number): HashPool {
  const created = new HashPool(size)
  t.teardown(() => created.close())
  return created
}

function digestsOf(data: Uint8Array, chunkBytes: number): Buffer {
  const digests: Buffer[] = []
  for (let at = 0; at < data.length; at += chunkBytes) {
    digests.push(
      createHash('sha256')
        .update(data.subarray(at, at + chunkBytes))
        .digest(),
    )
  }
  return Buffer.concat(digests)
}

t.test('the digests come in the order of the chunks, however many pieces and threads', async t => {
  const data = content(20 * 1024 * KIB + 13)
  const fd = await fileOf(t, data)
  for (const size of [1, 3]) {
    for (const chunkBytes of [1024 * KIB, 3 * 1024 * KIB, 16 * 1024 * KIB]) {
      const found = await pool(t, size).hashFile(fd, data.length, chunkBytes)
      t.equal(Buffer.compare(found, digestsOf(data, chunkBytes)), 0, `${size} threads, ${chunkBytes}`)
    }
  }
})

t.test('only the bytes asked for count, and none is none', async t => {
  const data = content(3000)
  const fd = await fileOf(t, data)
  const hashes = pool(t, 1)
  t.equal((await hashes.hashFile(fd, 0, 1024)).length, 0)
  t.same(Buffer.from(await hashes.hashFile(fd, 2048, 1024)), digestsOf(data.subarray(0, 2048), 1024))
})

t.test('a file that is shorter than promised fails, and the thread goes on', async t => {
  const fd = await fileOf(t, content(1000))
  const hashes = pool(t, 1)
  await t.rejects(hashes.hashFile(fd, 5000, 1024), { code: 'IO', message: /shorter/ })
  t.equal((await hashes.hashFile(fd, 1000, 1024)).length, 32)
})

t.test('a thread that dies fails what it had, and the next one takes over', async t => {
  const data = content(64 * 1024 * KIB)
  const fd = await fileOf(t, data)
  const workers: Worker[] = []
  const { postMessage } = Worker.prototype
  t.teardown(() => (Worker.prototype.postMessage = postMessage))
  Worker.prototype.postMessage = function (this: Worker, ...args: Parameters<typeof postMessage>) {
    workers.push(this)
    return postMessage.apply(this, args)
  } as typeof postMessage
  const hashes = pool(t, 1)
  const doomed = hashes.hashFile(fd, data.length, 1024 * KIB)
  doomed.catch(() => {})
  await until('a thread has work', () => workers.length > 0)
  await workers[0]!.terminate()
  await t.rejects(doomed, { code: 'IO' })
  t.equal(Buffer.compare(await hashes.hashFile(fd, data.length, 1024 * KIB), digestsOf(data, 1024 * KIB)), 0)
})

t.test('files asked for at the same time do not mix', async t => {
  const hashes = pool(t, 2)
  const files = [content(9_000_000, 1), content(100, 2), content(3_000_000, 3)]
  const found = await Promise.all(
    files.map(async data => hashes.hashFile(await fileOf(t, data), data.length, 1024 * KIB)),
  )
  for (const [i, data] of files.entries()) {
    t.equal(Buffer.compare(found[i]!, digestsOf(data, 1024 * KIB)), 0, `file ${i}`)
  }
})
