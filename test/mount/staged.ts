/** What is staged in a real mount, asked as users ask. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { WaitResult } from '../../src/daemon/control-protocol.js'
import type { Mount } from '../support/mount.js'

export async function waitFor(mount: Mount, paths: string[]): Promise<WaitResult> {
  return mount.json<WaitResult>(['wait', ...paths], { timeoutMs: 60_000 })
}

export async function xattr(mount: Mount, path: string, name: string): Promise<string> {
  const { stdout } = await mount.run('getfattr', ['--only-values', '--absolute-names', '-n', name, path])
  return stdout
}

/** A program that has written to a file and keeps it open until it is told to go on. */
export async function writer(mount: Mount, path: string, content: string): Promise<() => Promise<void>> {
  const script = `
import sys
f = open(sys.argv[1], 'wb', 0); f.write(sys.argv[2].encode()); print('written', flush=True); sys.stdin.read()`
  const child = spawn('python3', ['-c', script, path, content], {
    cwd: mount.dir,
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  const ended = once(child, 'exit')
  await once(child.stdout, 'data')
  return async () => {
    child.stdin.end()
    await ended
  }
}

/** `cidfs fsck` finds every block and the books of `staging/` in order. */
export async function isSound(t: Test, mount: Mount): Promise<void> {
  const { status, stdout, stderr } = await mount.cli(['fsck', mount.dir], { timeoutMs: 60_000 })
  t.equal(status, 0, 'fsck finds no damage', { found: stdout, stderr })
}

/** Files of content that is not published. */
export async function workingObjects(mount: Mount): Promise<string[]> {
  const folder = join(mount.stateDir, 'objects')
  const names = await readdir(folder, { recursive: true, withFileTypes: true })
  return names.filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name))
}
