/**
 * The embedded node as the network worker has it: bitswap, the node under it, and the calls about them.
 *
 * Invariant: without a node in the configuration nothing of libp2p is loaded, and every call says so.
 */
import { Bitswap } from '../bitswap/bitswap.js'
import type { Discovery } from '../bitswap/discovery.js'
import type { BitswapHandler } from '../bitswap/link.js'
import type { BlockSupply } from '../bitswap/supply.js'
import { CID } from '../core/cid.js'
import { deadline } from '../core/deadline.js'
import { CidfsError } from '../core/errors.js'
import { NODE_OFF } from '../p2p/node-status.js'
import type { Provider } from '../p2p/routing.js'
import type { Handlers } from './calls.js'
import { parseRouterUrl } from './config.js'
import { DelegatedRouter } from './delegated-router.js'
import { NodeRunner } from './node-runner.js'
import type { WorkerConfig, WorkerMethods } from './worker-protocol.js'

const PROVIDE_TIMEOUT_MS = 120_000

interface Running {
  readonly node: NodeRunner
  readonly bitswap: Bitswap
}

export class WorkerNode {
  /** A peer that can be asked for blocks has connected. */
  onPeer: () => void = () => {}
  readonly #running: Running | undefined
  readonly #routers: DelegatedRouter[]

  /** `supply` finds what is to be served. Nothing is started yet. */
  constructor({ node }: Pick<WorkerConfig, 'node'>, supply: BlockSupply) {
    this.#routers = (node?.routers ?? []).map(url => new DelegatedRouter(parseRouterUrl(url)))
    if (node === undefined) return
    const discovery: Discovery = {
      findProviders: (cid, signal) => runner.findProviders(cid, signal),
      connect: (provider, signal) => runner.connect(provider, signal),
    }
    const bitswap = new Bitswap({ discovery, ...(node.serve === 'off' ? {} : { supply }) })
    const handler: BitswapHandler = {
      connected: link => {
        bitswap.connected(link)
        this.onPeer()
      },
      disconnected: peerId => bitswap.disconnected(peerId),
      inbound: (peerId, version) => bitswap.inbound(peerId, version),
    }
    const runner = new NodeRunner(node, handler, this.#routers)
    this.#running = { node: runner, bitswap }
  }

  /** Undefined when the configuration has no node. */
  get bitswap(): Bitswap | undefined {
    return this.#running?.bitswap
  }

  /** Undefined when the configuration has no node. */
  get runner(): NodeRunner | undefined {
    return this.#running?.node
  }

  start(): void {
    this.runner?.start()
  }

  readonly handlers: Handlers<WorkerMethods> = {
    nodeStatus: () =>
      this.#running === undefined
        ? NODE_OFF
        : { ...this.#running.node.status(), bitswap: this.#running.bitswap.report },
    findProviders: ({ cid, limit, deadlineMs }, signal) =>
      this.#findProviders(CID.decode(cid), limit, deadline(deadlineMs, signal)),
    provide: ({ cid }, signal) =>
      this.#node.host.routing.provide(CID.decode(cid), deadline(PROVIDE_TIMEOUT_MS, signal)),
  }

  async close(): Promise<void> {
    await this.runner?.stop()
    await this.bitswap?.close()
    await Promise.all(this.#routers.map(router => router.close()))
  }

  get #node(): NodeRunner {
    if (this.runner !== undefined) return this.runner
    throw new CidfsError('UNREACHABLE', 'there is no embedded node')
  }

  async #findProviders(cid: CID, limit: number, signal: AbortSignal): Promise<Provider[]> {
    const found: Provider[] = []
    for await (const provider of this.#node.findProviders(cid, signal)) {
      found.push(provider)
      if (found.length >= limit) break
    }
    return found
  }
}
