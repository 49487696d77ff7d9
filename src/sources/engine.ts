/**
 * All sources of a node, and the races between them.
 *
 * Invariant: a race that can run does not wait: a slot that becomes free goes to the longest waiting read that
 * wants it, and to read-ahead only when no read does.
 */
import { type CID, canVerify } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { Lane } from './lane.js'
import { Race } from './race.js'
import type { Priority, Source, SourceKind, SourceStatus } from './source.js'

/** How long `status` waits for sources that were never asked for anything. */
const STATUS_PROBE_MS = 1_000
/** Waiting races that are offered a free slot before it is left idle. */
const MAX_REFUSALS = 64

export interface FetchRequest {
  /** Milliseconds until `TIMEOUT`. */
  deadlineMs: number
  priority: Priority
}

export class Engine {
  readonly lanes: readonly Lane[]
  readonly #running = new Set<Race>()
  readonly #waiting: Record<Priority, Set<Race>> = { demand: new Set(), 'read-ahead': new Set() }

  constructor(sources: Source[]) {
    this.lanes = sources.map(source => new Lane(source))
    for (const lane of this.lanes) lane.onFree = () => this.#offer(lane)
  }

  /**
   * Starts to look for a block. `race.promise` fails with CidfsError `UNREACHABLE`, `BAD_BLOCK`, `TIMEOUT`,
   * `INTERRUPTED` (cancelled).
   * @throws CidfsError `UNSUPPORTED_HASH`.
   */
  start(cid: CID, request: FetchRequest): Race {
    if (!canVerify(cid)) {
      const { code } = cid.multihash
      throw new CidfsError('UNSUPPORTED_HASH', `hash function 0x${code.toString(16)} is not supported`, {
        cid: cid.toString(),
      })
    }
    for (const lane of this.lanes) if (lane.health.probeDue()) void lane.probe()
    const race = new Race(this, cid, request)
    this.#running.add(race)
    race.advance()
    return race
  }

  /** How many races stand in the queue before one of this priority. */
  waitingBefore(priority: Priority): number {
    return this.#waiting.demand.size + (priority === 'demand' ? 0 : this.#waiting['read-ahead'].size)
  }

  /** Called by a race that found no free slot. */
  wait(race: Race): void {
    this.#waiting[race.priority].add(race)
  }

  /** Called by a race that needs no slot any more. */
  stopWaiting(race: Race): void {
    this.#waiting.demand.delete(race)
    this.#waiting['read-ahead'].delete(race)
  }

  /** Called by a race that has ended. */
  ended(race: Race): void {
    this.stopWaiting(race)
    this.#running.delete(race)
  }

  #offer(lane: Lane): void {
    let refusals = 0
    for (const priority of ['demand', 'read-ahead'] as const) {
      for (const race of this.#waiting[priority]) {
        if (!lane.hasSlot(priority) || refusals > MAX_REFUSALS) break
        race.advance()
        if (this.#waiting[priority].has(race)) refusals++
      }
    }
  }

  /** Sources of this kind that were left alone can be asked again, whatever became of them before. */
  recovered(kind: SourceKind): void {
    for (const lane of this.lanes) {
      if (lane.source.kind === kind && lane.health.paused) lane.health.recovered()
    }
  }

  /** What each source has done. Sources nobody asked yet, or not for a while, are probed first, for a second. */
  async status(): Promise<SourceStatus[]> {
    const unknown = this.lanes.filter(lane => lane.untried || lane.health.probeDue())
    let timer: NodeJS.Timeout | undefined
    const patience = new Promise<void>(resolve => {
      timer = setTimeout(resolve, STATUS_PROBE_MS)
    })
    await Promise.race([Promise.all(unknown.map(lane => lane.probe())), patience])
    clearTimeout(timer)
    return this.lanes.map(lane => lane.status())
  }

  /** Ends every race with `INTERRUPTED`, then every connection. */
  async close(): Promise<void> {
    for (const race of [...this.#running]) race.cancel()
    await Promise.all(this.lanes.map(lane => lane.source.close()))
  }
}
