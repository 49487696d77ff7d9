/**
 * Mounts inside a worker thread, whose environment then ends while the mount is in use; or, with `exit` as second
 * argument, ends the whole process in the middle of it. Either must end promptly, with reads under way on the
 * threads of the addon.
 */
import { once } from 'node:events'
import { openSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { FuseSession } from '../../src/fuse/session.js'
import { ended, start } from './fixture.js'
import { MemoryFileSystem } from './memory-file-system.js'

async function mountFile(dir: string): Promise<void> {
  const fs = new MemoryFileSystem()
  const fd = openSync(fileURLToPath(import.meta.url), 'r')
  fs.addFile('f', {
    sizeBytes: 1 << 30,
    reader: (_offset, length) => ({
      ranges: [{ fd, offset: 0, length: Math.min(length, 500) }],
      release() {},
    }),
  })
  fs.addHangingFile('hangs')
  await FuseSession.mount(dir, fs)
}

async function main(dir: string, how: string | undefined): Promise<void> {
  if (how === 'exit') {
    await mountFile(dir)
    const reader = ended(start('cat', [`${dir}/hangs`]))
    await sleep(200)
    process.nextTick(() => process.exit(7))
    await reader
    return
  }
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: dir })
  await once(worker, 'message')
  const reader = ended(start('cat', [`${dir}/hangs`]))
  const another = ended(start('cat', [`${dir}/f`]))
  await sleep(200)
  await worker.terminate()
  const { stderr } = await reader
  await another
  console.log(stderr.trim())
}

if (isMainThread) {
  const [dir = '', how] = process.argv.slice(2)
  await main(dir, how)
} else {
  await mountFile(workerData as string)
  parentPort!.postMessage('mounted')
}
