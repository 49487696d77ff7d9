/**
 * Who has a block: `cidfs exists`, and `.cidfs/exists/<cid>`.
 *
 * Invariant: nothing is fetched by asking. A copy that counts is somebody else's: a peer, gateway or Kubo that said
 * yes, or a peer that routing names.
 */
import { type CID, isIdentity, parseCid } from '../core/cid.js'
import { deadline } from '../core/deadline.js'
import { CidfsError, codeOf, messageOf } from '../core/errors.js'
import type { WhoHas } from '../sources/who-has.js'
import type { NetworkClient } from '../sources/worker-client.js'
import type { Store } from '../store/store.js'
import { completeness } from '../store/walk.js'
import { links } from '../unixfs/inspect.js'
import { EXISTS_TIMEOUT_MS, type ExistsReport, type HeldReport } from './control-protocol.js'

export interface ExistsParts {
  store: Store
  network: NetworkClient
}

/** For counting what is held here. */
const COUNT_MS = 1_000
const MAX_TIMEOUT_MS = 10 * 60_000
/** The worker answers with what it has at the deadline. */
const GRACE_MS = 1_000
const NOBODY: WhoHas = { servers: [], neighbours: [], providers: { peers: [], more: false, error: null } }

/** @throws CidfsError `MALFORMED_CID`, `INVALID`, `INTERRUPTED`. */
export async function exists(
  parts: ExistsParts,
  text: string,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<ExistsReport> {
  const cid = parseCid(text.replace(/^(?:ipfs:\/\/|\/?ipfs\/)/, ''))
  if (!(timeoutMs > 0 && timeoutMs <= MAX_TIMEOUT_MS)) {
    throw new CidfsError('INVALID', `the time must be between 0 and ${MAX_TIMEOUT_MS} ms, not ${timeoutMs}`)
  }
  const [held, { others, error }] = await Promise.all([
    heldHere(parts.store, cid, signal),
    askOthers(parts.network, cid, timeoutMs, signal),
  ])
  return { cid: cid.toString(), held, ...others, copies: copiesOf(others), error }
}

/** The same as a file. */
export async function existsText(parts: ExistsParts, cid: CID, signal: AbortSignal): Promise<string> {
  return `${JSON.stringify(await exists(parts, cid.toString(), EXISTS_TIMEOUT_MS, signal), null, 2)}\n`
}

async function heldHere(store: Store, cid: CID, signal: AbortSignal): Promise<HeldReport> {
  if (isIdentity(cid)) return { state: 'whole', percent: 100 }
  if (!store.has(cid)) return { state: 'no', percent: 0 }
  const either = deadline(COUNT_MS, signal)
  try {
    const { blocks, missing } = await completeness(store, cid, links, { signal: either })
    if (missing === 0) return { state: 'whole', percent: 100 }
    return { state: 'part', percent: Math.min(99, Math.floor((100 * blocks) / (blocks + missing))) }
  } catch (err) {
    if (signal.aborted) throw new CidfsError('INTERRUPTED', 'interrupted', { cause: err })
    if (either.aborted) return { state: 'part', percent: null }
    throw err
  }
}

async function askOthers(
  network: NetworkClient,
  cid: CID,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<{ others: WhoHas; error: string | null }> {
  if (network.unavailable !== undefined) return { others: NOBODY, error: 'offline, or nobody to ask' }
  try {
    const args = { cid: cid.bytes, timeoutMs }
    const others = await network.call('whoHas', args, { signal, deadlineMs: timeoutMs + GRACE_MS })
    return { others, error: null }
  } catch (err) {
    if (signal.aborted || codeOf(err) === 'INTERRUPTED') throw err
    return { others: NOBODY, error: messageOf(err) }
  }
}

function copiesOf({ servers, neighbours, providers }: WhoHas): number {
  const peers = new Set(providers.peers)
  for (const { peer, has } of neighbours) if (has === 'yes') peers.add(peer)
  return peers.size + servers.filter(({ has }) => has === 'yes').length
}
