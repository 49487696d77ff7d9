/** Mounts with an embedded node, for tests of what neighbours do for each other. */
import { readFile, writeFile } from 'node:fs/promises'
import type { Test } from 'tap'
import type { StatusReport } from '../../src/daemon/control-protocol.js'
import { Mount, type MountOptions } from '../support/mount.js'
import { until } from '../support/until.js'
import { waitFor } from './staged.js'

/** Starting a node takes a second of processor time, connecting little. */
const PATIENCE_MS = 30_000

/** Nobody has this block. */
export const ABSENT = 'bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku'
export const LOOPBACK = '/ip4/127.0.0.1/tcp/0'

export async function status(mount: Mount): Promise<StatusReport> {
  return JSON.parse(await readFile(mount.path('.cidfs', 'status'), 'utf8'))
}

/** A mount whose node listens, on loopback or `at` this address, and where it does. */
export async function listening(
  t: Test,
  options: MountOptions & { at?: string } = {},
): Promise<{ mount: Mount; address: string }> {
  const { at = LOOPBACK, args = [] } = options
  const mount = await Mount.start(t, { ...options, args: ['--listen', at, ...args] })
  const first = async () => (await status(mount)).node?.addresses[0]
  return { mount, address: await until('the node listens', first, PATIENCE_MS) }
}

/** Drops a file into `staging/` and waits until it is pinned; returns its CID. */
export async function stage(mount: Mount, name: string, content: Uint8Array): Promise<string> {
  const path = mount.path('staging', name)
  await writeFile(path, content)
  await waitFor(mount, [path])
  const { cid } = await mount.json<{ cid: string }>(['cid', path])
  return cid
}

/** Until so many peers can be asked for blocks. */
export async function connected(mount: Mount, count = 1): Promise<void> {
  const enough = async () => ((await status(mount)).node?.peers ?? []).filter(p => p.bitswap).length >= count
  await until(`${count} neighbours speak bitswap`, enough, PATIENCE_MS)
}
