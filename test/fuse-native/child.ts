/** A daemon for the tests: mounts one file on the directory it is given, and serves it until it is unmounted or killed. */
import { messageOf } from '../../src/core/errors.js'
import { FuseNativeSession } from '../../src/fuse-native/session.js'
import { MemoryFileSystem } from '../fuse/memory-file-system.js'

const [dir = ''] = process.argv.slice(2)

try {
  const fs = new MemoryFileSystem()
  fs.addFile('f', Buffer.from('from the child'))
  const session = await FuseNativeSession.mount(dir, fs)
  process.on('SIGTERM', () => void session.unmount())
  console.log('mounted')
  await session.closed
  console.log('closed')
} catch (err) {
  console.error(`${(err as { code?: string }).code}: ${messageOf(err)}`)
  process.exitCode = 1
}
