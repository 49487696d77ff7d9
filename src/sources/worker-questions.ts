/**
 * What the main thread asks of the network besides blocks: records of names, and who has what.
 *
 * Invariant: nothing is loaded for a question that nobody asks.
 */

import { CID } from '../core/cid.js'
import { deadline } from '../core/deadline.js'
import type { Handlers } from './calls.js'
import type { NameWorker } from './name-worker.js'
import type { Source } from './source.js'
import { type Providers, whoHas } from './who-has.js'
import type { WorkerNode } from './worker-node.js'
import type { WorkerConfig, WorkerMethods } from './worker-protocol.js'

export class WorkerQuestions {
  readonly #config: WorkerConfig
  readonly #sources: readonly Source[]
  readonly #node: WorkerNode
  #names: Promise<NameWorker> | undefined

  constructor(config: WorkerConfig, sources: readonly Source[], node: WorkerNode) {
    this.#config = config
    this.#sources = sources
    this.#node = node
  }

  readonly handlers: Handlers<WorkerMethods> = {
    findRecord: async (args, signal) => (await this.#nameWorker()).findRecord(args, signal),
    publishRecord: async (args, signal) => (await this.#nameWorker()).publishRecord(args, signal),
    whoHas: ({ cid, timeoutMs }, signal) => {
      const askable = {
        sources: this.#sources,
        neighbours: this.#node.bitswap?.client,
        providers: this.#providers(),
      }
      const limit = deadline(timeoutMs, signal)
      return whoHas(CID.decode(cid), askable, limit)
    },
  }

  async close(): Promise<void> {
    await (await this.#names)?.close()
  }

  #nameWorker(): Promise<NameWorker> {
    this.#names ??= import('./name-worker.js').then(
      ({ NameWorker }) => new NameWorker(this.#config, this.#node.runner),
    )
    return this.#names
  }

  #providers(): Providers | undefined {
    const { runner } = this.#node
    return (
      runner && {
        get self() {
          return runner.status().peerId ?? undefined
        },
        findProviders: (cid, signal) => runner.findProviders(cid, signal),
      }
    )
  }
}
