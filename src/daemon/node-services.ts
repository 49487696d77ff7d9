/**
 * What the daemon does for its embedded node: shows it the blocks that peers may have, and has it provide what is
 * pinned.
 *
 * Invariant: started after the mount answers; nothing of the mount waits for it.
 */
import { messageOf } from '../core/errors.js'
import { NODE_OFF, type NodeStatus } from '../p2p/node-status.js'
import { Providing, type ProvidingStatus } from '../sources/providing.js'
import { blockLocator } from '../sources/served-blocks.js'
import type { NetworkClient } from '../sources/worker-client.js'
import type { Store } from '../store/store.js'
import { links } from '../unixfs/inspect.js'
import type { Config } from './config.js'

const STATUS_TIMEOUT_MS = 3_000
/** A walk through the DHT ends long before. */
const PROVIDE_TIMEOUT_MS = 150_000

export interface NodeReport extends NodeStatus {
  providing: ProvidingStatus
  /** What peers may have. */
  serve: 'all' | 'pinned' | 'off'
}

export class NodeServices {
  readonly #config: Config
  readonly #network: NetworkClient
  readonly #providing: Providing

  constructor(config: Config, store: Store, network: NetworkClient) {
    this.#config = config
    this.#network = network
    this.#providing = new Providing(
      store,
      {
        provide: (cid, signal) =>
          network.call('provide', { cid: cid.bytes }, { signal, deadlineMs: PROVIDE_TIMEOUT_MS }),
        status: () => network.call('nodeStatus', null, { deadlineMs: STATUS_TIMEOUT_MS }),
      },
      // what nobody is served is not offered either
      { what: config.node?.serve === 'off' ? 'off' : config.provide, links },
    )
    if (config.node !== undefined) network.serve(blockLocator(store, config.node.serve, links))
  }

  start(): void {
    if (this.#config.node !== undefined) this.#providing.start()
  }

  stop(): Promise<void> {
    return this.#providing.stop()
  }

  /** Null without a node in the configuration. */
  async report(): Promise<NodeReport | null> {
    const { node } = this.#config
    if (node === undefined) return null
    const providing = this.#providing.status()
    return { ...(await this.#status()), providing, serve: node.serve }
  }

  async #status(): Promise<NodeStatus> {
    try {
      return await this.#network.call('nodeStatus', null, { deadlineMs: STATUS_TIMEOUT_MS })
    } catch (err) {
      return { ...NODE_OFF, state: 'waiting', error: messageOf(err) }
    }
  }
}
