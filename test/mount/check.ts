/** The checker that compares a mounted tree with what a CAR is known to contain. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { Mount } from '../support/mount.js'
import { fixture, tool } from '../support/root.js'
import { run } from '../support/run.js'
import { isNative } from '../support/transport.js'

/** Expectation to CAR: what is described, and where its blocks are. */
export const FIXTURES: Record<string, string> = {
  'dag-pb-leaves': 'dag-pb-leaves.car',
  'dir-with-dag-cbor-child': 'dir-with-dag-cbor-child.car',
  'dir-with-files': 'dir-with-files.car',
  'file-with-middle-block-missing': 'file-with-middle-block-missing.car',
  'hamt-1000-entries': 'hamt-1000-entries.car',
  'hamt-10100-entries-no-children': 'hamt-10100-entries-no-children.car',
  'hamt-10100-entries-no-children.wrapper': 'hamt-10100-entries-no-children.car',
  'hostile-names-inside-root': 'hostile-names-inside-root.car',
  'mode-mtime': 'mode-mtime.car',
  'nested-small-dirs': 'nested-small-dirs.car',
  symlink: 'symlink.car',
  'unixfs-carv2': 'unixfs-carv2.car',
  'utf8-names': 'utf8-names.car',
}

/** fuse-native has all files in the page cache, which reads whole pages. */
const PAGE_BYTES = 4096
/** Of entries that are not directories; spread over every sort of them. */
const MAX_FILES = 400

/** Asserts that the tree under the root of an expectation is as described. */
export async function checkTree(t: Test, mount: Mount, name: string): Promise<void> {
  const expectation = fixture(join('expect', `${name}.json`))
  const { root } = JSON.parse(await readFile(expectation, 'utf8')) as { root: string }
  const args = [tool('check_mount.py'), expectation, mount.path('ipfs', root)]
  if (!isNative) args.push('--range-align', String(PAGE_BYTES))
  const checked = await run(
    'python3',
    [...args, '--max-files', String(MAX_FILES), '--op-timeout', '10', '--other', 'file'],
    { timeoutMs: 60_000 },
  )
  const [, passed = '0', failed = 'all'] = /(\d+) passed, (\d+) failed/.exec(checked.stdout) ?? []
  t.equal(failed, '0', `${name}: 0 failed`, { found: checked.stdout.slice(-2000), stderr: checked.stderr })
  t.ok(Number(passed) > 0, `${name}: ${passed} passed`)
}
