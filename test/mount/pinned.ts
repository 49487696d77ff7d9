/** What the tests of pins share: DAGs to pin, what the mount and the command say of them. */
import type { CID } from '../../src/core/cid.js'
import type { PinReport } from '../../src/daemon/control-protocol.js'
import { type Dag, link, pattern } from '../support/dag.js'
import type { Mount } from '../support/mount.js'
import type { RunResult } from '../support/run.js'
import { until } from '../support/until.js'
import { askOne } from './ask.js'

export const FILES = 40

/** A directory of small files. Different for every `seed`. */
export function folder(dag: Dag, seed = 1, files = FILES): { root: CID; leaves: CID[] } {
  const leaves = Array.from({ length: files }, (_, i) => dag.raw(pattern(1000, seed * 1000 + i)))
  return { root: dag.directory(leaves.map((cid, i) => link(cid, `${i}`))), leaves }
}

/** An attribute of the link itself, or the name of the errno. */
export async function attribute(mount: Mount, name: string, key: string): Promise<string> {
  const { bytes, errno } = await askOne({ op: 'xattr', path: mount.path('pins', name), name: `ipfs.${key}` })
  return bytes?.toString() ?? errno!
}

export function becomes(mount: Mount, name: string, state: string): Promise<true> {
  return until(`pins/${name} is ${state}`, async () => (await attribute(mount, name, 'state')) === state)
}

/** Commands that name no path name the daemon: others may run on this machine. */
export function cli(mount: Mount, args: string[]): Promise<RunResult> {
  return mount.cli([...args, '--state', mount.stateDir])
}

export function json<T>(mount: Mount, args: string[]): Promise<T> {
  return mount.json([...args, '--state', mount.stateDir])
}

export const pinList = (mount: Mount): Promise<PinReport[]> => json(mount, ['pin', 'ls'])
