/**
 * What the commands and the daemon say to each other.
 *
 * Invariant: every type here survives JSON unchanged (no bigint, no undefined where null is meant, CIDs as
 * strings), because it crosses the control socket and is what `--json` prints. Fields are only ever added.
 * Why apart from the server: the commands need the shapes, not the code behind them.
 *
 * On the wire it is HTTP/1.1 over a Unix socket:
 *
 *     GET  /status            StatusReport
 *     GET  /cid?path=P        PathCid
 *     POST /wait              {paths} in; lines of JSON out: {progress}…, then {result} or {error}
 *     POST /import            a CAR in; lines of JSON out, as /wait
 *     GET  /export?cid=C      a CAR out; a failure half-way is told by the trailer ERROR_TRAILER
 *     GET  /pins              PinReport[]
 *     POST /pins/add          PinAddRequest in; lines of JSON out, as /wait
 *     POST /pins/remove       {pin} in; PinRemoval
 *     GET  /names             NameReport[]
 *     POST /names/publish     PublishRequest in; PublishReport
 *     POST /names/resolve     ResolveRequest in; NameResolution
 *     GET  /keys              KeyReport[]
 *     POST /keys/gen          {key} in; KeyReport
 *     POST /keys/import       {key, file} in; KeyReport
 *     POST /keys/export       {key} in; {file}
 *     POST /keys/remove       {key} in; KeyReport
 *     POST /exists            {cid, timeoutMs} in; ExistsReport
 *     POST /prefetch          {cid} in; lines of JSON out, as /wait
 *     POST /fsck              {repair} in; lines of JSON out, as /wait
 *     POST /gc                lines of JSON out, as /wait
 *     POST /upgrade           UpgradeRequest in; UpgradeResult
 *     POST /unmount           {lazy} in; UnmountResult
 */
import type { ErrorCode } from '../core/errors.js'
import type { DagProgress } from '../sources/fetch-dag.js'
import type { SourceKind, SourceState } from '../sources/source.js'
import type { WhoHas } from '../sources/who-has.js'
import type { PinState } from '../staging/named-pins.js'
import type { WaitProgress, WaitResult } from '../staging/waiter.js'
import type { SpaceReport } from '../store/space.js'
import type { NameRequests } from './name-protocol.js'
import type { NodeReport } from './node-services.js'

export type { DagProgress as FetchProgress, PinState, SpaceReport, WaitProgress, WaitResult }

/**
 * Where a staged file or an entry of `pins/` stands; `immutable` is what lies under `ipfs/`, `local` what is not
 * published for its name.
 */
export type PathState =
  | 'writing'
  | 'queued'
  | 'publishing'
  | 'fetching'
  | 'pinned'
  | 'failed'
  | 'local'
  | 'immutable'

export interface PathCid {
  /** Absent (null) while the content has never been hashed. */
  cid: string | null
  state: PathState
  /** Why `state` is `failed`, else null. */
  error: string | null
}

export interface SourceReport {
  kind: SourceKind
  /** URL, without credentials. */
  name: string
  /** `backing-off`: left alone for a while after failures; `failed`: so, and it has never worked. */
  state: SourceState
  inFlight: number
  blocks: number
  bytes: number
  /** Over the last few seconds. */
  rateBytesPerSecond: number
  /** Median time to answer in milliseconds, null before the first answer. */
  latencyMs: number | null
  errors: number
  lastError: string | null
}

export interface StoreReport {
  blocks: number
  bytes: number
  pins: number
  /** Bytes left on the file system of the state directory. */
  freeBytes: number
}

export interface StagingReport {
  /** Files open for writing or settling. */
  writing: number
  queued: number
  publishing: number
  failed: number
  /** Bytes of content that wait to be published. */
  queuedBytes: number
  /** What one of those that failed met; null when nothing has. */
  lastError: string | null
  /** The first of those that failed: path below the mountpoint, how often it was tried, what the last try met. */
  failures: { path: string; tries: number; error: string }[]
  /** CIDs made since the start, of files and symlinks, and of directories. */
  published: { files: number; directories: number }
}

/** Entries of `pins/` that are not complete. */
export interface PinsReport {
  queued: number
  fetching: number
  /** Tried in vain, and will be again. */
  failed: number
  /** What one of those met; null when nothing has. */
  lastError: string | null
}

export interface FuseReport {
  /** Requests answered since the start, by operation name (`lookup`, `read`…). */
  operations: Record<string, number>
  requests: number
  inFlight: number
  /** `on`: the kernel reads and writes local files by itself; else why it does not. */
  passthrough: string
  /** Replies that carried an errno which means trouble (EIO and the like), not ENOENT or ENODATA. */
  errors: number
}

export interface MemoryReport {
  rssBytes: number
  heapUsedBytes: number
  externalBytes: number
}

/** How late the main thread answers for being busy with something else, since the mount answers. */
export interface StallReport {
  p50Ms: number
  p99Ms: number
  maxMs: number
}

export interface StatusReport {
  version: string
  pid: number
  mountpoint: string
  stateDir: string
  transport: string
  offline: boolean
  isolated: boolean
  /** ISO 8601 */
  startedAt: string
  uptimeMs: number
  sources: SourceReport[]
  /** The embedded node; null when there is none. */
  node: NodeReport | null
  store: StoreReport
  space: SpaceReport
  staging: StagingReport
  pins: PinsReport
  fuse: FuseReport
  mainThread: StallReport
  memory: MemoryReport
}

export interface ImportProgress {
  /** So far, and their bytes. */
  blocks: number
  bytes: number
  /** Bytes of the CAR read so far. */
  position: number
}

export interface ImportResult {
  roots: string[]
  blocks: number
  bytes: number
}

export interface PinAddRequest {
  /** A CID, or a path that `ln -s` into `pins/` would take. */
  cid: string
  /** Its entry in `pins/`; the CID when null. */
  name: string | null
  /** Whether to answer only when it is complete, or when an attempt to fetch it has failed. */
  wait: boolean
}

export interface PinProgress extends DagProgress {
  state: PinState
}

/** One owner of one pinned DAG. */
export interface PinReport {
  cid: string
  /** `pins/NAME`, `staging/PATH`, `import`. */
  owner: string
  state: PinState
  /** Blocks held of those known of; null where counting them takes too long. */
  percent: number | null
  /** Attempts to fetch it that have failed, and what the last one met. */
  tries: number
  error: string | null
}

export interface PinRemoval {
  /** Owners whose pin is gone, as in `PinReport`. */
  removed: string[]
}

/** `part`: at least the block itself; `percent` null where counting takes too long. */
export interface HeldReport {
  state: 'whole' | 'part' | 'no'
  percent: number | null
}

/** For `.cidfs/exists/`, and for the command when it does not say. */
export const EXISTS_TIMEOUT_MS = 10_000

export interface ExistsReport extends WhoHas {
  cid: string
  held: HeldReport
  /** Others that have the block, or say that they can get it; who is asked in two ways counts twice. */
  copies: number
  /** Why nobody could be asked; null when somebody was. */
  error: string | null
}

export interface PrefetchResult {
  cid: string
  /** Held now. */
  blocks: number
  /** That could not be had; what lies below them is not known. */
  missed: number
  /** What the first of those met. */
  error: string | null
}

export interface FsckProgress {
  phase: 'blocks' | 'staging' | 'pins'
  done: number
  total: number | null
}

export interface BlockFault {
  /** Its multihash as a raw CIDv1: the store does not know the codec. */
  cid: string
  /** `missing`: its file is gone or too short. `mismatch`: the bytes are others. */
  reason: 'missing' | 'mismatch'
  /** File of the store, and where in it. */
  container: number
  offset: number
}

export interface FsckReport {
  /** Blocks looked at, and their bytes. */
  blocks: number
  bytes: number
  /** How many were bad; the first of them; how many of them were forgotten, to be fetched again. */
  badBlocks: number
  bad: BlockFault[]
  repaired: number
  /** Nodes of `staging/`, and where its books or a pin are wrong: how often, and the first of them. */
  nodes: number
  faultCount: number
  faults: { path: string; problem: string }[]
  /** Objects that belong to nothing: not damage, the next start removes them. */
  leftovers: number
  /** DAGs that were imported in part, or are still being fetched: not damage. */
  partialPins: number
  damaged: boolean
}

export interface GcProgress {
  freedBytes: number
}

export interface GcReport {
  /** Bytes of the files removed, less what was copied out of them. */
  freedBytes: number
  packs: number
  objects: number
  /** Wanted blocks that were copied, and all that are wanted, in bytes. */
  copiedBytes: number
  liveBytes: number
}

export interface UnmountResult {
  /** The mount was detached although files were still open: it goes when they are closed. */
  lazy: boolean
}

/** How the new version is started: node and its options, then its main file. */
export interface UpgradeRequest {
  program: string[]
}

export interface UpgradeResult {
  /** Of the daemon that serves the mount now. */
  pid: number
  previous: { pid: number; version: string }
}

/**
 * What the daemon does for the commands. Paths are relative to the mountpoint, with `/` between names and
 * without one at the ends: `staging/a/b`, '' is the root.
 */
export interface DaemonActions {
  status(): Promise<StatusReport>
  /** @throws CidfsError `NOT_FOUND`, `NOT_SUPPORTED` (a path that has no CID). */
  cidOf(path: string): Promise<PathCid>
  /** Until nothing under `paths` is pending: ends with failures, too. @throws CidfsError `NOT_FOUND`. */
  wait(
    paths: string[],
    onProgress: (progress: WaitProgress) => void,
    signal: AbortSignal,
  ): Promise<WaitResult>
  /** Verifies and keeps every block, and pins the roots. @throws CidfsError `BAD_CAR`, `BAD_BLOCK`. */
  importCar(
    car: AsyncIterable<Uint8Array>,
    onProgress: (progress: ImportProgress) => void,
    signal: AbortSignal,
  ): Promise<ImportResult>
  /** CARv1 of the whole DAG; missing blocks are fetched. @throws CidfsError `MALFORMED_CID`, `UNREACHABLE`. */
  exportCar(cid: string, signal: AbortSignal): AsyncIterable<Uint8Array>
  pins(): Promise<PinReport[]>
  /** @throws CidfsError `INVALID`, `EXISTS`, `NOT_FOUND`; what fetching meets is in the report. */
  addPin(
    request: PinAddRequest,
    onProgress: (progress: PinProgress) => void,
    signal: AbortSignal,
  ): Promise<PinReport>
  /** `pin`: a name in `pins/`, or a CID. @throws CidfsError `NOT_FOUND`. */
  removePin(pin: string): Promise<PinRemoval>
  readonly names: NameRequests
  /** Who has a block; ends at `timeoutMs` with what is known. @throws CidfsError `MALFORMED_CID`, `INVALID`. */
  exists(cid: string, timeoutMs: number, signal: AbortSignal): Promise<ExistsReport>
  /** Fetches a whole DAG without pinning it. @throws CidfsError `INVALID`. */
  prefetch(
    cid: string,
    onProgress: (progress: DagProgress) => void,
    signal: AbortSignal,
  ): Promise<PrefetchResult>
  /** Verifies blocks, `staging/` and pins; `repair` forgets bad blocks, so that they are fetched again. */
  fsck(
    options: { repair: boolean },
    onProgress: (progress: FsckProgress) => void,
    signal: AbortSignal,
  ): Promise<FsckReport>
  /** Frees what is neither pinned nor staged. @throws CidfsError `BUSY`: one runs already. */
  gc(onProgress: (progress: GcProgress) => void, signal: AbortSignal): Promise<GcReport>
  /**
   * Drains, unmounts and stops the daemon. `lazy`: do not drain, detach at once; what is queued stays queued
   * for the next start.
   */
  unmount(options: { lazy: boolean }): Promise<UnmountResult>
  /**
   * Leaves the mount to a daemon of another version; nothing that the kernel asks fails meanwhile.
   * @throws CidfsError `NOT_SUPPORTED`: it does not start, or nothing supervises this one; `BUSY`.
   */
  upgrade(request: UpgradeRequest): Promise<UpgradeResult>
}

/** An error as it crosses the socket. */
export interface WireError {
  code: ErrorCode | 'INTERNAL'
  message: string
}

/** One line of a streamed answer. */
export type Line<P, R> = { progress: P } | { result: R } | { error: WireError }

/** Percent-encoded JSON of a `WireError`: HTTP header values are ASCII. */
export const ERROR_TRAILER = 'x-cidfs-error'
