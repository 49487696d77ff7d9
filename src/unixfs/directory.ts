/**
 * A UnixFS directory, in one block or sharded.
 *
 * Invariant: `find` and `list` agree. What is decoded is kept, so the second lookup costs no decoding; how many
 * directories are kept is the caller's business (`heldBytes` says what one costs).
 */
import type { BlockReader, GetOptions } from '../core/blocks.js'
import type { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import type { MaybePromise } from '../core/maybe-promise.js'
import type { DirLink } from './dir-link.js'
import { HamtDirectory } from './hamt-directory.js'
import { type Metadata, metadataOf } from './inspect.js'
import { decodeNode, type UnixfsNode } from './node.js'
import { PlainDirectory } from './plain-directory.js'

export type { DirLink } from './dir-link.js'

export class Directory {
  readonly cid: CID
  readonly sharded: boolean
  readonly metadata: Metadata
  readonly #entries: PlainDirectory | HamtDirectory

  private constructor(cid: CID, bytes: Uint8Array, node: UnixfsNode, blocks: BlockReader) {
    this.cid = cid
    this.sharded = node.unixfs.type === 'hamt-shard'
    this.metadata = metadataOf(node)
    this.#entries = this.sharded
      ? new HamtDirectory(cid, bytes, blocks)
      : new PlainDirectory(node.pb.compact())
  }

  /**
   * The directory whose root block is `bytes`. Shards below come from `blocks`.
   * @throws CidfsError `MALFORMED_DAG`, `NOT_DIRECTORY`, `UNSUPPORTED_HASH` (a HAMT with an unknown hash).
   */
  static open(cid: CID, bytes: Uint8Array, blocks: BlockReader): Directory {
    const node = decodeNode(cid, bytes)
    const { type } = node.unixfs
    if (type !== 'directory' && type !== 'hamt-shard') {
      throw new CidfsError('NOT_DIRECTORY', `${cid}: ${type}, not a directory`, { cid: cid.toString() })
    }
    return new Directory(cid, bytes, node, blocks)
  }

  /**
   * The entry of that name, undefined when it is proven absent. Gets only the shards on the way to it.
   * @throws CidfsError what `BlockReader.get` throws; `MALFORMED_DAG`.
   */
  find(name: Uint8Array, options?: GetOptions): MaybePromise<DirLink | undefined> {
    return this.#entries.find(name, options)
  }

  /**
   * All entries, always in the same order and the same array: do not change it. Gets all shards; when one
   * cannot be had it fails rather than leave entries out.
   * @throws CidfsError what `BlockReader.get` throws; `MALFORMED_DAG`.
   */
  list(options?: GetOptions): MaybePromise<readonly DirLink[]> {
    return this.#entries.list(options)
  }

  /**
   * Links that `list` does not show: names no POSIX directory can hold, further links of the same name, and
   * entries in the wrong place of a HAMT. Of a sharded directory only known (and 0 before) once listed.
   */
  get hidden(): number {
    return this.#entries.hidden
  }

  /** Bytes of blocks kept in memory. */
  get heldBytes(): number {
    return this.#entries.heldBytes
  }
}
