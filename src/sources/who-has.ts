/**
 * Who has a block, asked of everybody at once without fetching it.
 *
 * Invariant: it ends at its deadline with what is known by then; who has not answered is `unknown`, not `no`.
 */
import type { CID } from '../core/cid.js'
import { messageOf } from '../core/errors.js'
import { orInterrupted } from '../core/interrupted.js'
import type { Provider } from '../p2p/routing.js'
import type { Source } from './source.js'

export type Has = 'yes' | 'no' | 'unknown'

export interface WhoHas {
  /** Gateways, which may have to look for it themselves, and Kubo, asked for what it holds. */
  servers: { kind: 'gateway' | 'kubo'; name: string; has: Has; error: string | null }[]
  /** Connected peers, by their ids. */
  neighbours: { peer: string; has: Has }[]
  /** Peers that routing knows to provide it, ourselves left out; `more`: there may be others. */
  providers: { peers: string[]; more: boolean; error: string | null }
}

export interface Neighbours {
  /** What each connected peer says of the block, until the signal is aborted. */
  whoHas(cid: CID, signal: AbortSignal): Promise<{ peer: string; has: Has }[]>
}

export interface Providers {
  /** Our own peer id. */
  readonly self: string | undefined
  findProviders(cid: CID, signal: AbortSignal): AsyncIterable<Provider>
}

export interface Askable {
  sources: readonly Source[]
  neighbours: Neighbours | undefined
  providers: Providers | undefined
}

const MAX_PROVIDERS = 20
const LATE = 'no answer in time'

/** Resolves when everybody has answered, or when `signal` is aborted. */
export async function whoHas(cid: CID, askable: Askable, signal: AbortSignal): Promise<WhoHas> {
  const [servers, neighbours, providers] = await Promise.all([
    Promise.all(askable.sources.flatMap(source => askServer(source, cid, signal) ?? [])),
    askable.neighbours?.whoHas(cid, signal).catch(() => []) ?? [],
    askRouting(cid, askable.providers, signal),
  ])
  return { servers, neighbours, providers }
}

function askServer(
  source: Source,
  cid: CID,
  signal: AbortSignal,
): Promise<WhoHas['servers'][number]> | undefined {
  const { kind, name } = source
  if (kind === 'peer' || source.has === undefined) return undefined
  return orInterrupted(source.has(cid, { signal }), signal).then(
    has => ({ kind, name, has: has ? 'yes' : 'no', error: null }),
    (err: unknown) => ({ kind, name, has: 'unknown', error: signal.aborted ? LATE : messageOf(err) }),
  )
}

async function askRouting(
  cid: CID,
  routing: Providers | undefined,
  signal: AbortSignal,
): Promise<WhoHas['providers']> {
  const peers = new Set<string>()
  const outcome = (more: boolean, error: string | null) => ({ peers: [...peers], more, error })
  if (routing === undefined) return outcome(false, null)
  const collect = async (): Promise<boolean> => {
    for await (const { id } of routing.findProviders(cid, signal)) {
      if (id !== routing.self) peers.add(id)
      if (peers.size >= MAX_PROVIDERS) return true
    }
    return signal.aborted
  }
  try {
    return outcome(await orInterrupted(collect(), signal), null)
  } catch (err) {
    return outcome(true, signal.aborted ? null : messageOf(err))
  }
}
