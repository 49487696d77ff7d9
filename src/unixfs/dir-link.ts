/**
 * Entries of directories, and which names a directory can show.
 *
 * Why links are views: a directory of 100,000 entries is held as its blocks; a name or a CID becomes an object
 * when it is asked for, and is not kept.
 */
import type { CID } from '../core/cid.js'
import { MAX_NAME_BYTES } from '../core/limits.js'
import type { PbNode } from './pb-node.js'

/** An entry. Reading a property may make a new object each time. */
export interface DirLink {
  /** Do not write to it. */
  readonly name: Uint8Array
  readonly cid: CID
  /** Bytes of the DAG below as the directory's author claims; for raw blocks the size of the file. */
  readonly tsize: number
}

/** Link `index` of a node, without the first `skip` bytes of its name. */
export class NodeLink implements DirLink {
  readonly #node: PbNode
  readonly #index: number
  readonly #skip: number

  constructor(node: PbNode, index: number, skip: number) {
    this.#node = node
    this.#index = index
    this.#skip = skip
  }

  get name(): Uint8Array {
    const name = this.#node.name(this.#index)
    return this.#skip === 0 ? name : name.subarray(this.#skip)
  }

  get cid(): CID {
    return this.#node.cid(this.#index)
  }

  get tsize(): number {
    return this.#node.tsize(this.#index)
  }
}

const SLASH = 0x2f
const DOT = 0x2e

/** Whether a POSIX directory can hold the name: not empty, `.` or `..`, no `/` or NUL, at most 255 bytes. */
export function isVisibleName(name: Uint8Array): boolean {
  const { length } = name
  if (length === 0 || length > MAX_NAME_BYTES) return false
  if (name[0] === DOT && (length === 1 || (length === 2 && name[1] === DOT))) return false
  for (let i = 0; i < length; i++) {
    const byte = name[i]
    if (byte === SLASH || byte === 0) return false
  }
  return true
}
