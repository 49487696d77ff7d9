/**
 * `ipfs/<cid>/…`: immutable content, whatever its spelling and wherever its blocks are.
 *
 * Invariant: a node's content follows from its CID; nothing here changes, so the kernel may keep names,
 * attributes and pages for as long as it likes. Names are proven absent only by blocks that were verified.
 * Why sizes of raw children come from their links: a raw block has no root to look into, and fetching all
 * files of a directory to list it would be absurd. `open` makes sure of the size before a byte is read.
 */
import type { GetOptions } from '../core/blocks.js'
import { type CID, CODEC_RAW, parseCid } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { MAX_BLOCK_BYTES } from '../core/limits.js'
import { isPromise, type MaybePromise, then } from '../core/maybe-promise.js'
import type { BlockService } from '../sources/block-service.js'
import type { Store } from '../store/store.js'
import type { DirLink } from '../unixfs/directory.js'
import { inspect } from '../unixfs/inspect.js'
import type { ContentCache } from './content-cache.js'
import { ContentReader } from './content-reader.js'
import { attributeKey, contentAttribute, contentAttributeNames } from './content-xattrs.js'
import type {
  Attributes,
  Context,
  DirectorySink,
  Entry,
  Fh,
  Ino,
  NegativeEntry,
  Notifier,
  Opened,
  ReadResult,
} from './file-system.js'
import type { HeldRoots } from './held-roots.js'
import { immutableAttributes, isDirectory, linkType } from './immutable-attributes.js'
import { contentIno, directoryIno, IPFS_INO, ROOT_INO } from './ino.js'
import { AFTER_DOTS, addDots, addEntry } from './listing.js'
import { NodeErrors } from './node-errors.js'
import type { ImmutableNode, NodeTable } from './node-table.js'
import { SequentialReaders } from './sequential-readers.js'
import { StatAhead } from './stat-ahead.js'
import {
  direntType,
  FOREVER_MS,
  foreverEntry,
  plainAttributes,
  ReadOnlyTree,
  readOnly,
  S_IFDIR,
  wantsWriting,
} from './tree.js'
import { WholeObjects } from './whole-object.js'

export interface IpfsTreeParts {
  store: Store
  blocks: BlockService
  nodes: NodeTable
  contents: ContentCache
  roots: HeldRoots
}

/** A listing goes back to the kernel after this long, full or not: the rest follows with the next request. */
const SLICE_MS = 4
/** PATH_MAX, without the NUL. */
const MAX_TARGET_BYTES = 4095
/** New roots appear in `ipfs/` while it is mounted. */
const ROOT_LIST_TTL_MS = 1_000

export class IpfsTree extends ReadOnlyTree {
  readonly #parts: IpfsTreeParts
  readonly #reader: ContentReader
  readonly #whole: WholeObjects
  readonly #sequential: SequentialReaders
  readonly #statAhead: StatAhead
  readonly #errors = new NodeErrors()
  #notifier: Notifier | undefined

  constructor(parts: IpfsTreeParts) {
    super()
    this.#parts = parts
    this.#reader = new ContentReader(parts.store, parts.blocks)
    this.#whole = new WholeObjects(parts.store)
    this.#sequential = new SequentialReaders(parts.blocks)
    this.#statAhead = new StatAhead(parts.blocks)
  }

  start(notifier: Notifier | undefined): void {
    this.#notifier = notifier
  }

  stop(): void {
    this.#sequential.close()
    this.#statAhead.close()
  }

  override lookup(parent: Ino, name: Uint8Array, ctx: Context): MaybePromise<Entry | NegativeEntry> {
    return this.#errors.watch(parent, () =>
      parent === IPFS_INO ? this.#lookupRoot(name, ctx) : this.#lookupIn(parent, name, ctx),
    )
  }

  #lookupIn(parent: Ino, name: Uint8Array, ctx: Context): MaybePromise<Entry | NegativeEntry> {
    const options = waitOf(ctx)
    const node = this.#parts.nodes.get(parent)
    const kept = Uint8Array.from(name) // the request's buffer is gone when a shard has to be fetched
    return then(this.#parts.contents.directory(node.cid, options), directory =>
      then(directory.find(kept, options), link => {
        if (link === undefined) return { attributes: undefined, entryTtlMs: FOREVER_MS }
        this.#statAhead.lookedUp(directory, kept)
        return this.#entryOf(link.cid, parent, kept, hintOf(link.cid, link.tsize), options)
      }),
    )
  }

  #lookupRoot(name: Uint8Array, ctx: Context): MaybePromise<Entry | NegativeEntry> {
    let cid: CID
    try {
      cid = parseCid(Buffer.from(name).toString())
    } catch {
      return { attributes: undefined, entryTtlMs: FOREVER_MS }
    }
    return then(this.#entryOf(cid, IPFS_INO, canonicalName(cid), 0, waitOf(ctx)), entry => {
      this.#parts.roots.asked(cid)
      return entry
    })
  }

  /** The entry of a link, counted as one lookup. */
  #entryOf(cid: CID, parent: Ino, name: Uint8Array, hint: number, options: GetOptions): MaybePromise<Entry> {
    return then(this.#inspected(cid, hint, options), inspected => {
      const ino = isDirectory(inspected) ? directoryIno(parent, name) : contentIno(cid)
      const node = this.#parts.nodes.intern(cid, ino, parent, hint)
      node.inspected ??= inspected
      node.nlookup++
      return foreverEntry(immutableAttributes(node.ino, node.inspected))
    })
  }

  /** What a CID is: from its link where that tells, else from its root block. */
  #inspected(
    cid: CID,
    hint: number,
    options: GetOptions,
  ): MaybePromise<NonNullable<ImmutableNode['inspected']>> {
    if (cid.code === CODEC_RAW) {
      const known = this.#parts.store.locate(cid)?.length ?? hint
      if (known > 0) return { kind: 'bytes', sizeBytes: known }
    }
    return then(this.#parts.blocks.get(cid, options), bytes => inspect(cid, bytes))
  }

  #inspectNode(
    node: ImmutableNode,
    options: GetOptions,
  ): MaybePromise<NonNullable<ImmutableNode['inspected']>> {
    if (node.inspected !== undefined) return node.inspected
    return then(this.#inspected(node.cid, node.hintBytes, options), inspected => (node.inspected = inspected))
  }

  override forget(ino: Ino, count: number): void {
    this.#parts.nodes.forget(ino, count)
  }

  override getattr(
    ino: Ino,
    _fh: Fh | undefined,
    ctx: Context,
  ): MaybePromise<{ attributes: Attributes; ttlMs: number }> {
    if (ino === IPFS_INO) {
      return { attributes: plainAttributes(ino, S_IFDIR | 0o555, 0), ttlMs: ROOT_LIST_TTL_MS }
    }
    return then(this.#inspectNode(this.#parts.nodes.get(ino), waitOf(ctx)), inspected => ({
      attributes: immutableAttributes(ino, inspected),
      ttlMs: FOREVER_MS,
    }))
  }

  override readlink(ino: Ino, ctx: Context): MaybePromise<Uint8Array> {
    return then(this.#inspectNode(this.#parts.nodes.get(ino), waitOf(ctx)), inspected => {
      if (inspected.kind !== 'symlink') throw new CidfsError('INVALID', 'not a symbolic link')
      if (inspected.target.length > MAX_TARGET_BYTES) throw new CidfsError('NAME_TOO_LONG', 'target too long')
      return inspected.target
    })
  }

  override open(ino: Ino, flags: number, ctx: Context): MaybePromise<Opened> {
    if (wantsWriting(flags)) throw readOnly()
    const node = this.#parts.nodes.get(ino)
    return this.#errors.watch(ino, () => this.#open(node, ctx))
  }

  #open(node: ImmutableNode, ctx: Context): MaybePromise<Opened> {
    return then(this.#inspectNode(node, waitOf(ctx)), inspected => {
      if (isDirectory(inspected)) throw new CidfsError('IS_DIRECTORY', 'is a directory')
      if (inspected.kind === 'bytes') return this.#openBlock(node, inspected.sizeBytes, ctx)
      return this.#openFile(node, ctx)
    })
  }

  /**
   * A size that came from a link is replaced by the true one. Until the kernel has heard of it, the page cache
   * would cut off what lies behind the wrong size, or fill up to it with zeros: such files bypass it.
   */
  #openBlock(node: ImmutableNode, shownBytes: number, ctx: Context): MaybePromise<Opened> {
    const held = this.#parts.store.locate(node.cid)?.length
    const length = held ?? then(this.#parts.blocks.get(node.cid, waitOf(ctx)), bytes => bytes.length)
    return then(length, sizeBytes => {
      if (sizeBytes !== shownBytes || mayHaveShownOther(node, sizeBytes)) {
        node.inspected = { kind: 'bytes', sizeBytes }
        node.resized = true
        this.#notifier?.invalidateInode(node.ino, -1, 0)
      }
      if (node.resized === true) return { fh: 0, noFlush: true, directIo: true }
      return { fh: 0, noFlush: true, keepCache: true, ...this.#passthrough(this.#whole.ofBlock(node.cid)) }
    })
  }

  /**
   * The page cache reads whole pages: where leaves end within one and some are missing, what is there could
   * not be read, so such files bypass it.
   */
  #openFile(node: ImmutableNode, ctx: Context): MaybePromise<Opened> {
    return then(this.#parts.contents.file(node.cid, waitOf(ctx)), table => {
      const separable = table.aligned || this.#allHeld(table.needed(0, table.sizeBytes))
      const caching = separable ? { keepCache: true } : { directIo: true }
      return then(this.#whole.ofFile(table), object => ({
        fh: this.#sequential.open(),
        noFlush: true,
        ...caching,
        ...this.#passthrough(object),
      }))
    })
  }

  #passthrough(object: number | undefined): Pick<Opened, 'passthrough'> {
    return object === undefined ? {} : { passthrough: this.#whole.passthrough(object) }
  }

  #allHeld(cids: CID[]): boolean {
    return cids.every(cid => this.#parts.store.has(cid))
  }

  override read(ino: Ino, fh: Fh, offset: number, sizeBytes: number, ctx: Context): MaybePromise<ReadResult> {
    return this.#errors.watch(ino, () =>
      this.#read(this.#parts.nodes.get(ino), fh, offset, sizeBytes, waitOf(ctx)),
    )
  }

  #read(
    node: ImmutableNode,
    fh: Fh,
    offset: number,
    sizeBytes: number,
    options: GetOptions,
  ): MaybePromise<ReadResult> {
    return then(this.#inspectNode(node, options), inspected => {
      if (inspected.kind === 'bytes') return this.#reader.readBlock(node.cid, offset, sizeBytes, options)
      if (inspected.kind !== 'file') throw new CidfsError('IS_DIRECTORY', 'not a file')
      return then(this.#parts.contents.file(node.cid, options), table => {
        this.#sequential.advance(fh, table, offset, sizeBytes)
        return this.#reader.readFile(table, offset, sizeBytes, options)
      })
    })
  }

  override reopen(): Fh {
    return this.#sequential.open()
  }

  override release(_ino: Ino, fh: Fh): void {
    this.#sequential.release(fh)
  }

  override opendir(ino: Ino): Opened {
    return ino === IPFS_INO ? { fh: 0 } : { fh: 0, cacheDirectory: true, keepCache: true }
  }

  override readdir(
    ino: Ino,
    _fh: Fh,
    offset: number,
    plus: boolean,
    sink: DirectorySink,
    ctx: Context,
  ): MaybePromise<void> {
    if (ino === IPFS_INO) return this.#listRoots(offset, plus, sink)
    return this.#errors.watch(ino, () => this.#list(ino, offset, plus, sink, ctx))
  }

  #list(ino: Ino, offset: number, plus: boolean, sink: DirectorySink, ctx: Context): MaybePromise<void> {
    const node = this.#parts.nodes.get(ino)
    const options = waitOf(ctx)
    return then(this.#parts.contents.directory(node.cid, options), directory =>
      then(directory.list(options), links => {
        this.#statAhead.listed(directory, links)
        if (!addDots(sink, plus, ino, node.parent, offset)) return
        this.#parts.nodes.batch(() => this.#addLinks(links, ino, Math.max(AFTER_DOTS, offset), plus, sink))
      }),
    )
  }

  #addLinks(
    links: readonly DirLink[],
    parent: Ino,
    offset: number,
    plus: boolean,
    sink: DirectorySink,
  ): void {
    const until = performance.now() + SLICE_MS
    for (let index = offset - AFTER_DOTS; index < links.length; index++) {
      const { cid, name, tsize } = links[index]! // each is decoded anew when it is asked for
      const hint = hintOf(cid, tsize)
      const entry = plus ? this.#localEntry(cid, parent, name, hint) : undefined
      const shown = entry?.attributes ?? this.#localAttributes(cid, parent, name, hint)
      const ino = shown?.ino ?? contentIno(cid)
      const type = shown === undefined ? linkType(cid) : direntType(shown.mode)
      if (!addEntry(sink, plus, { name, ino, type }, AFTER_DOTS + index + 1, entry)) {
        if (entry !== undefined) this.forget(entry.attributes.ino, 1)
        return
      }
      if (index > offset - AFTER_DOTS && performance.now() > until) return
    }
  }

  /** The entry of a link if that needs no network; counted as one lookup. */
  #localEntry(cid: CID, parent: Ino, name: Uint8Array, hint: number): Entry | undefined {
    return this.#ifLocal(cid, hint, () => this.#entryOf(cid, parent, name, hint, {}))
  }

  /** What `stat` would show of a link, if that needs no network: `d_ino` agrees with it. Counts no lookup. */
  #localAttributes(cid: CID, parent: Ino, name: Uint8Array, hint: number): Attributes | undefined {
    return this.#ifLocal(cid, hint, () =>
      then(this.#inspected(cid, hint, {}), inspected => {
        const ino = isDirectory(inspected) ? directoryIno(parent, name) : contentIno(cid)
        return immutableAttributes(ino, inspected)
      }),
    )
  }

  #ifLocal<T>(cid: CID, hint: number, answer: () => MaybePromise<T>): T | undefined {
    if (hint === 0 && !this.#parts.blocks.has(cid)) return undefined
    try {
      const answered = answer()
      return isPromise(answered) ? undefined : answered
    } catch {
      return undefined // a malformed child fails its own lookup, not the listing
    }
  }

  #listRoots(offset: number, plus: boolean, sink: DirectorySink): void {
    if (!addDots(sink, plus, IPFS_INO, ROOT_INO, offset)) return
    for (const { cid, seq } of this.#parts.store.roots.list(Math.max(0, offset - AFTER_DOTS))) {
      const shown = this.#localAttributes(cid, IPFS_INO, canonicalName(cid), 0)
      const ino = shown?.ino ?? contentIno(cid)
      const type = shown === undefined ? linkType(cid) : direntType(shown.mode)
      if (
        !addEntry(sink, plus, { name: Buffer.from(cid.toString()), ino, type }, AFTER_DOTS + seq, undefined)
      )
        return
    }
  }

  override getxattr(ino: Ino, name: string, ctx: Context): MaybePromise<Uint8Array> {
    const error = this.#errors.get(ino)
    if (ino !== IPFS_INO) {
      return contentAttribute(this.#parts, this.#parts.nodes.get(ino).cid, name, error, ctx.signal)
    }
    if (attributeKey(name) === 'error' && error !== undefined) return Buffer.from(error)
    throw new CidfsError('NO_ATTRIBUTE', 'no such attribute')
  }

  override listxattr(ino: Ino): string[] {
    const error = this.#errors.get(ino)
    if (ino !== IPFS_INO) return contentAttributeNames(error)
    return error === undefined ? [] : ['user.ipfs.error']
  }
}

/** An earlier daemon may have told the kernel the size of the link, and not that it is another one. */
function mayHaveShownOther({ nlookup, hintBytes, resized }: ImmutableNode, sizeBytes: number): boolean {
  const inherited = nlookup === Number.POSITIVE_INFINITY
  return inherited && resized === undefined && hintBytes !== 0 && hintBytes !== sizeBytes
}

/** Waiting ends when the program that asked is interrupted. */
function waitOf(ctx: Context): GetOptions {
  return {
    get signal() {
      return ctx.signal
    },
  }
}

/** Every spelling of a CID is one node. */
function canonicalName(cid: CID): Uint8Array {
  return Buffer.from(cid.toV1().toString())
}

/** The size of a raw block as its link tells it; 0 when it tells nothing that can be true. */
function hintOf(cid: CID, tsize: number): number {
  return cid.code === CODEC_RAW && tsize > 0 && tsize <= MAX_BLOCK_BYTES ? tsize : 0
}
