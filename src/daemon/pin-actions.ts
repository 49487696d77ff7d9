/**
 * Pins as the commands see them: `cidfs pin`, `cidfs prefetch`, and `.cidfs/pins`.
 *
 * Invariant: what the command makes is an entry of `pins/`, so both views agree. Pins of `staging/` go with their
 * file and not by command.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type CID, isIdentity, parseCid, tryParseCid } from '../core/cid.js'
import { CidfsError, messageOf } from '../core/errors.js'
import type { BlockService } from '../sources/block-service.js'
import { fetchDag } from '../sources/fetch-dag.js'
import type { NamedPin, NamedPins } from '../staging/named-pins.js'
import { parsePinTarget } from '../staging/pin-target.js'
import type { Staging } from '../staging/staging.js'
import type { Store } from '../store/store.js'
import { completeness } from '../store/walk.js'
import { links } from '../unixfs/inspect.js'
import { locate } from '../unixfs/path.js'
import { IMPORT_OWNER } from './car-actions.js'
import type {
  FetchProgress,
  PinAddRequest,
  PinProgress,
  PinRemoval,
  PinReport,
  PrefetchResult,
  WaitProgress,
  WaitResult,
} from './control-protocol.js'

const POLL_MS = 50
/** For counting blocks of all pins that are listed. */
const COUNT_MS = 1_000

export interface PinParts {
  store: Store
  blocks: BlockService
  staging: Staging
  pins: NamedPins
}

/**
 * Pins under a name, by default the CID; with `wait` until it is complete or an attempt has failed.
 * @throws CidfsError `INVALID`, `EXISTS` (the name has other content), `NOT_FOUND` (unpinned meanwhile),
 * `INTERRUPTED` (it stays pinned), and what resolving a path below a CID throws.
 */
export async function addPin(
  { blocks, pins }: PinParts,
  request: PinAddRequest,
  onProgress: (progress: PinProgress) => void,
  signal: AbortSignal,
): Promise<PinReport> {
  const { cid: root, segments } = parsePinTarget(Buffer.from(request.cid))
  const { cid } = await locate(root, segments, blocks, { signal })
  const pin = create(pins, nameFor(request.name, cid), cid)
  return reportOf(request.wait ? await waitFor(pins, pin, pin.tries, onProgress, signal) : pin)
}

function nameFor(name: string | null, cid: CID): Buffer {
  const text = name ?? cid.toString()
  if (text === '' || text === '.' || text === '..' || /[/\0]/.test(text)) {
    throw new CidfsError('INVALID', `${JSON.stringify(text)} cannot be a name in pins/`)
  }
  return Buffer.from(text)
}

/** What is there already with this content is tried again at once. */
function create(pins: NamedPins, name: Buffer, cid: CID): NamedPin {
  const known = pins.lookup(name)
  if (known === undefined) {
    return pins.create(name, cid, { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 })
  }
  if (!known.cid.toV1().equals(cid.toV1())) {
    throw new CidfsError('EXISTS', `pins/${name} is there already, with ${known.cid}`)
  }
  pins.retry(known.ino)
  return known
}

/** Until it is complete, or has failed more than `tries` times. */
async function waitFor(
  pins: NamedPins,
  { ino }: NamedPin,
  tries: number,
  onProgress: (progress: PinProgress) => void,
  signal: AbortSignal,
): Promise<NamedPin> {
  for (;;) {
    const pin = pins.find(ino)
    if (pin === undefined) throw new CidfsError('NOT_FOUND', 'it was unpinned meanwhile')
    if (pin.state === 'pinned' || (pin.state === 'failed' && pin.tries > tries)) return pin
    const { done, known } = pin.progress ?? { done: 0, known: 0 }
    onProgress({ state: pin.state, done, known })
    if (signal.aborted) throw new CidfsError('INTERRUPTED', 'interrupted')
    await sleep(POLL_MS)
  }
}

/** The pins at a path in `pins/`: all of them, or one. @throws CidfsError `NOT_FOUND`. */
export function pinsAt(pins: NamedPins, [name = '', ...below]: string[], path: string): NamedPin[] {
  if (name === '') return [...pins.list()]
  const pin = below.length === 0 ? pins.lookup(Buffer.from(name)) : undefined
  if (pin === undefined) throw new CidfsError('NOT_FOUND', `${path}: no such pin`, { path })
  return [pin]
}

/** Adds to `result` what becomes of pins; one that has failed before is not waited for. */
export async function waitForPins(
  pins: NamedPins,
  waited: NamedPin[],
  result: WaitResult,
  onProgress: (progress: WaitProgress) => void,
  signal: AbortSignal,
): Promise<WaitResult> {
  const { failed } = result
  const total = result.pinned + failed.length + waited.length
  let { pinned } = result
  for (const pin of waited) {
    const progress = () => onProgress({ total, pinned, failed: failed.length })
    const end = await waitFor(pins, pin, 0, progress, signal)
    if (end.state === 'pinned') pinned++
    else failed.push({ path: `pins/${end.name}`, error: end.error ?? end.state })
  }
  return { pinned, failed }
}

function reportOf(pin: NamedPin): PinReport {
  const { name, cid, state, progress, tries, error } = pin
  return {
    cid: cid.toString(),
    owner: `pins/${name}`,
    state,
    percent: state === 'pinned' ? 100 : ((progress && percentOf(progress)) ?? null),
    tries,
    error: error ?? null,
  }
}

function percentOf({ done, known }: FetchProgress): number {
  return Math.min(99, Math.floor((100 * done) / Math.max(1, known)))
}

/**
 * Every pin of every owner: first those of `pins/`, then the others. Percentages that have to be counted are
 * unknown when counting them takes longer than a moment.
 */
export async function listPins(parts: PinParts): Promise<PinReport[]> {
  const { store, staging, pins } = parts
  const reports = [...pins.list()].map(reportOf)
  for (const { cid, owners } of store.pins.list()) {
    // those of `pins/`, or what one of them has replaced and still keeps
    const others = owners.filter(owner => pins.ofOwner(owner) === undefined)
    for (const owner of others) reports.push(completeReport(cid, shownOwner(staging, owner)))
  }
  await countHeld(store, reports)
  return reports
}

/** Content that was staged was made here; a CAR may have brought a part of its DAG only. */
function completeReport(cid: CID, owner: string): PinReport {
  const percent = owner === IMPORT_OWNER ? null : 100
  return { cid: cid.toString(), owner, state: 'pinned', percent, tries: 0, error: null }
}

async function countHeld(store: Store, reports: PinReport[]): Promise<void> {
  const signal = AbortSignal.timeout(COUNT_MS)
  for (const report of reports) {
    if (report.percent !== null || signal.aborted) continue
    const found = await completeness(store, parseCid(report.cid), links, { signal }).catch(() => undefined)
    if (found === undefined) return
    report.percent = found.held ? 100 : percentOf({ done: found.blocks, known: found.blocks + found.missing })
  }
}

function shownOwner(staging: Staging, owner: string): string {
  const ino = Number(/^staging:(\d+)$/.exec(owner)?.[1] ?? Number.NaN)
  const node = Number.isNaN(ino) ? undefined : staging.names.find(ino)
  return node === undefined ? owner : `staging/${staging.names.pathOf(node)}`
}

/**
 * Takes back the pin of a name or, given a CID, all pins of it that have a name or came with an import.
 * @throws CidfsError `NOT_FOUND`; it says who else holds it.
 */
export function removePin(parts: PinParts, what: string): PinRemoval {
  const { pins } = parts
  const name = what.replace(/^pins\//, '').replace(/\/+$/, '')
  if (pins.lookup(Buffer.from(name)) !== undefined) {
    pins.remove(Buffer.from(name))
    return { removed: [`pins/${name}`] }
  }
  const cid = tryParseCid(what)
  if (cid === undefined) throw new CidfsError('NOT_FOUND', `there is no pins/${name}, and it is no CID`)
  return { removed: removeAll(parts, cid) }
}

function removeAll({ store, staging, pins }: PinParts, cid: CID): string[] {
  const named = [...pins.list()].filter(pin => pin.cid.toV1().equals(cid.toV1()))
  const imported = !isIdentity(cid) && store.pins.remove(cid, IMPORT_OWNER)
  for (const { name } of named) pins.remove(name)
  const removed = named.map(({ name }) => `pins/${name}`)
  if (imported) removed.push(IMPORT_OWNER)
  if (removed.length > 0) return removed
  const others = isIdentity(cid) ? [] : store.pins.owners(cid).map(owner => shownOwner(staging, owner))
  const hint = others.length === 0 ? '' : `; it is held by ${others.join(', ')}: remove that`
  throw new CidfsError('NOT_FOUND', `${cid} is not pinned by name or import${hint}`)
}

/** Fetches a whole DAG, pins nothing. @throws CidfsError `INVALID`, `INTERRUPTED`. */
export async function prefetchDag(
  { store, blocks }: PinParts,
  text: string,
  onProgress: (progress: FetchProgress) => void,
  signal: AbortSignal,
): Promise<PrefetchResult> {
  const { cid: root, segments } = parsePinTarget(Buffer.from(text))
  const { cid } = await locate(root, segments, blocks, { signal })
  const { done, missed, firstMissed } = await fetchDag(blocks, cid, links, { signal, onProgress })
  if (missed === 0 && !isIdentity(cid)) store.roots.markHeld(cid, true)
  const error = firstMissed === undefined ? null : messageOf(firstMissed.error)
  return { cid: cid.toString(), blocks: done, missed, error }
}
