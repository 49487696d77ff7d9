/** Temporary directories that end with their test. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

/** What fixtures need of a test: something to hang their end on. */
export type Owner = Pick<Test, 'teardown'>

/** An empty directory; removed, with what is in it, after the test. */
export async function tempDir(t: Owner, prefix = 'cidfs-'): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), prefix))
  t.teardown(() => rm(dir, { recursive: true, force: true, maxRetries: 3 }))
  return dir
}
