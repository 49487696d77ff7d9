/**
 * Mounts over fuse-native for tests.
 *
 * Invariant: as test/fuse/fixture.ts, whose tools serve here too: after a test nothing is left, and this process
 * never touches its own mount.
 */
import { mkdtempSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { mountAt } from '../../src/fuse/mount-table.js'
import { FuseNativeSession } from '../../src/fuse-native/session.js'
import { openDescriptors } from '../fuse/fixture.js'
import { MemoryFileSystem } from '../fuse/memory-file-system.js'

export interface Mounted {
  dir: string
  fs: MemoryFileSystem
  session: FuseNativeSession
}

export async function mounted(t: Test, fs = new MemoryFileSystem()): Promise<Mounted> {
  const dir = mkdtempSync(join(tmpdir(), 'cidfs-fuse-native-'))
  const devices = () => openDescriptors().filter(target => target === '/dev/fuse').length
  const before = devices()
  const session = await FuseNativeSession.mount(dir, fs)
  t.teardown(async () => {
    await session.unmount({ lazyAfterMs: 1000 })
    await session.closed
    if (mountAt(dir) !== undefined) throw new Error(`${dir} is still mounted`)
    rmdirSync(dir)
    if (devices() > before) throw new Error('a descriptor of /dev/fuse is left')
  })
  return { dir, fs, session }
}
