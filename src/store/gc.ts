/**
 * Garbage collection: drops whole containers that hold nothing wanted, and rewrites packs that hold little.
 *
 * Invariant: at no instant, crash included, is a wanted block without a place: it is copied, the copy synced,
 * the index changed and synced, and only then the old file removed. What is put or pinned while this runs
 * counts as wanted: new blocks go to containers that are no candidates, and the store's watcher reports old
 * blocks and DAGs that become wanted again.
 * Not covered: blocks put before it began and to be pinned later. A publisher or import therefore pins in the
 * transaction in which it puts, or passes its roots and objects here, or does not run at the same time.
 */
import type { Location } from '../core/blocks.js'
import { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { Container } from './containers.js'
import { Pacer } from './pacer.js'
import { readSections, type Section } from './pack-recovery.js'
import { type Block, PACK_HEADER } from './packs.js'
import type { Store } from './store.js'
import { completeness, type Links, Seen, walk } from './walk.js'

const log = logger('store:gc')
/** A pack is rewritten when less than this part of it is wanted. */
const REWRITE_BELOW = 0.5
const COPY_BATCH_BYTES = 1024 * 1024
const COPY_BATCH_BLOCKS = 256
const SWEEP_PAGE = 512

export interface GcOptions {
  links: Links
  /** DAGs to keep besides the pinned ones. */
  roots?: Iterable<CID>
  /** Containers that upper layers refer to by themselves. */
  keepContainers?: Iterable<number>
  /** Stop once this many bytes are freed; everything that can be when absent. */
  freeBytes?: number
  signal?: AbortSignal | undefined
  /** Bytes freed so far. */
  onProgress?: (freedBytes: number) => void
}

export interface GcResult {
  /** Bytes of the files removed, less what was copied out of them. */
  freedBytes: number
  packs: number
  objects: number
  /** Wanted blocks carried forward, in bytes. */
  copiedBytes: number
  /** Wanted blocks in total, in bytes. */
  liveBytes: number
}

/**
 * Collects garbage once.
 * @throws CidfsError `BUSY` when it runs already, `INTERRUPTED` (what was freed stays freed), `NO_SPACE`, `IO`.
 */
export async function gc(store: Store, options: GcOptions): Promise<GcResult> {
  if (store.watcher !== undefined) throw new CidfsError('BUSY', 'garbage collection is running already')
  const run = new Collection(store, options)
  store.watcher = run
  try {
    await run.mark()
    await run.sweep()
  } finally {
    store.watcher = undefined
  }
  await tidy(store, options)
  return run.result
}

class Collection {
  readonly result: GcResult = { freedBytes: 0, packs: 0, objects: 0, copiedBytes: 0, liveBytes: 0 }
  readonly #store: Store
  readonly #options: GcOptions
  readonly #pacer: Pacer
  readonly #seen = new Seen()
  readonly #liveBytes = new Map<number, number>()
  readonly #candidates: Container[]
  /** DAGs pinned since the mark began. */
  readonly #pinned: CID[] = []

  constructor(store: Store, options: GcOptions) {
    this.#store = store
    this.#options = options
    this.#pacer = new Pacer(options.signal)
    store.transaction(() => store.packs.rotate())
    const kept = new Set(options.keepContainers)
    this.#candidates = [...store.containers.values()].filter(({ id, sealed }) => sealed && !kept.has(id))
  }

  onBlock(location: Location): void {
    if (this.#seen.visit(location)) this.#count(location)
  }

  onPin(cid: CID): void {
    this.#pinned.push(cid)
  }

  async mark(): Promise<void> {
    for (const { cid } of this.#store.pins.list()) await this.#markDag(cid)
    for (const cid of this.#options.roots ?? []) await this.#markDag(cid)
    await this.#markNewPins()
  }

  /** First what is free of charge, then what has to be copied. */
  async sweep(): Promise<void> {
    await this.#dropUnwanted(this.#candidates)
    const packs = this.#candidates.filter(({ kind }) => kind === 'pack')
    for (const pack of packs) {
      if (this.#enough) return
      if (this.#live(pack) > 0 && this.#live(pack) < REWRITE_BELOW * pack.length) await this.#rewrite(pack)
    }
  }

  get #enough(): boolean {
    return this.result.freedBytes >= (this.#options.freeBytes ?? Number.POSITIVE_INFINITY)
  }

  #live({ id }: Container): number {
    return this.#liveBytes.get(id) ?? 0
  }

  #count({ container, length }: Location): void {
    this.result.liveBytes += length
    // an empty block is wanted too
    this.#liveBytes.set(container, (this.#liveBytes.get(container) ?? 0) + Math.max(length, 1))
  }

  async #markDag(cid: CID): Promise<void> {
    const count = (_: CID, location: Location | undefined): true => {
      if (location !== undefined) this.#count(location)
      return true
    }
    await walk(this.#store, cid, this.#options.links, count, {
      signal: this.#options.signal,
      seen: this.#seen,
    })
  }

  async #markNewPins(): Promise<void> {
    for (let cid = this.#pinned.pop(); cid !== undefined; cid = this.#pinned.pop()) await this.#markDag(cid)
  }

  async #dropUnwanted(candidates: Container[]): Promise<void> {
    while (this.#pinned.length > 0) await this.#markNewPins()
    const victims: Container[] = []
    let bytes = 0
    for (const container of candidates) {
      if (this.#store.containers.get(container.id) !== container || this.#live(container) > 0) continue
      if (this.result.freedBytes + bytes >= (this.#options.freeBytes ?? Number.POSITIVE_INFINITY)) break
      victims.push(container)
      bytes += container.length
    }
    await this.#remove(victims)
  }

  /** Forgets containers, syncs that, and removes their files. No await between the decision and the forgetting. */
  async #remove(victims: Container[]): Promise<void> {
    if (victims.length === 0) return
    this.#store.transaction(() => {
      for (const container of victims) this.#store.removeContainer(container)
    })
    await this.#store.flush()
    for (const container of victims) {
      this.#store.unlinkContainer(container)
      this.#tally(container)
      if (this.#pacer.due) await this.#pacer.pause()
    }
  }

  #tally(container: Container): void {
    this.result.freedBytes += container.length
    if (container.kind === 'pack') this.result.packs++
    else this.result.objects++
    log('%s %d removed, %d bytes', container.kind, container.id, container.length)
    this.#options.onProgress?.(this.result.freedBytes)
  }

  /** Carries forward what is wanted of a pack until nothing more of it gets wanted, then removes it. */
  async #rewrite(pack: Container): Promise<void> {
    const before = this.result.copiedBytes
    let carried = 0
    let wanted: number
    do {
      wanted = this.#live(pack)
      carried += await this.#copyWanted(pack)
      await this.#store.flush()
      await this.#markNewPins()
    } while (this.#pinned.length > 0 || this.#live(pack) !== wanted)
    if (carried < wanted) {
      log('pack %d stays: %d of %d wanted bytes can be read', pack.id, carried, wanted)
      return
    }
    await this.#remove([pack])
    this.result.freedBytes -= this.result.copiedBytes - before
  }

  /** Copies the wanted blocks that lie in a pack; returns their bytes, an empty block counted as one. */
  async #copyWanted(pack: Container): Promise<number> {
    const fd = this.#store.acquire(pack.id)
    let carried = 0
    try {
      let batch: Block[] = []
      let batchBytes = 0
      for (const section of readSections(fd, PACK_HEADER.length, pack.length)) {
        if (this.#isWanted(pack, section)) {
          // copies: the section is a view of a buffer that is filled anew, and `slice` of a Buffer is one, too
          batch.push({
            cid: CID.decode(Uint8Array.from(section.cid.bytes)),
            bytes: Uint8Array.from(section.bytes),
          })
          batchBytes += section.bytes.length
          carried += Math.max(section.bytes.length, 1)
        }
        if (batchBytes >= COPY_BATCH_BYTES || batch.length >= COPY_BATCH_BLOCKS) {
          this.#copy(batch)
          batch = []
          batchBytes = 0
        }
        if (this.#pacer.due) await this.#pacer.pause()
      }
      this.#copy(batch)
    } finally {
      this.#store.release(pack.id)
    }
    return carried
  }

  #copy(blocks: Block[]): void {
    if (blocks.length === 0) return
    for (const { length } of this.#store.append(blocks)) this.result.copiedBytes += length
  }

  #isWanted(pack: Container, { cid, offset, bytes }: Section): boolean {
    const location = { container: pack.id, offset, length: bytes.length }
    if (!this.#seen.has(location)) return false
    const known = this.#store.locate(cid)
    return known?.container === pack.id && known.offset === offset
  }
}

/** Removes index entries whose container is gone, and roots that are not whole any more. */
async function tidy(store: Store, { links, signal }: GcOptions): Promise<void> {
  const pacer = new Pacer(signal)
  let after: Uint8Array | undefined
  for (;;) {
    const page = store.index.page(after, SWEEP_PAGE)
    const stale = page.filter(({ location }) => !store.containers.covers(location))
    if (stale.length > 0) {
      store.transaction(() => {
        for (const { multihash } of stale) store.index.remove(multihash)
      })
    }
    after = page.at(-1)?.multihash
    if (after === undefined) break
    if (pacer.due) await pacer.pause()
  }
  await forgetPartialRoots(store, links, signal)
}

/** Roots that are not whole any more are not listed as held. @throws CidfsError `INTERRUPTED`. */
export async function forgetPartialRoots(store: Store, links: Links, signal?: AbortSignal): Promise<void> {
  for (const { cid, held, pinned } of store.roots.list()) {
    if (!held || pinned) continue
    const found = await completeness(store, cid, links, { signal, stopAtFirstMissing: true })
    if (!found.held) store.roots.markHeld(cid, false)
  }
}
