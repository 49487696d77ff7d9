/**
 * A directory in one block.
 *
 * Invariant: `find` and `list` agree; of several links with one name the first counts.
 */
import { binaryString } from '../core/cid.js'
import { type DirLink, isVisibleName, NodeLink } from './dir-link.js'
import type { PbNode } from './pb-node.js'

/** Up to here a search along the links is cheaper than an index. */
const SCAN_LIMIT = 16

export class PlainDirectory {
  readonly #node: PbNode
  #links: DirLink[] | undefined
  #index: Map<string, number> | undefined
  #hidden = 0

  /** `node` is kept. */
  constructor(node: PbNode) {
    this.#node = node
  }

  get hidden(): number {
    this.list()
    return this.#hidden
  }

  get heldBytes(): number {
    return this.#node.bytes.length
  }

  find(name: Uint8Array): DirLink | undefined {
    if (!isVisibleName(name)) return undefined
    const index = this.#node.linkCount <= SCAN_LIMIT ? this.#scan(name) : this.#lookUp(name)
    return index === -1 ? undefined : new NodeLink(this.#node, index, 0)
  }

  list(): readonly DirLink[] {
    this.#links ??= this.#visibleLinks()
    return this.#links
  }

  #scan(name: Uint8Array): number {
    for (let i = 0; i < this.#node.linkCount; i++) {
      if (this.#node.nameLength(i) === name.length && Buffer.compare(this.#node.name(i), name) === 0) return i
    }
    return -1
  }

  #lookUp(name: Uint8Array): number {
    this.#index ??= this.#makeIndex()
    return this.#index.get(binaryString(name)) ?? -1
  }

  #makeIndex(): Map<string, number> {
    const index = new Map<string, number>()
    for (let i = this.#node.linkCount - 1; i >= 0; i--) index.set(binaryString(this.#node.name(i)), i)
    return index
  }

  #visibleLinks(): DirLink[] {
    const isFirst = this.#isSorted() ? () => true : this.#firstOfName()
    const links: DirLink[] = []
    for (let i = 0; i < this.#node.linkCount; i++) {
      if (isVisibleName(this.#node.name(i)) && isFirst(i)) links.push(new NodeLink(this.#node, i, 0))
    }
    this.#hidden = this.#node.linkCount - links.length
    return links
  }

  /** Strictly ascending, as every well-made directory is: then there are no duplicates. */
  #isSorted(): boolean {
    for (let i = 1; i < this.#node.linkCount; i++) {
      if (Buffer.compare(this.#node.name(i - 1), this.#node.name(i)) >= 0) return false
    }
    return true
  }

  #firstOfName(): (index: number) => boolean {
    this.#index ??= this.#makeIndex()
    const index = this.#index
    return i => index.get(binaryString(this.#node.name(i))) === i
  }
}
