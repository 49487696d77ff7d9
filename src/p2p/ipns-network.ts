/**
 * The records of keys, asked of and given to every place that keeps such records.
 *
 * Invariant: what `find` returns is verified, and the newest of what came before it ended: that is when every
 * place has answered, or a moment after the first good answer. One place that is wrong, slow or hostile costs
 * nothing but its own answer.
 */
import { deadline } from '../core/deadline.js'
import { messageOf } from '../core/errors.js'
import { orInterrupted } from '../core/interrupted.js'
import { logger } from '../core/log.js'
import { type KeyName, keyName } from './ipns-name.js'
import { type PutOutcome, supersedes, UNDER_WAY } from './ipns-record.js'
import { type VerifiedRecord, verifyRecord } from './ipns-verify.js'

const log = logger('p2p:ipns')

/** A place that keeps records: a DHT, a delegated router, a gateway, a Kubo. */
export interface ValueRouting {
  readonly name: string
  /** Whatever it holds for the key; nothing when it has nothing. @throws Error when it does not answer. */
  get(name: KeyName, signal: AbortSignal): AsyncIterable<Uint8Array>
  /** Absent where records can only be read. @throws Error when it was not taken. */
  put?(name: KeyName, record: Uint8Array, signal: AbortSignal): Promise<void>
}

export interface Found {
  record: VerifiedRecord | undefined
  /** Why each place that gave no valid record did not. */
  problems: RoutingProblem[]
}

export interface RoutingProblem {
  routing: string
  error: string
}

/** How long a newer record than the first one may take. */
const GRACE_MS = 1_000
/** Looked at of one place, for one name. */
const MAX_RECORDS = 32
/** How long others may take when somebody has taken a record: they go on, unheard. */
const PUT_GRACE_MS = 2_000
const LATE = 'no answer in time'
/** A record that many places should take is with enough of them after that long. */
const PUT_TIMEOUT_MS = 60_000

export class IpnsNetwork {
  readonly #routings: readonly ValueRouting[]
  readonly #graceMs: number

  constructor(routings: readonly ValueRouting[], graceMs = GRACE_MS) {
    this.#routings = routings
    this.#graceMs = graceMs
  }

  /** Resolves in any case, with what has come, when `signal` is aborted. */
  async find(multihash: Uint8Array, signal: AbortSignal): Promise<Found> {
    const search = new Search(keyName(multihash), this.#graceMs, signal)
    await search.run(this.#routings)
    return { record: search.best, problems: search.problems }
  }

  /**
   * Gives a record to every place that takes records. Resolves when all have answered, or a moment after the first
   * has taken it.
   * @throws CidfsError `BAD_BLOCK`: nobody would take it.
   */
  async publish(multihash: Uint8Array, record: Uint8Array, signal: AbortSignal): Promise<PutOutcome[]> {
    await verifyRecord(multihash, record)
    const limit = deadline(PUT_TIMEOUT_MS, signal)
    const takers = this.#routings.filter(routing => routing.put !== undefined)
    const puts = takers.map(routing => put(routing, keyName(multihash), record, limit))
    return firstTaken(takers, puts, this.#graceMs * (PUT_GRACE_MS / GRACE_MS))
  }
}

async function put(
  routing: ValueRouting,
  name: KeyName,
  record: Uint8Array,
  signal: AbortSignal,
): Promise<PutOutcome> {
  try {
    await orInterrupted(routing.put!(name, record, signal), signal)
    return { routing: routing.name, error: null }
  } catch (err) {
    log('%s did not take the record of %s: %s', routing.name, name.text, messageOf(err))
    return { routing: routing.name, error: signal.aborted ? LATE : messageOf(err) }
  }
}

async function firstTaken(
  takers: readonly ValueRouting[],
  puts: Promise<PutOutcome>[],
  graceMs: number,
): Promise<PutOutcome[]> {
  const outcomes: PutOutcome[] = takers.map(({ name }) => ({ routing: name, error: UNDER_WAY }))
  let timer: NodeJS.Timeout | undefined
  await new Promise<void>(resolve => {
    const heard = async (put: Promise<PutOutcome>, index: number): Promise<void> => {
      outcomes[index] = await put
      if (outcomes[index].error === null) timer ??= setTimeout(resolve, graceMs)
    }
    void Promise.all(puts.map(heard)).then(() => resolve())
  })
  clearTimeout(timer)
  return outcomes
}

class Search {
  readonly problems: RoutingProblem[] = []
  best: VerifiedRecord | undefined
  readonly #name: KeyName
  readonly #graceMs: number
  readonly #enough = new AbortController()
  readonly #signal: AbortSignal
  /** Those that gave a valid record. */
  readonly #good = new Set<ValueRouting>()
  #timer: NodeJS.Timeout | undefined

  constructor(name: KeyName, graceMs: number, signal: AbortSignal) {
    this.#name = name
    this.#graceMs = graceMs
    this.#signal = AbortSignal.any([signal, this.#enough.signal])
  }

  async run(routings: readonly ValueRouting[]): Promise<void> {
    await Promise.all(routings.map(routing => this.#ask(routing)))
    clearTimeout(this.#timer)
  }

  async #ask(routing: ValueRouting): Promise<void> {
    try {
      const error = await orInterrupted(this.#collect(routing), this.#signal)
      if (error !== undefined) this.problems.push({ routing: routing.name, error })
    } catch (err) {
      if (this.#enough.signal.aborted || this.#good.has(routing)) return
      const error = this.#signal.aborted ? LATE : messageOf(err)
      this.problems.push({ routing: routing.name, error })
    }
  }

  /** Why nothing it sent was of use; undefined when something was. */
  async #collect(routing: ValueRouting): Promise<string | undefined> {
    let seen = 0
    let problem: string | undefined
    for await (const bytes of routing.get(this.#name, this.#signal)) {
      if (this.#signal.aborted || ++seen > MAX_RECORDS) break
      try {
        this.#offer(await verifyRecord(this.#name.multihash, bytes))
        this.#good.add(routing)
      } catch (err) {
        problem ??= messageOf(err)
        log('%s: a record of %s: %s', routing.name, this.#name.text, problem)
      }
    }
    if (this.#good.has(routing)) return undefined
    if (this.#signal.aborted) throw new Error(LATE)
    return problem === undefined ? 'has no record' : `sent a bad record: ${problem}`
  }

  #offer(record: VerifiedRecord): void {
    if (this.best === undefined || supersedes(record, this.best)) this.best = record
    this.#timer ??= setTimeout(() => this.#enough.abort(), this.#graceMs)
  }
}
