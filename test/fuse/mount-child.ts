/**
 * A daemon for the tests: mounts one file on the directory of the first argument.
 *
 * With a user id as second argument it gives up being root for good, then mounts, reads its own mount with a child
 * of the same user, unmounts, does so again while a file is open, and prints what happened. Without, it serves until it is unmounted or killed.
 */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { messageOf } from '../../src/core/errors.js'
import { addon } from '../../src/core/native.js'
import { FuseSession } from '../../src/fuse/session.js'
import { ended, openDescriptors, start, until } from './fixture.js'
import { MemoryFileSystem } from './memory-file-system.js'

const [dir = '', user] = process.argv.slice(2)

function becomeUser(uid: number): void {
  // Everything has to be loaded before: the user may have no right to read it.
  addon()
  process.setgroups?.([])
  process.setgid?.(uid)
  process.setuid?.(uid)
}

async function useAndUnmount(): Promise<void> {
  const fs = new MemoryFileSystem()
  fs.addFile('f', Buffer.from('from the child'))
  const before = openDescriptors()
  const first = await FuseSession.mount(dir, fs)
  const { stdout: cat } = await promisify(execFile)('cat', [`${dir}/f`], { timeout: 10_000 })
  const { lazy } = await first.unmount()
  const second = await FuseSession.mount(dir, fs)
  const reader = start('sh', ['-c', `exec 3< ${dir}/f; read wait; cat <&3`])
  const result = ended(reader)
  await until(() => fs.openHandles.size > 0, 'the file is open')
  const { lazy: lazyWhileOpen } = await second.unmount({ lazyAfterMs: 100 })
  reader.stdin!.end('go')
  const { stdout: catAfterwards } = await result
  await second.closed
  const descriptorsLeft = openDescriptors().filter(target => !before.includes(target))
  const report = { uid: process.getuid?.(), cat, lazy, lazyWhileOpen, catAfterwards, descriptorsLeft }
  console.log(JSON.stringify(report))
}

async function serve(): Promise<void> {
  const fs = new MemoryFileSystem()
  fs.addFile('f', Buffer.from('from the child'))
  const session = await FuseSession.mount(dir, fs)
  await session.closed
}

try {
  if (user !== undefined) becomeUser(Number(user))
  await (user === undefined ? serve() : useAndUnmount())
} catch (err) {
  console.error(`${(err as { code?: string }).code}: ${messageOf(err)}`)
  process.exitCode = 1
}
