/**
 * What all rows share: the content, the daemons, the machine. Each part is made when a row first needs it.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { KuboNode } from '../../test/support/kubo.js'
import type { Mount } from '../../test/support/mount.js'
import type { Transport } from '../../test/support/transport.js'
import { makeBig, makeDirectory, type Sizes } from './content.js'
import { Cidfs, KUBO_PROFILE, type Kubos, startKubos } from './daemons.js'
import type { Machine } from './machine.js'
import { publish, readAll, timeCommand } from './probe.js'
import type { Scope, Workbench } from './workbench.js'

/** A mount that holds all content, and where the content is in it. */
export interface LocalMount {
  mount: Mount
  big: string
  entries: string
}

export interface SettingParts {
  bench: Workbench
  scope: Scope
  machine: Machine
  sizes: Sizes
  withKubo: boolean
  transport: Transport
}

export class Setting {
  readonly cidfs: Cidfs
  readonly machine: Machine
  readonly sizes: Sizes
  readonly withKubo: boolean
  readonly #bench: Workbench
  readonly #dir: string
  readonly #scope: Scope
  readonly #made = new Map<string, Promise<unknown>>()

  constructor(parts: SettingParts) {
    this.#bench = parts.bench
    this.#dir = join(parts.bench.dir, parts.transport)
    mkdirSync(this.#dir)
    this.#scope = parts.scope
    this.machine = parts.machine
    this.sizes = parts.sizes
    this.withKubo = parts.withKubo
    this.cidfs = new Cidfs(parts.transport)
  }

  /** Of its own: another setting has the same content. */
  get dir(): string {
    return this.#dir
  }

  newScope(): Scope {
    return this.#bench.scope()
  }

  dropCaches(): Promise<void> {
    return this.machine.dropCaches(this.dir)
  }

  /** The large file that is read. */
  big(): Promise<string> {
    return this.#once('big', path => makeBig(path, this.sizes.bigBytes))
  }

  /** The large file that is published. */
  bigToPublish(): Promise<string> {
    return this.#once('big-to-publish', path => makeBig(path, this.sizes.bigBytes))
  }

  /** The large file that is changed again and again. */
  bigToStream(): Promise<string> {
    return this.#once('big-to-stream', path => makeBig(path, this.sizes.bigBytes))
  }

  /** The directory that is listed. */
  entries(): Promise<string> {
    return this.#once('entries', path => makeDirectory(path, this.sizes.entries))
  }

  kubos(): Promise<Kubos> {
    return this.#once('kubos', dir => startKubos(this.#scope, dir))
  }

  /** A repository of its own, which no daemon has. */
  kuboWithoutDaemon(): Promise<KuboNode> {
    return this.#once('kubo', () => KuboNode.init(this.#scope, { profiles: [KUBO_PROFILE] }))
  }

  /** CID of the large file, which `provider` holds. */
  bigCid(): Promise<string> {
    return this.#once('big-cid', async () => (await this.kubos()).provider.node.add(await this.big()))
  }

  entriesCid(): Promise<string> {
    return this.#once('entries-cid', async () => (await this.kubos()).provider.node.add(await this.entries()))
  }

  /** Filled through the gateway, or through its own staging where there is no Kubo. */
  local(): Promise<LocalMount> {
    return this.#once('local', () => (this.withKubo ? this.#fetched() : this.#published()))
  }

  async #fetched(): Promise<LocalMount> {
    const { provider } = await this.kubos()
    const mount = await this.cidfs.start(this.#scope, { gateways: [provider.node.gatewayUrl] })
    const [big, entries] = [await this.bigCid(), await this.entriesCid()].map(cid => mount.path('ipfs', cid))
    await readAll(big!, this.sizes.bigBytes)
    await timeCommand(['ls', '-l', entries!], { linesExpected: this.sizes.entries + 1 })
    return { mount, big: big!, entries: entries! }
  }

  async #published(): Promise<LocalMount> {
    const mount = await this.cidfs.start(this.#scope)
    const paths: string[] = []
    for (const source of [await this.big(), await this.entries()]) {
      const target = mount.path('staging', `copy-${paths.length}`)
      await publish(source, target, true)
      const { cid } = await mount.json<{ cid: string }>(['cid', target])
      paths.push(mount.path('ipfs', cid))
    }
    return { mount, big: paths[0]!, entries: paths[1]! }
  }

  #once<T>(name: string, make: (path: string) => Promise<T>): Promise<T> {
    let made = this.#made.get(name) as Promise<T> | undefined
    if (made === undefined) {
      made = make(join(this.dir, name))
      this.#made.set(name, made)
    }
    return made
  }
}
