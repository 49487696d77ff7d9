/**
 * The daemons that compete: cidfs mounts and two Kubos, all on loopback.
 *
 * Invariant: `provider` holds all content and serves it; `reader` holds none before a cold row and gets it from
 * the provider alone, over one connection. Both have Kubo's own mount.
 */
import { join } from 'node:path'
import { KuboNode } from '../../test/support/kubo.js'
import { Mount, type MountOptions } from '../../test/support/mount.js'
import { run } from '../../test/support/run.js'
import type { Transport } from '../../test/support/transport.js'
import { MemoryLog } from './memory-log.js'
import { mountpoints, type Scope } from './workbench.js'

export interface MountedKubo {
  node: KuboNode
  ipfs: string
  mfs: string
}

/** What cidfs publishes with as well. */
export const KUBO_PROFILE = 'unixfs-v1-2025'

export interface Kubos {
  memory: MemoryLog
  provider: MountedKubo
  reader: MountedKubo
}

export async function startKubos(scope: Scope, dir: string): Promise<Kubos> {
  const memory = new MemoryLog()
  const provider = await startKubo(scope, join(dir, 'provider'), memory)
  const reader = await startKubo(scope, join(dir, 'reader'), memory)
  await reader.node.connect(provider.node)
  return { memory, provider, reader }
}

async function startKubo(scope: Scope, dir: string, memory: MemoryLog): Promise<MountedKubo> {
  const node = await KuboNode.start(scope, { profiles: [KUBO_PROFILE] })
  scope.teardown(() => unmountBelow(dir)) // before Kubo ends: it leaves dead mounts behind when it is in a hurry
  const { ipfs, mfs } = await node.mount(dir)
  await memory.started(node.pid)
  return { node, ipfs, mfs }
}

async function unmountBelow(dir: string): Promise<void> {
  const below = (await mountpoints()).filter(path => path.startsWith(`${dir}/`))
  for (const path of below) await run('umount', ['-l', path])
}

/**
 * `reader` holds nothing afterwards. The connection is made anew: over the old one, `provider` takes blocks that it
 * has sent before for delivered, and a read hangs.
 */
export async function emptyReader({ reader, provider }: Kubos): Promise<void> {
  await reader.node.ipfs(['repo', 'gc', '--quiet'])
  const [address] = await provider.node.addresses()
  await reader.node.ipfs(['swarm', 'disconnect', address!])
  await reader.node.ipfs(['swarm', 'connect', address!])
}

export class Cidfs {
  readonly memory = new MemoryLog()

  constructor(readonly transport: Transport) {}

  /** A mount with a new state. */
  async start(scope: Scope, options: MountOptions = {}): Promise<Mount> {
    const mount = await Mount.start(scope, { transport: this.transport, ...options })
    await this.memory.started(mount.pid)
    scope.teardown(() => this.memory.ending(mount.pid))
    return mount
  }
}
