/**
 * The directory that is mounted: the trees by name.
 *
 * Invariant: its names never change while the mount lives. `.cidfs` is found but not listed.
 */
import type { MaybePromise } from '../core/maybe-promise.js'
import type { Attributes, Context, DirectorySink, Entry, Fh, Ino, NegativeEntry } from './file-system.js'
import { CONTROL_INO, IPFS_INO, IPNS_INO, PINS_INO, ROOT_INO, STAGING_ROOT_INO } from './ino.js'
import { listFixed } from './listing.js'
import { DT_DIR, FOREVER_MS, foreverEntry, plainAttributes, ReadOnlyTree, S_IFDIR } from './tree.js'

const LISTED: readonly [string, Ino][] = [
  ['ipfs', IPFS_INO],
  ['ipns', IPNS_INO],
  ['staging', STAGING_ROOT_INO],
  ['pins', PINS_INO],
]
const NAMES = new Map<string, Ino>([...LISTED, ['.cidfs', CONTROL_INO]])

type AttributesOf = (ino: Ino, ctx: Context) => MaybePromise<{ attributes: Attributes; ttlMs: number }>

export class RootTree extends ReadOnlyTree {
  readonly #attributesOf: AttributesOf

  /** `attributesOf`: the attributes of the directories named here. */
  constructor(attributesOf: AttributesOf) {
    super()
    this.#attributesOf = attributesOf
  }

  override lookup(_parent: Ino, name: Uint8Array, ctx: Context): MaybePromise<Entry | NegativeEntry> {
    const ino = NAMES.get(Buffer.from(name).toString())
    if (ino === undefined) return { attributes: undefined, entryTtlMs: FOREVER_MS }
    const found = this.#attributesOf(ino, ctx)
    const entry = (of: { attributes: Attributes; ttlMs: number }): Entry => ({
      ...foreverEntry(of.attributes),
      attributesTtlMs: of.ttlMs,
    })
    return found instanceof Promise ? found.then(entry) : entry(found)
  }

  override getattr(_ino: Ino, _fh: Fh | undefined, _ctx: Context): { attributes: Attributes; ttlMs: number } {
    const attributes = plainAttributes(ROOT_INO, S_IFDIR | 0o755, 0)
    return { attributes: { ...attributes, nlink: 2 + NAMES.size }, ttlMs: FOREVER_MS }
  }

  override readdir(_ino: Ino, _fh: Fh, offset: number, plus: boolean, sink: DirectorySink): void {
    const entries = LISTED.map(([name, ino]) => ({ name: Buffer.from(name), ino, type: DT_DIR }))
    listFixed(ROOT_INO, ROOT_INO, entries, offset, plus, sink)
  }
}
