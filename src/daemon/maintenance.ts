/**
 * `cidfs fsck` and `cidfs gc`, over a store that this process has open.
 *
 * Invariant: fsck never calls damage what is only incomplete: a CAR may bring a part of a DAG. While garbage is
 * collected nothing is published, because that pins what it has put only afterwards.
 */
import { CidfsError } from '../core/errors.js'
import { checkStaging, type StagingFault } from '../staging/check.js'
import type { NamedPins } from '../staging/named-pins.js'
import type { Staging } from '../staging/staging.js'
import { type BadBlock, fsck } from '../store/fsck.js'
import { forgetPartialRoots, gc } from '../store/gc.js'
import type { Store } from '../store/store.js'
import { completeness } from '../store/walk.js'
import { links } from '../unixfs/inspect.js'
import type { BlockFault, FsckProgress, FsckReport, GcProgress, GcReport } from './control-protocol.js'

/** Of each sort, in a report; the counts say how many there are. */
const MAX_LISTED = 1000

export interface CheckOptions {
  /** Forget blocks that are bad, so that they are fetched again. */
  repair: boolean
  /** Known where a daemon runs. */
  pins?: NamedPins
  signal?: AbortSignal
  onProgress: (progress: FsckProgress) => void
}

/** Verifies every block, the books of `staging/`, and that pins are complete. @throws CidfsError `INTERRUPTED`. */
export async function checkStore(store: Store, options: CheckOptions): Promise<FsckReport> {
  const { repair, signal, onProgress } = options
  const total = store.index.count
  const { blocks, bytes, bad } = await fsck(store, {
    repair,
    signal,
    onProgress: ({ blocks }) => onProgress({ phase: 'blocks', done: blocks, total }),
  })
  if (repair && bad.length > 0) await forgetPartialRoots(store, links, signal)
  const staging = await checkStaging(store, {
    signal,
    onProgress: nodes => onProgress({ phase: 'staging', done: nodes, total: null }),
  })
  const pins = await incompletePins(store, options)
  const faults = [...staging.faults, ...pins.faults]
  if (repair && bad.length > 0) await store.flush()
  return {
    blocks,
    bytes,
    badBlocks: bad.length,
    bad: bad.slice(0, MAX_LISTED).map(shown),
    repaired: repair ? bad.length : 0,
    nodes: staging.nodes,
    faultCount: faults.length,
    faults: faults.slice(0, MAX_LISTED),
    leftovers: staging.leftovers,
    partialPins: pins.partial,
    damaged: bad.length > 0 || faults.length > 0,
  }
}

function shown({ cid, location, reason }: BadBlock): BlockFault {
  return { cid: cid.toString(), reason, container: location.container, offset: location.offset }
}

/** Pins of `staging/` are checked with it; of the others only those that have been complete have to be. */
async function incompletePins(store: Store, { pins, signal, onProgress }: CheckOptions) {
  const faults: StagingFault[] = []
  let partial = 0
  let done = 0
  for (const { cid, owners } of store.pins.list()) {
    onProgress({ phase: 'pins', done: done++, total: null })
    const others = owners.filter(owner => !owner.startsWith('staging:'))
    if (others.length === 0) continue
    const found = await completeness(store, cid, links, { signal, stopAtFirstMissing: true })
    if (found.held) continue
    const promised = others.map(owner => pins?.ofOwner(owner)).find(pin => pin?.state === 'pinned')
    if (promised === undefined) partial++
    else faults.push({ path: `pins/${promised.name}`, problem: `block ${found.firstMissing} is not held` })
  }
  return { faults, partial }
}

export interface CollectorParts {
  store: Store
  staging: Staging
}

/**
 * Runs garbage collection beside imports, which pin what they have put only in the end: until then the containers
 * that they rely upon are kept.
 */
export class Collector {
  readonly #parts: CollectorParts
  /** Of each import under way. */
  readonly #used = new Set<Set<number>>()
  #running: { isAutomatic: boolean; ended: Promise<void> } | undefined

  constructor(parts: CollectorParts) {
    this.#parts = parts
  }

  /** `work` adds to `used` every container in which it has found or put a block. */
  async importing<T>(work: (used: Set<number>) => Promise<T>): Promise<T> {
    const used = new Set<number>()
    this.#used.add(used)
    try {
      return await work(used)
    } finally {
      this.#used.delete(used)
      this.#parts.store.space.noteGarbage() // if it has failed
    }
  }

  /**
   * @param freeBytes enough, for one that nobody has asked for; everything that can be freed when absent
   * @throws CidfsError `BUSY` when one runs that somebody has asked for; `INTERRUPTED`: what was freed stays freed.
   */
  async collect(
    onProgress: (progress: GcProgress) => void,
    signal: AbortSignal,
    freeBytes?: number,
  ): Promise<GcReport> {
    const isAutomatic = freeBytes !== undefined
    while (this.#running !== undefined) {
      if (isAutomatic || !this.#running.isAutomatic)
        throw new CidfsError('BUSY', 'garbage collection is running already')
      await this.#running.ended
    }
    const report = this.#collect(onProgress, signal, freeBytes).finally(() => {
      this.#running = undefined
    })
    this.#running = {
      isAutomatic,
      ended: report.then(
        () => {},
        () => {},
      ),
    }
    return report
  }

  #collect(
    onProgress: (progress: GcProgress) => void,
    signal: AbortSignal,
    freeBytes: number | undefined,
  ): Promise<GcReport> {
    const { store, staging } = this.#parts
    return staging.withoutPublishing(() =>
      gc(store, {
        links,
        roots: staging.publishedCids(),
        keepContainers: [...this.#used].flatMap(used => [...used]),
        signal,
        ...(freeBytes === undefined ? {} : { freeBytes }),
        onProgress: freedBytes => onProgress({ freedBytes }),
      }),
    )
  }
}
