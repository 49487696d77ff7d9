/**
 * The daemon: its parts, in the order in which they need one another.
 *
 * Invariant: what has been started is stopped in reverse, also when the start fails half-way. The mount answers
 * as soon as the store is open; nothing waits for the network. After `stopped` no mount, socket, thread or
 * lock of ours is left.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { CidfsError } from '../core/errors.js'
import { logger } from '../core/log.js'
import { CidFileSystem } from '../fs/cid-file-system.js'
import type { Session } from '../fs/session.js'
import { FuseSession, type Succession } from '../fuse/session.js'
import { BlockService } from '../sources/block-service.js'
import { NetworkClient } from '../sources/worker-client.js'
import { contentCopier } from '../staging/copy-content.js'
import { KuboBackend } from '../staging/kubo-backend.js'
import { NamedPins } from '../staging/named-pins.js'
import { Staging } from '../staging/staging.js'
import { NetworkBlocks } from '../store/network-blocks.js'
import { Store } from '../store/store.js'
import { Actions } from './actions.js'
import type { Config } from './config.js'
import type { DaemonActions, UnmountResult, UpgradeRequest, UpgradeResult } from './control-protocol.js'
import { type ControlServer, startControlServer } from './control-server.js'
import { existsText } from './exists-actions.js'
import { handOver } from './hand-over.js'
import { Collector } from './maintenance.js'
import { createNaming, type Naming } from './naming.js'
import { NodeServices } from './node-services.js'
import { listPins, type PinParts } from './pin-actions.js'
import { ownCommand, type Supervisor } from './sd-notify.js'
import { SpaceKeeper } from './space-keeper.js'
import { Stalls } from './stalls.js'
import { statusReport } from './status.js'
import {
  adopt,
  endTakeover,
  type Inheritance,
  inherit,
  newSuccession,
  objectsInUse,
  saveTakeover,
  untilUnlocked,
} from './takeover.js'
import { mountSession } from './transport.js'
import { Watchdog } from './watchdog.js'

const log = logger('daemon')

/** Requests under way may take this long to end before the mount is taken down under them. */
const DRAIN_MS = 2_000
/** What is queued may take this long to be published before the daemon ends; the rest waits for the next start. */
const PUBLISH_MS = 30_000

export interface RunningDaemon {
  config: Config
  actions: DaemonActions
  /** Resolves when everything has ended. */
  stopped: Promise<void>
  /** Unmounts and ends; `lazy` at once, whatever is under way. May be called again to be less patient. */
  stop(options?: { lazy?: boolean }): Promise<UnmountResult>
}

/**
 * Starts a daemon; resolves when the mount answers. With a `supervisor` another can take over from it, and it takes
 * over from another if the supervisor has given it a connection.
 * @throws CidfsError `STATE_IN_USE`, `STATE_VERSION`, `STORE_DAMAGED`, `BAD_CONFIG`, `BAD_MOUNTPOINT`,
 * `MISSING_TOOL`, `PERMISSION`.
 */
export async function startDaemon(config: Config, supervisor?: Supervisor): Promise<RunningDaemon> {
  const inheritance = supervisor && (await inherit(config))
  const daemon = new Daemon(config, supervisor)
  try {
    await daemon.start(inheritance)
  } catch (err) {
    await daemon.end()
    throw err
  }
  return daemon
}

/** The parts that speak to others. */
interface Online {
  network: NetworkClient
  naming: Naming
  node: NodeServices
}

class Daemon implements RunningDaemon {
  readonly config: Config
  readonly stopped: Promise<void>
  actions!: DaemonActions
  readonly #startedAt = new Date()
  /** How to stop what has been started, last first. */
  readonly #undo: (() => Promise<unknown> | undefined)[] = []
  #staging: Staging | undefined
  #fs: CidFileSystem | undefined
  #session: Session | undefined
  #control: ControlServer | undefined
  #stopping: Promise<UnmountResult> | undefined
  #impatient = new AbortController()
  #unmounted = false
  #resolveStopped!: () => void
  readonly #supervisor: Supervisor | undefined
  /** What lets another daemon go on with the mount. */
  #succession: Succession | undefined
  #watchdog: Watchdog | undefined
  readonly #stalls = new Stalls()
  /** Under way, or done: the mount is another daemon's. */
  #upgrade: Promise<UpgradeResult> | undefined
  #left = false

  constructor(config: Config, supervisor: Supervisor | undefined) {
    this.config = config
    this.#supervisor = supervisor
    this.stopped = new Promise(resolve => {
      this.#resolveStopped = resolve
    })
  }

  async start(inheritance: Inheritance | undefined): Promise<void> {
    const { config } = this
    this.#left = inheritance !== undefined // what fails from here on is tried again by the next one
    const open = () => Store.open(config.stateDir, { space: config.space })
    const store = await (inheritance === undefined ? open() : untilUnlocked(open))
    this.#undo.push(() => store.close())
    const network = new NetworkClient(config)
    this.#undo.push(() => network.close())
    const blocks = new BlockService(new NetworkBlocks(store), network, config)
    const staging = await this.#startStaging(store, blocks, inheritance)
    const pins = new NamedPins(store, blocks)
    this.#undo.push(() => pins.stop())
    const naming = createNaming(config, store, network, staging)
    this.#undo.push(() => naming.stop())
    const node = new NodeServices(config, store, network)
    this.#undo.push(() => node.stop())
    this.#startFileSystem({ store, blocks, staging, pins }, { network, naming, node }, inheritance)
    await this.#startSession(this.#fs!, inheritance)
    this.#stalls.start()
    this.#undo.push(async () => this.#stalls.stop())
    const keeperPid = this.#supervisor?.keeper?.pid
    this.#control = await startControlServer(
      { ...config, keeperPid, succeeds: inheritance !== undefined },
      this.actions,
    )
    this.#undo.push(() => this.#control?.close({ keepRecord: this.#left }))
    staging.start()
    network.start()
    node.start()
    pins.start()
    naming.start()
    this.#left = false
    void this.#session!.closed.then(() => this.#closed())
    this.#watchdog = Watchdog.start(this.#supervisor, () => this.#describeInFlight())
    this.#supervisor?.ready(ownCommand())
  }

  /** Somebody has unmounted it. */
  #closed(): void {
    if (!this.#left) void this.stop()
  }

  /** Mounts, or goes on with a mount; either way another daemon can go on with it afterwards. */
  async #startSession(fs: CidFileSystem, inheritance: Inheritance | undefined): Promise<void> {
    const { config } = this
    this.#succession = inheritance?.succession
    if (inheritance !== undefined) this.#session = adopt(inheritance, config, fs)
    else {
      if (this.#supervisor !== undefined && config.transport === 'native')
        this.#succession = newSuccession(config.stateDir)
      this.#session = await mountSession(config, fs, this.#succession)
    }
    this.#undo.push(() => this.#endSession())
    if (!(this.#session instanceof FuseSession) || this.#succession === undefined) return
    saveTakeover(config, this.#session, this.#succession)
    const { handles } = this.#succession
    this.#supervisor?.keep('handles', handles.fd)
    this.#session.handOut(fd => this.#supervisor?.keep('fuse', fd))
  }

  async #endSession(): Promise<void> {
    if (this.#left && this.#session instanceof FuseSession) return this.#session.leave()
    await this.#session?.unmount({ lazyAfterMs: 0 })
    if (this.#succession === undefined) return
    for (const name of ['fuse', 'handles'] as const) this.#supervisor?.forget(name)
    endTakeover(this.config.stateDir)
  }

  #describeInFlight(): string {
    return this.#session instanceof FuseSession ? this.#session.describeInFlight() : ''
  }

  /** @throws CidfsError `NOT_SUPPORTED`, `BUSY`: nothing has changed. */
  upgrade({ program }: UpgradeRequest): Promise<UpgradeResult> {
    if (this.#stopping !== undefined || this.#upgrade !== undefined) {
      throw new CidfsError('BUSY', 'the daemon is stopping, or being upgraded already')
    }
    this.#upgrade = this.#handOver(program)
    return this.#upgrade
  }

  async #handOver(program: string[]): Promise<UpgradeResult> {
    try {
      const letGo = async () => {
        this.#left = true
        await this.#endParts()
      }
      const parts = { supervisor: this.#supervisor, succession: this.#succession, letGo }
      const result = await handOver(program, { ...parts, session: this.#session! })
      this.#ended()
      return result
    } catch (err) {
      if (this.#left) {
        process.exitCode = 1 // the supervisor starts another
        this.#ended()
      } else this.#upgrade = undefined
      throw err
    }
  }

  async #startStaging(
    store: Store,
    blocks: BlockService,
    inheritance: Inheritance | undefined,
  ): Promise<Staging> {
    const { kubo: url, settleMs, localNames } = this.config
    const kubo = url === undefined ? undefined : await openKubo(url)
    if (kubo !== undefined) this.#undo.push(() => kubo.close())
    const staging = new Staging(store, {
      owner: { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 },
      settleMs,
      localNames,
      backend: kubo && new KuboBackend(kubo, blocks),
      copyContent: contentCopier(store, blocks),
      resume: inheritance !== undefined,
      inUse: inheritance === undefined ? [] : objectsInUse(inheritance),
    })
    this.#undo.push(() => staging.stop())
    this.#staging = staging
    return staging
  }

  #startFileSystem(parts: PinParts, online: Online, inheritance: Inheritance | undefined): void {
    const { network, naming, node } = online
    const { store, staging, pins } = parts
    const status = () =>
      statusReport({
        config: this.config,
        startedAt: this.#startedAt,
        store,
        staging,
        pins,
        sources: () => network.status(),
        node: () => node.report(),
        fuse: () => this.#session?.report(),
        stalls: () => this.#stalls.report(),
      })
    const controlFiles = {
      status: async () => `${JSON.stringify(await status(), null, 2)}\n`,
      pins: async () => `${JSON.stringify(await listPins(parts), null, 2)}\n`,
      names: () => `${JSON.stringify(this.actions.names.published(), null, 2)}\n`,
    }
    const collector = new Collector(parts)
    const keeper = new SpaceKeeper(store, collector, () => {
      staging.queue.retryFailed()
      pins.retryFailed()
    })
    keeper.start()
    this.#undo.push(() => keeper.stop())
    this.actions = new Actions({
      ...parts,
      collector,
      network,
      naming,
      status,
      stop: options => this.stop(options),
      upgrade: request => this.upgrade(request),
      onBadBlocks: () => {
        this.#fs?.dropCaches()
        pins.recheck()
      },
    })
    const fs = new CidFileSystem({
      ...parts,
      names: naming.names,
      directoryNames: naming.directoryNames,
      whoHas: (cid, signal) => existsText({ store, network }, cid, signal),
      controlFiles,
      resume: inheritance !== undefined,
    })
    this.#undo.push(async () => fs.stop(this.#unmounted))
    this.#fs = fs
  }

  stop({ lazy = false } = {}): Promise<UnmountResult> {
    if (this.#upgrade !== undefined) return this.#stopSuccessor()
    if (lazy) this.#impatient.abort()
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  /** Answers when the mount is gone from the tree; what is left to do then ends with `stopped`. */
  async #stop(): Promise<UnmountResult> {
    const session = this.#session!
    this.#supervisor?.stopping()
    await this.#unlessImpatient(session.drain(DRAIN_MS))
    const result = await session.unmount(this.#impatient.signal.aborted ? { lazyAfterMs: 0 } : {})
    void this.#finish(session, result.lazy)
    return result
  }

  /** Files that are still open are served until they are closed, or until somebody is impatient. */
  async #finish(session: Session, lazy: boolean): Promise<void> {
    if (lazy) await this.#unlessImpatient(session.closed)
    session.close()
    await session.closed
    this.#unmounted = true
    await this.#unlessImpatient(this.#publishQueued())
    await this.end()
  }

  async #publishQueued(): Promise<void> {
    const end = performance.now() + PUBLISH_MS
    const pending = () => [...this.#staging!.queue.jobs()].some(job => job.tries === 0 && !job.isDirectory)
    while (pending() && performance.now() < end && !this.#impatient.signal.aborted) await sleep(20)
  }

  async #unlessImpatient(work: Promise<unknown>): Promise<void> {
    const { signal } = this.#impatient
    if (signal.aborted) return
    let abandon = () => {}
    const impatient = new Promise<void>(resolve => {
      abandon = resolve
      signal.addEventListener('abort', abandon)
    })
    await Promise.race([work, impatient])
    signal.removeEventListener('abort', abandon)
  }

  /** The mount is another's, who has to be told. */
  async #stopSuccessor(): Promise<UnmountResult> {
    const { pid } = await this.#upgrade!
    process.kill(pid, 'SIGTERM')
    return { lazy: false }
  }

  /** Stops whatever runs. Never fails: each part is given its turn. */
  async end(): Promise<void> {
    await this.#endParts()
    this.#ended()
  }

  #ended(): void {
    this.#watchdog?.stop()
    this.#resolveStopped()
  }

  async #endParts(): Promise<void> {
    for (let undo = this.#undo.pop(); undo !== undefined; undo = this.#undo.pop()) {
      try {
        await undo()
      } catch (err) {
        log('while stopping: %O', err)
      }
    }
  }
}

/** Loaded when it is needed: a daemon that takes over is waited for. */
async function openKubo(url: string) {
  const { KuboControl } = await import('../sources/kubo-control.js')
  return new KuboControl(url)
}
