/**
 * Who is asked for which want.
 *
 * Invariant: a want is asked of one peer at a time; of another one only when that one says no, is late, or is
 * silent for longer than it usually is. What can be asked is asked at once: those that somebody waits for first,
 * longest waiting first. A want that every peer has said no to is handed over as stranded, until a peer comes.
 * Why: two answers to one question cost a whole block of traffic, so certainty is worth a round trip.
 */
import type { ClientPeer } from './client-peer.js'
import type { Session } from './session.js'
import type { Urgency, Want } from './want.js'

/** Peers that are asked whether they have a block while the likeliest is asked for it. */
const MAX_PROBES = 16
/** Peers that may be sending the same block. */
const MAX_AT_ONCE = 4
/** Waiting wants that find no free peer before the rest is left for later. */
const MAX_REFUSALS = 64
/** Wants that a new peer is told of, to learn what it has. */
const MAX_INTRODUCTIONS = 16
/** A want is late after this and so many times what was expected. */
const LATE_MS = { demand: 1_000, 'read-ahead': 3_000 } as const
const LATE_TIMES = 2
/** While a peer that would do has nothing to do, this and so many times what it would take. */
const HEDGE_MS = 300
const HEDGE_TIMES = 2
/** So much later it counts as a no. */
const GIVEN_UP_MS = 15_000

export class Dispatcher {
  readonly peers = new Map<string, ClientPeer>()
  readonly #wants: ReadonlyMap<string, Want>
  readonly #stranded: (want: Want) => void
  readonly #waiting: Record<Urgency, Set<Want>> = { demand: new Set(), 'read-ahead': new Set() }
  #pumping = false

  /** `stranded` is called each time nobody who is connected is left to ask for a want. */
  constructor(wants: ReadonlyMap<string, Want>, stranded: (want: Want) => void) {
    this.#wants = wants
    this.#stranded = stranded
  }

  /** Wants that wait for a free peer. */
  get waiting(): number {
    return this.#waiting.demand.size + this.#waiting['read-ahead'].size
  }

  /** Something is known of the want that was not before; called at its start as well. */
  reconsider(want: Want): void {
    if (want.over || want.asking > 0) return
    this.#waiting[want.urgency].add(want)
    this.pump()
  }

  raise(want: Want): void {
    const waited = this.#waiting[want.urgency].delete(want)
    want.urgency = 'demand'
    if (waited) this.reconsider(want)
  }

  /** It has come, or nobody wants it any more: tells everybody who may still believe otherwise. */
  remove(want: Want, arrived: boolean): void {
    this.#waiting.demand.delete(want)
    this.#waiting['read-ahead'].delete(want)
    for (const [peer, standing] of want.standings) {
      if (arrived && standing === 'probed') peer.linger(want.key, want.cid)
      else if (arrived && standing === 'late') peer.outrun(want.key, want.cid)
      else peer.cancel(want.key, want.cid)
    }
    this.pump()
  }

  join(peer: ClientPeer): void {
    this.peers.set(peer.id, peer)
    this.#introduce(peer)
    for (const want of this.#wants.values()) if (want.asking === 0) this.#waiting[want.urgency].add(want)
    this.pump()
  }

  /** Asks it about one want of each session under way. */
  #introduce(peer: ClientPeer): void {
    const sessions = new Set<Session>()
    for (const want of this.#wants.values()) {
      if (sessions.size >= MAX_INTRODUCTIONS || !peer.speaksPresence) return
      if (want.asking === 0 || sessions.has(want.session)) continue
      sessions.add(want.session)
      peer.probe(want)
    }
  }

  /** The peer is gone; what was asked of it is asked of others. */
  leave(peer: ClientPeer): void {
    if (this.peers.get(peer.id) !== peer) return
    this.peers.delete(peer.id)
    for (const want of this.#wants.values()) {
      if (want.standing(peer) === undefined) continue
      want.stands(peer, undefined)
      if (want.asking === 0) this.#waiting[want.urgency].add(want)
    }
    this.pump()
  }

  /** It has the block. */
  has(peer: ClientPeer, want: Want): void {
    want.session.yes(peer.id)
    const standing = want.standing(peer)
    if (standing === 'asked' || standing === 'late') return // the bytes are what we wait for
    peer.said(want.key)
    want.stands(peer, 'has')
    this.reconsider(want)
  }

  /** It has not. */
  absent(peer: ClientPeer, want: Want): void {
    peer.said(want.key)
    want.session.no(peer.id)
    want.stands(peer, 'absent')
    if (want.asking === 0) this.#waiting[want.urgency].add(want)
    this.pump()
  }

  /** Asks whatever can be asked. Events in it are looked at by the round that is under way. */
  pump(): void {
    if (this.#pumping) return
    this.#pumping = true
    for (const urgency of ['demand', 'read-ahead'] as const) this.#pump(this.#waiting[urgency])
    this.#pumping = false
  }

  #pump(waiting: Set<Want>): void {
    let refusals = 0
    for (const want of waiting) {
      if (refusals > MAX_REFUSALS || !this.#room) return
      if (this.#advance(want)) waiting.delete(want)
      else refusals++
    }
  }

  /** Whether anybody can be asked anything, or nobody is there at all. */
  get #room(): boolean {
    for (const peer of this.peers.values()) if (peer.room > 0) return true
    return this.peers.size === 0
  }

  /** False: somebody could be asked, but is busy. */
  #advance(want: Want): boolean {
    const { likely, unknown, pending } = this.#candidates(want)
    const lively = (peer: ClientPeer): boolean => !peer.isSilent(want.urgency === 'demand')
    const groups = [likely.filter(lively), unknown.filter(lively), likely, unknown]
    const candidates = groups.find(group => group.length > 0)
    const peer = candidates && cheapest(candidates)
    if (peer !== undefined) peer.ask(want)
    if (likely.length === 0) this.#probe(want, unknown)
    if (peer !== undefined) return true
    if (candidates !== undefined) return false
    if (!pending) this.#stranded(want)
    return true
  }

  #candidates(want: Want): { likely: ClientPeer[]; unknown: ClientPeer[]; pending: boolean } {
    const [likely, unknown]: [ClientPeer[], ClientPeer[]] = [[], []]
    let open = 0
    let probed = 0
    for (const peer of this.peers.values()) {
      if (!peer.canName(want.cid)) continue
      const standing = want.standing(peer)
      if (standing === 'asked' || standing === 'late') open++
      else if (standing === 'probed') probed++
      else if (standing === 'has') likely.push(peer)
      else if (standing === undefined) (want.session.likely(peer.id) ? likely : unknown).push(peer)
    }
    if (open >= MAX_AT_ONCE) return { likely: [], unknown: [], pending: true }
    return { likely, unknown, pending: open + probed > 0 }
  }

  /** While nobody is known to have the DAG: finds out who has. */
  #probe(want: Want, unknown: ClientPeer[]): void {
    let probes = 0
    for (const peer of unknown) {
      if (probes >= MAX_PROBES) return
      if (!peer.speaksPresence || want.standing(peer) !== undefined) continue
      peer.probe(want)
      probes++
    }
  }

  /** Time has passed: finds what is late. */
  tick(now: number, elapsedMs: number): void {
    const idle = [...this.peers.values()].filter(peer => peer.isIdle)
    for (const peer of this.peers.values()) {
      peer.tick(elapsedMs)
      let late = false
      for (const { want, at, expectedMs } of peer.asked.values()) {
        const overdueMs = now - at - LATE_TIMES * expectedMs
        if (overdueMs > GIVEN_UP_MS) this.#giveUp(peer, want)
        else if (
          overdueMs > LATE_MS[want.urgency] ||
          peer.isSilent(want.urgency === 'demand') ||
          isOutdone(want, now - at, idle)
        ) {
          late = this.#late(peer, want) || late
        }
      }
      if (late) peer.wasLate(now)
      for (const { want, at } of peer.probed.values()) if (now - at > GIVEN_UP_MS) this.#giveUp(peer, want)
    }
    this.pump()
  }

  #giveUp(peer: ClientPeer, want: Want): void {
    peer.cancel(want.key, want.cid)
    this.absent(peer, want)
  }

  #late(peer: ClientPeer, want: Want): boolean {
    if (want.standing(peer) !== 'asked') return false
    want.stands(peer, 'late')
    this.#waiting[want.urgency].add(want)
    return true
  }
}

/** Whether somebody waits for the block, and one who probably has it would have sent it long ago. */
function isOutdone(want: Want, waitedMs: number, idle: ClientPeer[]): boolean {
  if (want.urgency !== 'demand' || waitedMs < HEDGE_MS) return false
  return idle.some(peer => {
    const standing = want.standing(peer)
    const has = standing === 'has' || (standing === undefined && want.session.likely(peer.id))
    return has && waitedMs > HEDGE_MS + HEDGE_TIMES * peer.costMs
  })
}

function cheapest(peers: ClientPeer[]): ClientPeer | undefined {
  let best: ClientPeer | undefined
  for (const peer of peers) {
    if (peer.room > 0 && (best === undefined || peer.costMs < best.costMs)) best = peer
  }
  return best
}
