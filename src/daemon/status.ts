/** The status report, gathered from the parts of the daemon. Nothing here waits longer than a moment. */
import { statfs } from 'node:fs/promises'
import type { SessionReport } from '../fs/session.js'
import type { SourceStatus } from '../sources/source.js'
import type { BackendQueue } from '../staging/backend-queue.js'
import type { NamedPins } from '../staging/named-pins.js'
import type { Staging } from '../staging/staging.js'
import type { Store } from '../store/store.js'
import type { Config } from './config.js'
import type {
  FuseReport,
  PinsReport,
  SourceReport,
  StagingReport,
  StallReport,
  StatusReport,
  StoreReport,
} from './control-protocol.js'
import type { NodeReport } from './node-services.js'
import { VERSION } from './version.js'

/** Of those that are named in a report. */
const MAX_FAILURES = 20

export interface StatusParts {
  config: Config
  startedAt: Date
  store: Store
  staging: Staging
  pins: NamedPins
  sources(): Promise<SourceStatus[]>
  node(): Promise<NodeReport | null>
  fuse(): SessionReport | undefined
  stalls(): StallReport
}

export async function statusReport(parts: StatusParts): Promise<StatusReport> {
  const { config, startedAt } = parts
  const [sources, node] = await Promise.all([parts.sources(), parts.node()])
  const { rss, heapUsed, external } = process.memoryUsage()
  return {
    version: VERSION,
    pid: process.pid,
    mountpoint: config.mountpoint,
    stateDir: config.stateDir,
    transport: config.transport,
    offline: config.offline,
    isolated: config.isolated,
    startedAt: startedAt.toISOString(),
    uptimeMs: Date.now() - startedAt.getTime(),
    sources: sources.map(sourceReport),
    node,
    store: await storeReport(parts.store),
    space: parts.store.space.report(),
    staging: stagingReport(parts.staging),
    pins: pinsReport(parts.pins),
    fuse: fuseReport(parts.fuse()),
    mainThread: parts.stalls(),
    memory: { rssBytes: rss, heapUsedBytes: heapUsed, externalBytes: external },
  }
}

function sourceReport(status: SourceStatus): SourceReport {
  const { name, kind, state, inFlight, blocks, bytes, rateBytesPerSecond, errors } = status
  return {
    kind,
    name,
    state,
    inFlight,
    blocks,
    bytes,
    rateBytesPerSecond,
    latencyMs: status.latencyMsP50 ?? null,
    errors,
    lastError: status.lastError ?? null,
  }
}

async function storeReport(store: Store): Promise<StoreReport> {
  const usage = store.usage()
  const disk = await statfs(store.path)
  return {
    blocks: usage.blocks,
    bytes: usage.packs.bytes + usage.objects.bytes,
    pins: [...store.pins.list()].length,
    freeBytes: disk.bavail * disk.bsize,
  }
}

function stagingReport(staging: Staging): StagingReport {
  const report: StagingReport = {
    writing: 0,
    queued: 0,
    publishing: 0,
    failed: 0,
    queuedBytes: 0,
    lastError: null,
    failures: [],
    published: { ...staging.published },
  }
  for (const job of staging.queue.jobs()) {
    report.lastError ??= job.error ?? null
    addFailure(report, staging, job)
    const node = staging.names.find(job.ino)
    if (node === undefined || node.type === 'directory') continue
    const { state } = staging.publicationOf(node)
    if (state !== 'pinned' && state !== 'local') report[state]++
    report.queuedBytes += node.sizeBytes
  }
  if (staging.backend !== undefined) addHandedOver(report, staging, staging.backend)
  return report
}

function addFailure(
  { failures }: StagingReport,
  staging: Staging,
  { ino, tries, error }: { ino: number; tries: number; error: string | undefined },
): void {
  if (tries === 0 || failures.length >= MAX_FAILURES) return
  const node = staging.names.find(ino)
  const path = node === undefined ? `node ${ino}` : `staging/${staging.names.pathOf(node)}`
  failures.push({ path, tries, error: error ?? 'unknown' })
}

/** Entries that the back-end does not have yet. */
function addHandedOver(report: StagingReport, staging: Staging, backend: BackendQueue): void {
  for (const handed of backend.failing()) addFailure(report, staging, handed)
  const { pending, failed, error } = backend.summary()
  report.publishing += pending - failed
  report.failed += failed
  report.lastError ??= error ?? null
}

function pinsReport(pins: NamedPins): PinsReport {
  const report: PinsReport = { queued: 0, fetching: 0, failed: 0, lastError: null }
  for (const { state, error } of pins.pending()) {
    if (state === 'pinned') continue
    report[state]++
    report.lastError ??= error ?? null
  }
  return report
}

/** Errnos that only say that a name or an attribute is not there are no trouble. */
const HARMLESS = new Set(['lookup', 'getxattr', 'listxattr', 'access', 'ioctl'])

function fuseReport(session: ReturnType<StatusParts['fuse']>): FuseReport {
  const { inFlight, passthrough } = session ?? { inFlight: 0, passthrough: 'not mounted yet' }
  const report: FuseReport = { operations: {}, requests: 0, inFlight, errors: 0, passthrough }
  for (const [name, { count, errors }] of Object.entries(session?.operations ?? {})) {
    report.operations[name] = count
    report.requests += count
    if (!HARMLESS.has(name.toLowerCase())) report.errors += errors
  }
  return report
}
