/**
 * Hands published content to a Kubo (or to an IPFS Cluster that speaks its API): imported as a CAR, pinned
 * under the name of the staged entry.
 */
import type { BlockReader } from '../core/blocks.js'
import type { CID } from '../core/cid.js'
import type { KuboControl } from '../sources/kubo-control.js'
import { exportCar } from '../store/car-export.js'
import { links } from '../unixfs/inspect.js'
import type { Backend } from './backend.js'

export class KuboBackend implements Backend {
  readonly name = 'kubo'
  readonly #kubo: KuboControl
  readonly #blocks: BlockReader

  constructor(kubo: KuboControl, blocks: BlockReader) {
    this.#kubo = kubo
    this.#blocks = blocks
  }

  async publish(cid: CID, label: string, signal: AbortSignal): Promise<void> {
    await this.#kubo.importAndPin(cid, exportCar(cid, this.#blocks, links), { signal, name: label })
  }

  async unpublish(cid: CID, signal: AbortSignal): Promise<void> {
    await this.#kubo.unpin(cid, signal)
  }
}
