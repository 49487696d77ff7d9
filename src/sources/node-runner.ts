/**
 * The life of the embedded node inside the network worker: started, and started again when it fails to.
 *
 * Invariant: nothing waits for it but what needs it, while it starts; when it has failed to, whoever needs it is told
 * why at once. The other sources go on meanwhile. libp2p is loaded when the node starts, not before.
 */
import type { Discovery } from '../bitswap/discovery.js'
import type { BitswapHandler } from '../bitswap/link.js'
import type { CID } from '../core/cid.js'
import { CidfsError, messageOf } from '../core/errors.js'
import { orInterrupted } from '../core/interrupted.js'
import { logger } from '../core/log.js'
import type { Host } from '../p2p/host.js'
import type { NodeConfig } from '../p2p/node-config.js'
import { NODE_OFF, type NodeStatus } from '../p2p/node-status.js'
import type { Provider, Router } from '../p2p/routing.js'

const log = logger('sources:node')

const FIRST_PAUSE_MS = 500
const MAX_PAUSE_MS = 60_000

export class NodeRunner implements Discovery {
  readonly #config: NodeConfig
  readonly #bitswap: BitswapHandler
  readonly #routers: readonly Router[]
  readonly #load: () => Promise<typeof import('../p2p/host.js')>
  #host: Host | undefined
  #starting: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #pauseMs = FIRST_PAUSE_MS
  #error: string | undefined
  #stopped = false

  /** `bitswap` hears of the peers of every host that is started. */
  constructor(
    config: NodeConfig,
    bitswap: BitswapHandler,
    routers: readonly Router[] = [],
    load = () => import('../p2p/host.js'),
  ) {
    this.#config = config
    this.#bitswap = bitswap
    this.#routers = routers
    this.#load = load
  }

  start(): void {
    if (this.#stopped) return
    this.#starting = this.#tryToStart()
  }

  /** The node. @throws CidfsError `UNREACHABLE` while there is none. */
  get host(): Host {
    if (this.#host !== undefined) return this.#host
    const why = this.#error === undefined ? 'it is starting' : `it did not start: ${this.#error}`
    throw new CidfsError('UNREACHABLE', `no embedded node: ${why}`)
  }

  async *findProviders(cid: CID, signal: AbortSignal): AsyncGenerator<Provider> {
    await this.#settled(signal)
    yield* this.host.findProviders(cid, signal)
  }

  async connect(provider: Provider, signal: AbortSignal): Promise<void> {
    await this.#settled(signal)
    await this.host.connect(provider, signal)
  }

  /** A start that is under way is waited for: what is asked a moment after the mount is no less worth an answer. */
  async #settled(signal: AbortSignal): Promise<void> {
    if (this.#host === undefined && this.#starting !== undefined) await orInterrupted(this.#starting, signal)
  }

  status(): NodeStatus {
    if (this.#host !== undefined) return this.#host.status()
    const error = this.#error ?? null
    return { ...NODE_OFF, state: error === null ? 'starting' : 'waiting', error }
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#starting
    await this.#host?.stop()
    this.#host = undefined
  }

  async #tryToStart(): Promise<void> {
    try {
      const { Host } = await this.#load()
      this.#host = await Host.start(this.#config, { bitswap: this.#bitswap, routers: this.#routers })
      this.#error = undefined
      this.#pauseMs = FIRST_PAUSE_MS
    } catch (err) {
      this.#error = messageOf(err)
      log('the node did not start: %O', err)
      this.#retry()
    }
  }

  #retry(): void {
    if (this.#stopped) return
    this.#timer = setTimeout(() => this.start(), this.#pauseMs)
    this.#pauseMs = Math.min(MAX_PAUSE_MS, this.#pauseMs * 2)
  }
}
