/**
 * The pins of staged content: one for each entry of the root, by its node.
 *
 * Invariant: what an entry held before, or replaced, stays pinned until its present content is: the old pins go in the
 * transaction that adds the new one. Each method is part of the transaction around it.
 * Why a list of old ones (`node.replaced`): a file that was changed and not published yet may be moved over others,
 * again and again, and each of them may be the only copy of something until that file has a CID.
 */
import { CID } from '../core/cid.js'
import type { Store } from '../store/store.js'
import type { BackendQueue } from './backend-queue.js'
import type { LocalNames } from './local-names.js'
import type { Namespace } from './namespace.js'
import { currentCid, lastCid, STAGING_ROOT_INO, type StagingNode } from './node.js'

export interface TopPinsParts {
  store: Pick<Store, 'pins'>
  names: Pick<Namespace, 'put'>
  local: Pick<LocalNames, 'covers'>
  backend: BackendQueue | undefined
}

export class TopPins {
  readonly #parts: TopPinsParts

  constructor(parts: TopPinsParts) {
    this.#parts = parts
  }

  /** Whether it is an entry of the root that is published. */
  isTop(node: StagingNode): boolean {
    return node.parent === STAGING_ROOT_INO && !this.#parts.local.covers(node)
  }

  pin(node: StagingNode, cid: CID): void {
    const { store, backend } = this.#parts
    store.pins.add(cid, ownerOf(node))
    backend?.want(node.ino, Buffer.from(node.name).toString(), cid)
  }

  /** The node is no entry any more, or its name is a local one now. */
  unpin(node: StagingNode): void {
    const { backend } = this.#parts
    const cid = lastCid(node)
    this.#release(node, cid === undefined ? [] : [cid])
    backend?.want(node.ino, Buffer.from(node.name).toString(), undefined)
  }

  /** `node`, of which the present content is not published, takes the place of an entry that goes. */
  inherit(node: StagingNode, replaced: StagingNode): void {
    const { store, names, backend } = this.#parts
    backend?.replace(replaced.ino, node.ino, Buffer.from(replaced.name).toString())
    if (!node.dirty) return
    const last = replaced.cid === undefined ? [] : [replaced.cid]
    const old = unique([...(node.replaced ?? []), ...(replaced.replaced ?? []), ...last])
    if (old.length === 0) return
    node.replaced = old
    names.put(node)
    for (const cid of old) store.pins.add(CID.decode(cid), ownerOf(node))
  }

  /** The present content of a node has got its CID; `previous` is the one before. */
  published(node: StagingNode, previous: CID | undefined): void {
    const cid = currentCid(node)
    if (cid === undefined || !this.isTop(node)) return
    this.pin(node, cid)
    this.#release(node, previous === undefined || previous.equals(cid) ? [] : [previous], cid)
  }

  #release(node: StagingNode, cids: CID[], kept?: CID): void {
    const { store, names } = this.#parts
    const replaced = (node.replaced ?? []).map(cid => CID.decode(cid))
    for (const cid of [...cids, ...replaced]) {
      if (kept === undefined || !cid.equals(kept)) store.pins.remove(cid, ownerOf(node))
    }
    if (node.replaced === undefined) return
    delete node.replaced
    names.put(node)
  }
}

function unique(cids: Uint8Array[]): Uint8Array[] {
  return [...new Map(cids.map(cid => [Buffer.from(cid).toString('latin1'), cid])).values()]
}

function ownerOf(node: StagingNode): string {
  return `staging:${node.ino}`
}
