/**
 * The daemon: its parts, in the order in which they need one another.
 *
 * Invariant: what has been started is stopped in reverse, also when the start fails half-way. The mount answers
 * as soon as the store is open; nothing waits for the network. After `stopped` no mount, socket, thread or
 * lock of ours is left.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { logger } from '../core/log.js'
import { CidFileSystem } from '../fs/cid-file-system.js'
import { FuseSession } from '../fuse/session.js'
import { BlockService } from '../sources/block-service.js'
import { KuboControl } from '../sources/kubo-control.js'
import { NetworkClient } from '../sources/worker-client.js'
import { contentCopier } from '../staging/copy-content.js'
import { KuboBackend } from '../staging/kubo-backend.js'
import { NamedPins } from '../staging/named-pins.js'
import { Staging } from '../staging/staging.js'
import { Store } from '../store/store.js'
import { Actions } from './actions.js'
import type { Config } from './config.js'
import type { DaemonActions, UnmountResult } from './control-protocol.js'
import { type ControlServer, startControlServer } from './control-server.js'
import { listPins, type PinParts } from './pin-actions.js'
import { statusReport } from './status.js'

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
 * Starts a daemon; resolves when the mount answers.
 * @throws CidfsError `STATE_IN_USE`, `STATE_VERSION`, `STORE_DAMAGED`, `BAD_CONFIG`, `BAD_MOUNTPOINT`,
 * `MISSING_TOOL`, `PERMISSION`.
 */
export async function startDaemon(config: Config): Promise<RunningDaemon> {
  const daemon = new Daemon(config)
  try {
    await daemon.start()
  } catch (err) {
    await daemon.end()
    throw err
  }
  return daemon
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
  #session: FuseSession | undefined
  #control: ControlServer | undefined
  #stopping: Promise<UnmountResult> | undefined
  #impatient = new AbortController()
  #unmounted = false
  #resolveStopped!: () => void

  constructor(config: Config) {
    this.config = config
    this.stopped = new Promise(resolve => {
      this.#resolveStopped = resolve
    })
  }

  async start(): Promise<void> {
    const { config } = this
    const store = await Store.open(config.stateDir)
    this.#undo.push(() => store.close())
    const network = new NetworkClient(config)
    this.#undo.push(() => network.close())
    const blocks = new BlockService(store, network, config)
    const staging = this.#startStaging(store, blocks)
    const pins = new NamedPins(store, blocks)
    this.#undo.push(() => pins.stop())
    this.#startFileSystem({ store, blocks, staging, pins }, network)
    const fs = this.#fs!
    this.#session = await FuseSession.mount(config.mountpoint, fs, {
      allowOther: config.allowOther,
      passthrough: config.passthrough === 'auto',
    })
    this.#undo.push(async () => void (await this.#session?.unmount({ lazyAfterMs: 0 })))
    this.#control = await startControlServer(config, this.actions)
    this.#undo.push(() => this.#control?.close())
    staging.start()
    network.start()
    pins.start()
    void this.#session.closed.then(() => this.stop())
  }

  #startStaging(store: Store, blocks: BlockService): Staging {
    const { kubo: url, settleMs, localNames } = this.config
    const kubo = url === undefined ? undefined : new KuboControl(url)
    if (kubo !== undefined) this.#undo.push(() => kubo.close())
    const staging = new Staging(store, {
      owner: { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 },
      settleMs,
      localNames,
      backend: kubo && new KuboBackend(kubo, blocks),
      copyContent: contentCopier(store, blocks),
    })
    this.#undo.push(() => staging.stop())
    this.#staging = staging
    return staging
  }

  #startFileSystem(parts: PinParts, network: NetworkClient): void {
    const { store, staging, pins } = parts
    const status = () =>
      statusReport({
        config: this.config,
        startedAt: this.#startedAt,
        store,
        staging,
        pins,
        sources: () => network.status(),
        fuse: () => this.#session?.report(),
      })
    const controlFiles = {
      status: async () => `${JSON.stringify(await status(), null, 2)}\n`,
      pins: async () => `${JSON.stringify(await listPins(parts), null, 2)}\n`,
    }
    this.actions = new Actions({
      ...parts,
      status,
      stop: options => this.stop(options),
      onBadBlocks: () => {
        this.#fs?.dropCaches()
        pins.recheck()
      },
    })
    const fs = new CidFileSystem({ ...parts, controlFiles, resume: false })
    this.#undo.push(async () => fs.stop(this.#unmounted))
    this.#fs = fs
  }

  stop({ lazy = false } = {}): Promise<UnmountResult> {
    if (lazy) this.#impatient.abort()
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  /** Answers when the mount is gone from the tree; what is left to do then ends with `stopped`. */
  async #stop(): Promise<UnmountResult> {
    const session = this.#session!
    await this.#unlessImpatient(session.drain(DRAIN_MS))
    const result = await session.unmount(this.#impatient.signal.aborted ? { lazyAfterMs: 0 } : {})
    void this.#finish(session, result.lazy)
    return result
  }

  /** Files that are still open are served until they are closed, or until somebody is impatient. */
  async #finish(session: FuseSession, lazy: boolean): Promise<void> {
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

  /** Stops whatever runs. Never fails: each part is given its turn. */
  async end(): Promise<void> {
    for (let undo = this.#undo.pop(); undo !== undefined; undo = this.#undo.pop()) {
      try {
        await undo()
      } catch (err) {
        log('while stopping: %O', err)
      }
    }
    this.#resolveStopped()
  }
}
