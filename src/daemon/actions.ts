/**
 * What the daemon does for the commands, over its parts.
 *
 * Invariant: paths are resolved against the daemon's own tables, never through the mount.
 */
import { type CID, parseCid } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import type { NamedPin } from '../staging/named-pins.js'
import { STAGING_ROOT_INO, type StagingNode } from '../staging/node.js'
import { waitUntilPublished } from '../staging/waiter.js'
import { resolve } from '../unixfs/path.js'
import { exportDag, importAndPin } from './car-actions.js'
import type {
  DaemonActions,
  ExistsReport,
  FetchProgress,
  FsckProgress,
  FsckReport,
  GcProgress,
  GcReport,
  ImportProgress,
  ImportResult,
  PathCid,
  PinAddRequest,
  PinProgress,
  PinRemoval,
  PinReport,
  PrefetchResult,
  StatusReport,
  UnmountResult,
  UpgradeRequest,
  UpgradeResult,
  WaitProgress,
  WaitResult,
} from './control-protocol.js'
import { type ExistsParts, exists } from './exists-actions.js'
import { type Collector, checkStore } from './maintenance.js'
import { NameActions } from './name-actions.js'
import type { Naming } from './naming.js'
import {
  addPin,
  listPins,
  type PinParts,
  pinsAt,
  prefetchDag,
  removePin,
  waitForPins,
} from './pin-actions.js'

export interface ActionParts extends PinParts, ExistsParts {
  naming: Naming
  collector: Collector
  status(): Promise<StatusReport>
  stop(options: { lazy: boolean }): Promise<UnmountResult>
  upgrade(request: UpgradeRequest): Promise<UpgradeResult>
  /** Blocks turned out to be bad: what the kernel has cached of them may be, too. */
  onBadBlocks(): void
}

export class Actions implements DaemonActions {
  readonly names: NameActions
  readonly #parts: ActionParts
  readonly #collector: Collector

  constructor(parts: ActionParts) {
    this.#parts = parts
    this.names = new NameActions(parts.naming, path => this.cidOf(path))
    this.#collector = parts.collector
  }

  status(): Promise<StatusReport> {
    return this.#parts.status()
  }

  async cidOf(path: string): Promise<PathCid> {
    const [tree, ...names] = path.split('/')
    if (tree === 'ipfs' && names.length > 0) {
      const cid = await this.#immutableCid(names)
      return { cid: cid.toString(), state: 'immutable', error: null }
    }
    if (tree === 'pins' && names.length === 1) return this.#namedPin(names[0]!)
    if (tree !== 'staging')
      throw new CidfsError('NOT_SUPPORTED', `/${path} has no CID: name something in staging/, pins/ or ipfs/`)
    const { staging } = this.#parts
    const node = this.#stagedNode(names, path)
    const { state, error } = staging.publicationOf(node)
    const cid = await staging.cidOf(node.ino)
    return { cid: cid?.toString() ?? null, state, error: error ?? null }
  }

  #namedPin(name: string): PathCid {
    const pin = this.#parts.pins.lookup(Buffer.from(name))
    if (pin === undefined) throw new CidfsError('NOT_FOUND', `pins/${name}: no such pin`)
    return { cid: pin.cid.toString(), state: pin.state, error: pin.error ?? null }
  }

  async #immutableCid([root = '', ...names]: string[]): Promise<CID> {
    const segments = names.map(name => Buffer.from(name))
    return (await resolve(parseCid(root), segments, this.#parts.blocks)).cid
  }

  #stagedNode(names: string[], path: string): StagingNode {
    const { names: namespace } = this.#parts.staging
    let node = namespace.get(STAGING_ROOT_INO)
    for (const name of names) {
      const child = namespace.lookup(node.ino, Buffer.from(name))
      if (child === undefined)
        throw new CidfsError('NOT_FOUND', `${path}: no such file or directory`, { path })
      node = child
    }
    return node
  }

  async wait(
    paths: string[],
    onProgress: (progress: WaitProgress) => void,
    signal: AbortSignal,
  ): Promise<WaitResult> {
    const inos: number[] = []
    const pins: NamedPin[] = []
    for (const path of paths) {
      const [tree, ...names] = path.split('/')
      if (tree === '' || tree === 'staging') inos.push(this.#stagedNode(names, path).ino)
      if (tree === '' || tree === 'pins') pins.push(...pinsAt(this.#parts.pins, names, path))
      else if (tree !== 'ipfs' && tree !== 'staging')
        throw new CidfsError('NOT_FOUND', `${path}: no such file or directory`, { path })
    }
    const { pinned, failed } = await waitUntilPublished(this.#parts.staging, inos, onProgress, signal)
    const result = { pinned, failed: failed.map(({ path, error }) => ({ path: `staging/${path}`, error })) }
    return waitForPins(this.#parts.pins, pins, result, onProgress, signal)
  }

  importCar(
    car: AsyncIterable<Uint8Array>,
    onProgress: (progress: ImportProgress) => void,
    signal: AbortSignal,
  ): Promise<ImportResult> {
    const { store } = this.#parts
    return this.#collector.importing(used => importAndPin(store, car, onProgress, signal, used))
  }

  exportCar(cid: string, signal: AbortSignal): AsyncIterable<Uint8Array> {
    const { blocks } = this.#parts
    const reader = { get: (block: CID) => blocks.get(block, { signal }) }
    return exportDag(parseCid(cid), reader, signal)
  }

  pins(): Promise<PinReport[]> {
    return listPins(this.#parts)
  }

  addPin(
    request: PinAddRequest,
    onProgress: (progress: PinProgress) => void,
    signal: AbortSignal,
  ): Promise<PinReport> {
    return addPin(this.#parts, request, onProgress, signal)
  }

  async removePin(pin: string): Promise<PinRemoval> {
    return removePin(this.#parts, pin)
  }

  exists(cid: string, timeoutMs: number, signal: AbortSignal): Promise<ExistsReport> {
    return exists(this.#parts, cid, timeoutMs, signal)
  }

  prefetch(
    cid: string,
    onProgress: (progress: FetchProgress) => void,
    signal: AbortSignal,
  ): Promise<PrefetchResult> {
    return prefetchDag(this.#parts, cid, onProgress, signal)
  }

  async fsck(
    { repair }: { repair: boolean },
    onProgress: (progress: FsckProgress) => void,
    signal: AbortSignal,
  ): Promise<FsckReport> {
    const { store, pins, onBadBlocks } = this.#parts
    const report = await checkStore(store, { repair, pins, onProgress, signal })
    if (report.repaired > 0) onBadBlocks()
    return report
  }

  gc(onProgress: (progress: GcProgress) => void, signal: AbortSignal): Promise<GcReport> {
    return this.#collector.collect(onProgress, signal)
  }

  unmount(options: { lazy: boolean }): Promise<UnmountResult> {
    return this.#parts.stop(options)
  }

  upgrade(request: UpgradeRequest): Promise<UpgradeResult> {
    return this.#parts.upgrade(request)
  }
}
