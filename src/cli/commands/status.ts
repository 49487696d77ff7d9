/** `cidfs status [dir]`: one daemon in detail, or all that run. */
import { Command } from 'commander'
import { CidfsError } from '../../core/errors.js'
import type { SourceReport, StatusReport } from '../../daemon/control-protocol.js'
import { type DaemonRecord, findAll, findByPath, findByState } from '../../daemon/registry.js'
import { ControlClient } from '../control-client.js'
import { describeNode } from '../describe-node.js'
import { count, formatBytes, formatDuration, note, oneLine, print, printJson } from '../output.js'

interface Flags {
  state?: string
  json?: boolean
}

export function statusCommand(): Command {
  return new Command('status')
    .description('what is mounted, queued, held, connected')
    .argument('[dir]', 'a mountpoint, or a path in it; without it: every daemon of this user')
    .option('--state <DIR>', 'the daemon of this state directory')
    .option('--json', 'print as JSON: an object for [dir] and --state, else an array')
    .action(async (dir: string | undefined, flags: Flags) => {
      const one = dir !== undefined || flags.state !== undefined
      const reports = one ? [await statusOf(await find(dir, flags.state))] : await statusOfAll()
      if (flags.json === true) printJson(one ? reports[0] : reports)
      else print(reports.map(report => describe(report).join('\n')).join('\n\n'))
    })
}

function statusOf(daemon: DaemonRecord): Promise<StatusReport> {
  return new ControlClient(daemon).status()
}

async function find(dir: string | undefined, state: string | undefined): Promise<DaemonRecord> {
  if (dir !== undefined && state !== undefined) {
    throw new CidfsError('INVALID', 'name a directory or --state, not both')
  }
  const daemon = state === undefined ? (await findByPath(dir!))?.daemon : await findByState(state)
  if (daemon !== undefined) return daemon
  throw new CidfsError(
    'NOT_RUNNING',
    state === undefined ? `no cidfs daemon serves ${dir}` : `no cidfs daemon runs with --state ${state}`,
  )
}

/** One that is stuck does not hide the others. */
async function statusOfAll(): Promise<StatusReport[]> {
  const daemons = await findAll()
  if (daemons.length === 0) {
    throw new CidfsError('NOT_RUNNING', 'no cidfs daemon runs; start one with: cidfs mount <dir>')
  }
  const results = await Promise.allSettled(daemons.map(statusOf))
  const failures = results.filter(result => result.status === 'rejected')
  if (failures.length === results.length) throw failures[0]!.reason
  results.forEach((result, i) => {
    if (result.status === 'rejected') note(`${daemons[i]!.mountpoint}: ${oneLine(String(result.reason))}`)
  })
  return results.filter(result => result.status === 'fulfilled').map(result => result.value)
}

function describe(report: StatusReport): string[] {
  const { store, staging, fuse, mainThread, memory } = report
  const transport = report.transport !== 'native' && report.transport
  const mode = [transport, report.offline && 'offline', report.isolated && 'isolated']
    .filter(Boolean)
    .join(', ')
  return [
    `${report.mountpoint}  cidfs ${report.version}, pid ${report.pid}, up ${formatDuration(report.uptimeMs)}${mode && `, ${mode}`}`,
    `  state    ${report.stateDir}`,
    `  held     ${count(store.blocks, 'block')}, ${formatBytes(store.bytes)}, ${count(store.pins, 'pin')}; ${formatBytes(store.freeBytes)} free on disk`,
    `  space    ${describeSpace(report.space)}`,
    `  staging  ${describeStaging(staging)}`,
    ...describePins(report.pins),
    ...(report.sources.length === 0 ? ['  sources  none'] : report.sources.map(describeSource)),
    ...describeNode(report.node),
    `  kernel   ${count(fuse.requests, 'request')}, ${fuse.inFlight} in flight, ${count(fuse.errors, 'error')}; passthrough ${fuse.passthrough}`,
    `  memory   ${formatBytes(memory.rssBytes)}; main thread late by ${mainThread.p99Ms} ms (99 %), ${mainThread.maxMs} ms at most`,
  ]
}

function describeSpace({
  maxBytes,
  minFreeBytes,
  usedBytes,
  availableBytes,
  full,
}: StatusReport['space']): string {
  const limit = maxBytes === null ? '' : ` of ${formatBytes(maxBytes)}`
  const room = full ? 'full: writes are refused' : `room for ${formatBytes(availableBytes)}`
  return `${formatBytes(usedBytes)}${limit} used, ${room}; ${formatBytes(minFreeBytes)} stay free on the disk`
}

function describeStaging({
  writing,
  queued,
  publishing,
  failed,
  queuedBytes,
  lastError,
}: StatusReport['staging']): string {
  if (writing + queued + publishing + failed === 0) return 'everything is published'
  const error = failed === 0 || lastError === null ? '' : ` (last: ${oneLine(lastError)})`
  return `${writing} being written, ${queued} queued (${formatBytes(queuedBytes)}), ${publishing} publishing, ${failed} failed${error}`
}

function describePins({ queued, fetching, failed, lastError }: StatusReport['pins']): string[] {
  if (queued + fetching + failed === 0) return []
  const error = lastError === null ? '' : ` (last: ${oneLine(lastError)})`
  return [`  pins     ${fetching} being fetched, ${queued} queued, ${failed} failed${error}`]
}

function describeSource(source: SourceReport): string {
  const latency = source.latencyMs === null ? '' : `, ${formatDuration(source.latencyMs)} to answer`
  const rate = source.rateBytesPerSecond === 0 ? '' : `, ${formatBytes(source.rateBytesPerSecond)}/s`
  const error = source.lastError === null ? '' : ` (last: ${oneLine(source.lastError)})`
  const got = `${count(source.blocks, 'block')}, ${formatBytes(source.bytes)}${rate}`
  return `  ${source.kind.padEnd(8)} ${source.name}: ${source.state}, ${got}${latency}, ${count(source.errors, 'failure')}${error}`
}
