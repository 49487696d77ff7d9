/**
 * The block store: blocks on disk, the index over them, pins and roots.
 *
 * Invariant: a block that `has` is whole and verified (by whoever put it) and can be read with one pread(2) of
 * its location. One thread owns the store and writes it; any thread may read from an acquired descriptor.
 * What was put is visible at once and survives the death of the process; `flush` makes it survive that of the
 * machine. Identity CIDs carry their bytes and are never stored.
 */
import * as fs from 'node:fs'
import type { RootDatabase } from 'lmdb'
import type { BlockWriter, Location } from '../core/blocks.js'
import { type CID, isIdentity } from '../core/cid.js'
import { CidfsError, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { BlockIndex } from './block-index.js'
import { type Container, Containers } from './containers.js'
import { DescriptorCache } from './descriptor-cache.js'
import { Environment } from './environment.js'
import { Flusher } from './flusher.js'
import { type Leaf, Objects } from './objects.js'
import { readFully, recover } from './pack-recovery.js'
import { type Block, Packs } from './packs.js'
import { Pins } from './pins.js'
import { Roots } from './roots.js'
import { Space, type SpaceLimits } from './space.js'
import { StateDirectory } from './state-directory.js'
import { type Usage, usageOf } from './usage.js'

export type { Leaf }

const log = logger('store')

const PACK_MAX_BYTES = 256 * 1024 * 1024
const FLUSH_INTERVAL_MS = 5000
const DESCRIPTORS = 256

export interface StoreOptions {
  /** A pack is closed when it reaches this size. */
  packMaxBytes?: number
  /** Descriptors of containers kept open for later reads. */
  maxDescriptors?: number
  /** At most this long after a write, a flush begins by itself. */
  flushIntervalMs?: number
  /** Tells one boot of the machine from another; the kernel's boot id when absent. */
  bootId?: string
  /** No limits when absent. */
  space?: SpaceLimits
}

/** What garbage collection needs to hear about while it runs. */
export interface Watcher {
  /** A block was put, or would have been if it were not here already. */
  onBlock(location: Location): void
  onPin(cid: CID): void
}

export class Store implements BlockWriter {
  readonly pins: Pins
  readonly roots: Roots
  /** Of this layer; garbage collection and fsck use them. */
  readonly containers: Containers
  readonly index: BlockIndex
  readonly packs: Packs
  /** What may still be written. */
  readonly space: Space
  /** Set while garbage collection runs. */
  watcher: Watcher | undefined
  readonly #state: StateDirectory
  readonly #environment: Environment
  readonly #flusher: Flusher
  readonly #descriptors: DescriptorCache
  readonly #objects: Objects
  #isRelieving = false
  #closing: Promise<void> | undefined

  private constructor(state: StateDirectory, environment: Environment, options: StoreOptions) {
    this.#state = state
    this.#environment = environment
    this.containers = new Containers(environment, state)
    this.index = new BlockIndex(environment)
    this.space = new Space(state.path, this.containers, options.space)
    const packBytes = options.packMaxBytes ?? this.space.packBytes ?? PACK_MAX_BYTES
    this.packs = new Packs(this.containers, packBytes)
    this.roots = new Roots(environment)
    this.pins = new Pins(
      environment,
      this.roots,
      cid => this.watcher?.onPin(cid),
      () => this.space.noteGarbage(),
    )
    this.#flusher = new Flusher(environment, this.containers, options.flushIntervalMs ?? FLUSH_INTERVAL_MS)
    environment.onFull = () => this.#diskFull()
    this.space.holders.add(() => this.flushAndUnlink())
    this.space.onReserve = isHeld => this.#flusher.spare(!isHeld)
    this.#descriptors = new DescriptorCache(options.maxDescriptors ?? DESCRIPTORS, id => this.#pathOf(id))
    this.#objects = new Objects({
      environment,
      containers: this.containers,
      index: this.index,
      flusher: this.#flusher,
      held: cid => this.#heldAndWanted(cid),
      put: (cid, bytes) => void this.put(cid, bytes),
      forget: object => this.removeContainer(object),
    })
  }

  /**
   * Opens the store in a state directory, which is created where it is missing, and repairs what a crash left.
   * @throws CidfsError `STATE_IN_USE`, `STATE_VERSION`, `STORE_DAMAGED`, `NO_SPACE`, `IO`.
   */
  static async open(dir: string, options: StoreOptions = {}): Promise<Store> {
    const state = StateDirectory.open(dir)
    let environment: Environment | undefined
    try {
      environment = new Environment(state, options.bootId)
      const store = new Store(state, environment, options)
      await store.#recover()
      return store
    } catch (err) {
      await environment?.close()
      state.close()
      throw err
    }
  }

  /** The directory it was opened in. */
  get path(): string {
    return this.#state.path
  }

  /** The LMDB environment, for databases of the upper layers. Only its synchronous writes may be used. */
  get env(): RootDatabase {
    return this.#environment.root
  }

  /**
   * All index writes of `fn` or, when it throws, none; blocks it appended are then garbage in a pack. `fn` may
   * not be asynchronous.
   */
  transaction<T>(fn: () => T): T {
    return this.#environment.transaction(fn)
  }

  /** Takes something back in memory should the transaction under way fail. */
  onRollback(step: () => void): void {
    this.#environment.onRollback(step)
  }

  /** Whether the block can be read here and now. */
  has(cid: CID): boolean {
    return isIdentity(cid) || this.locate(cid) !== undefined
  }

  /** Where the block lies; undefined when it is not held, and for identity CIDs. */
  locate(cid: CID): Location | undefined {
    if (isIdentity(cid)) return undefined
    const location = this.index.get(cid.multihash.bytes)
    return location !== undefined && this.containers.covers(location) ? location : undefined
  }

  /** The whole block, read synchronously; undefined when it is not held. */
  get(cid: CID): Uint8Array | undefined {
    if (isIdentity(cid)) return cid.multihash.digest
    const location = this.locate(cid)
    if (location === undefined) return undefined
    const bytes = this.peek(location)
    if (bytes === undefined) this.forgetMissing(cid, location)
    return bytes
  }

  /** The bytes at a location; undefined when its file is gone or too short. */
  peek({ container, offset, length }: Location): Uint8Array | undefined {
    const fd = this.#tryAcquire(container)
    if (fd === undefined) return undefined
    try {
      const bytes = new Uint8Array(Buffer.allocUnsafeSlow(length).buffer, 0, length)
      return readFully(fd, bytes, length, offset) === length ? bytes : undefined
    } finally {
      this.#descriptors.release(container)
    }
  }

  /**
   * Keeps a block that the caller has verified. Does nothing when it is held already.
   * @returns where it lies; undefined for identity CIDs
   * @throws CidfsError `NO_SPACE`, `IO`.
   */
  put(cid: CID, bytes: Uint8Array): Location | undefined {
    if (isIdentity(cid)) return undefined
    return this.#heldAndWanted(cid) ?? this.append([{ cid, bytes }])[0]
  }

  /**
   * As `put` for many blocks at once, in one transaction; it holds up the thread while it writes them all.
   * @param used gets the containers in which they are then
   */
  putMany(blocks: Iterable<Block>, used?: Set<number>): void {
    const missing = new Map<string, Block>()
    for (const block of blocks) {
      if (isIdentity(block.cid)) continue
      const held = this.#heldAndWanted(block.cid)
      if (held === undefined) missing.set(Buffer.from(block.cid.multihash.bytes).toString('latin1'), block)
      else used?.add(held.container)
    }
    if (missing.size === 0) return
    for (const { container } of this.append([...missing.values()])) used?.add(container)
  }

  /** Writes blocks to the active pack, held or not, and returns where they lie now. No identity CIDs. */
  append(blocks: Block[]): Location[] {
    const locations = this.transaction(() => {
      const written = this.packs.append(blocks)
      for (let i = 0; i < blocks.length; i++) {
        this.index.set((blocks[i] as Block).cid.multihash.bytes, written[i] as Location)
      }
      return written
    })
    for (const { length } of locations) this.#flusher.noteBytes(length)
    return locations
  }

  /**
   * An open descriptor of a container for pread(2), which stays open until `release`.
   * @throws CidfsError `IO` when the container is gone: its blocks are not held any more, locate them again.
   */
  acquire(container: number): number {
    const fd = this.#tryAcquire(container)
    if (fd !== undefined) return fd
    throw new CidfsError('IO', `container ${container} is gone`, { syscall: 'open' })
  }

  /** Gives back what `acquire` gave. */
  release(container: number): void {
    this.#descriptors.release(container)
  }

  /** What is at this location is not the block, or too short: it is not held any more. */
  forgetMissing(cid: CID, location: Location): void {
    const known = this.index.get(cid.multihash.bytes)
    if (known?.container !== location.container || known.offset !== location.offset) return
    log('%s is not in container %d any more', cid, location.container)
    this.transaction(() => this.index.remove(cid.multihash.bytes))
  }

  /** Registers an object that is not sealed yet; the caller creates and writes the file (its folder exists). */
  createObject(): { container: number; path: string } {
    return this.#objects.create()
  }

  /**
   * Makes ranges of an object's file blocks of the store, also those that are held elsewhere. The file may not
   * change from now on; it becomes durable with the next `flush`.
   * @returns how many blocks were not held before
   * @throws CidfsError `INVALID` when it is no object, or its file is shorter than the leaves.
   */
  sealObject(container: number, leaves: Iterable<Leaf>): { added: number } {
    return this.#objects.seal(container, leaves)
  }

  /** Objects that were created and neither sealed nor dropped. */
  unsealedObjects(): number[] {
    return this.#objects.unsealed()
  }

  /**
   * Removes an object that was not sealed; its file goes with the next flush. A sealed one is left to garbage
   * collection, since other DAGs may have blocks in it.
   * @throws CidfsError `INVALID`.
   */
  dropObject(container: number): void {
    this.#objects.drop(container)
    this.space.noteDropped()
  }

  /** Resolves when the file of an object that was not sealed has its name on the disk. */
  syncObjectName(container: number): Promise<void> {
    return this.#objects.syncName(container)
  }

  /** Where the file of an object lies. @throws CidfsError `INVALID` when it is no object. */
  objectPath(container: number): string {
    return this.#objects.path(container)
  }

  /** For garbage collection: forgets a container with its blocks. `unlinkContainer` once that is flushed. */
  removeContainer(container: Container): void {
    this.containers.remove(container)
    this.#descriptors.drop(container.id)
  }

  unlinkContainer(container: Container): void {
    fs.rmSync(this.containers.path(container), { force: true })
  }

  /** What the store takes on disk, in bytes. Objects that are not sealed do not count. */
  usage(): Usage {
    return usageOf(this.containers, this.index, this.#state.indexPath)
  }

  /**
   * Resolves when everything written before the call survives a power failure.
   * @throws CidfsError `IO`; when a sync has failed once, for ever: only a reopen finds out what is there.
   */
  flush(): Promise<void> {
    return this.#flusher.flush()
  }

  /** As `flush`; what was dropped before the call is off the disk, too. */
  async flushAndUnlink(): Promise<void> {
    await this.flush()
    await this.#flusher.unlinked
  }

  /** Flushes and closes. Descriptors that are still acquired stay open until they are released. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  #diskFull(): void {
    this.space.diskFull()
    if (this.#isRelieving) return
    this.#isRelieving = true
    const flushed = this.#flusher.flush() // gives pages of the index back
    flushed.catch(err => log('%s', messageOf(err))).finally(() => (this.#isRelieving = false))
  }

  async #recover(): Promise<void> {
    const { containers, index } = this
    const parts = { env: this.#environment, state: this.#state, containers, index }
    await recover(parts)
    containers.markClean(false)
    this.transaction(() => this.packs.resume())
    await this.flush()
  }

  async #close(): Promise<void> {
    try {
      await this.#flusher.close()
      this.containers.markClean(true)
      await this.#flusher.close()
    } finally {
      this.packs.close()
      this.#descriptors.close()
      await this.#environment.close()
      this.#state.close()
    }
  }

  /** Where a block lies that somebody puts although it is here. */
  #heldAndWanted(cid: CID): Location | undefined {
    const location = this.locate(cid)
    if (location !== undefined) this.watcher?.onBlock(location)
    return location
  }

  /** Undefined when the container is gone; then its blocks are forgotten as well. */
  #tryAcquire(container: number): number | undefined {
    const known = this.containers.get(container)
    if (known === undefined) return undefined
    try {
      return this.#descriptors.acquire(container)
    } catch (cause) {
      const path = this.containers.path(known)
      if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') {
        throw new CidfsError('IO', `cannot open ${path}: ${messageOf(cause)}`, {
          cause,
          path,
          syscall: 'open',
        })
      }
      this.#lose(known)
      return undefined
    }
  }

  /** The file of a container is gone. */
  #lose(container: Container): void {
    log('%s %d is missing: its blocks are forgotten', container.kind, container.id)
    if (container.kind === 'pack' && !container.sealed) this.packs.rotate()
    this.removeContainer(container)
  }

  #pathOf(container: number): string {
    const known = this.containers.get(container)
    if (known === undefined) throw new CidfsError('IO', `container ${container} was removed`)
    return this.containers.path(known)
  }
}
