/** Temporary directories that end with their test. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

/** What fixtures need of a test, or of whatever else uses them: something to hang their end on. */
export type Owner = Pick<Test, 'teardown'> & Partial<Pick<Test, 'fail'>>

/**
 * `end` after the test; its failure fails the test. (What a teardown throws would keep tap from the others.)
 */
export function atEnd(t: Owner, end: () => Promise<void>): void {
  t.teardown(async () => {
    try {
      await end()
    } catch (err) {
      if (t.fail === undefined) throw err
      // tap shows where it failed late, not with what
      console.error(err)
      t.fail(err instanceof Error ? err.message : String(err))
    }
  })
}

/** An empty directory; removed, with what is in it, after the test. */
export async function tempDir(t: Owner, prefix = 'cidfs-'): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), prefix))
  atEnd(t, () => rm(dir, { recursive: true, force: true, maxRetries: 3 }))
  return dir
}
