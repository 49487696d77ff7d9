/**
 * The bitswap client: blocks by CID, from whichever peer has them.
 *
 * Invariant: what `get` returns has been hashed: a block is recognised by its hash alone. A want ends with its
 * block, with its last reader, or when everybody who is connected has said no and nobody else was found. A peer that
 * sends what nobody asked for, or breaks the protocol, is dropped and not asked again for a while.
 * Why no trust in the order of answers: peers answer in any order, and a hostile one as it likes.
 */
import { type CID, keyOf } from '../core/cid.js'
import { logger } from '../core/log.js'
import { Bans } from './bans.js'
import { keyOfBlock, keyOfCidBytes } from './block-key.js'
import { type BlockSizes, ClientPeer } from './client-peer.js'
import type { Discovery } from './discovery.js'
import { Dispatcher } from './dispatcher.js'
import type { PeerLink } from './link.js'
import { ProviderSearch } from './provider-search.js'
import { type Has, Questions } from './questions.js'
import type { SendQueue } from './send-queue.js'
import { Sessions } from './session.js'
import { type Urgency, Want } from './want.js'

const log = logger('bitswap:client')

const FIRST_AVERAGE_BYTES = 256 * 1024
const TICK_MS = 100
/** How long somebody who waits is kept waiting for a first peer to connect, and longer at the start. */
const PATIENCE_MS = 3_000
const PATIENCE_AT_START_MS = 10_000
/** Pause before providers are looked for again while nobody is connected. */
const SEARCH_AGAIN_MS = 500
/** A read that nobody has offered to answer after this time has providers looked for meanwhile. */
const SEARCH_AFTER_MS = 1_000
const MAX_SILENCE_MS = 15_000
/** Pause before a link is tried again on which nothing could be sent. */
const RETRY_MS = 5_000
/** Bytes that came twice and are forgiven, besides as many as were useful. */
const FORGIVEN_DUPLICATES = 64 * 1024 * 1024
/** Why a block is not to be had: `absent`: everybody asked says no; `alone`: nobody is connected; `closed`. */
export class WantError extends Error {
  override readonly name = 'WantError'

  constructor(
    readonly kind: 'absent' | 'alone' | 'closed',
    message: string,
  ) {
    super(message)
  }
}

export interface ClientOptions {
  /** Where to find more peers; none when absent. */
  discovery?: Discovery | undefined
  /** Milliseconds that a read waits for a first connection. */
  patienceMs?: number
  /** Milliseconds after which a peer that was asked, and says nothing at all, is dropped. */
  maxSilenceMs?: number
}

/** One line of `status`. */
export interface PeerReport {
  peerId: string
  version: string
  /** Blocks asked of it and not here yet. */
  asked: number
  blocks: number
  bytes: number
  latencyMs: number
}

export class BitswapClient {
  readonly #wants = new Map<string, Want>()
  readonly #dispatcher = new Dispatcher(this.#wants, want => this.#stranded(want))
  readonly #sessions = new Sessions()
  readonly #links = new Map<string, ClientPeer>()
  /** Links that are left alone for a moment, and when they are tried again. */
  readonly #resting = new Map<string, NodeJS.Timeout>()
  readonly #bans = new Bans()
  readonly #questions = new Questions()
  readonly #search: ProviderSearch | undefined
  readonly #patienceMs: number
  readonly #maxSilenceMs: number
  /** Until then nobody need be connected. */
  readonly #startUntil: number
  readonly #sizes: BlockSizes = { averageBytes: FIRST_AVERAGE_BYTES }
  #ticker: NodeJS.Timeout | undefined
  #tickedAt = 0
  #closed = false
  duplicateBytes = 0

  constructor(options: ClientOptions = {}) {
    const { discovery, patienceMs = PATIENCE_MS, maxSilenceMs = MAX_SILENCE_MS } = options
    this.#maxSilenceMs = maxSilenceMs
    this.#search = discovery && new ProviderSearch(discovery, id => this.#links.has(id))
    this.#patienceMs = patienceMs
    this.#startUntil = performance.now() + (patienceMs * PATIENCE_AT_START_MS) / PATIENCE_MS
  }

  /**
   * The block, verified, in an ArrayBuffer of its own.
   * @throws WantError; any error when `signal` aborts.
   */
  async get(cid: CID, options: { signal: AbortSignal; urgency?: Urgency }): Promise<Uint8Array> {
    if (this.#closed) throw new WantError('closed', 'shutting down')
    const { signal, urgency = 'demand' } = options
    const key = keyOf(cid)
    const known = this.#wants.get(key)
    const want = known ?? new Want(cid, this.#sessions.of(cid), urgency)
    const bytes = want.wait(signal, () => this.#end(want))
    if (known === undefined && !want.over) this.#begin(want)
    else if (urgency === 'demand') this.raise(cid)
    return await bytes
  }

  /** Somebody waits for a block now that was a guess. */
  raise(cid: CID): void {
    const want = this.#wants.get(keyOf(cid))
    if (want?.urgency === 'read-ahead') this.#dispatcher.raise(want)
  }

  /** What each connected peer says of having the block, once all have answered or `signal` aborts. */
  async whoHas(cid: CID, signal: AbortSignal): Promise<{ peer: string; has: Has }[]> {
    this.#sessions.of(cid) // what comes late is known for what it is
    const wanted = () => this.#wants.has(keyOf(cid))
    const answers = await this.#questions.ask(cid, [...this.#dispatcher.peers.values()], signal, wanted)
    return [...answers].map(([peer, has]) => ({ peer, has }))
  }

  /** Peers that can be asked. */
  get connections(): number {
    return this.#dispatcher.peers.size
  }

  get peers(): PeerReport[] {
    return [...this.#links.values()].map(peer => ({
      peerId: peer.id,
      version: peer.version,
      asked: peer.asked.size,
      blocks: peer.blocks,
      bytes: peer.bytes,
      latencyMs: Math.round(peer.rate.latencyMs),
    }))
  }

  /** Peers that are left alone, and why. */
  get banned(): { peerId: string; reason: string }[] {
    return this.#bans.list()
  }

  connected(link: PeerLink, sender: SendQueue): void {
    this.disconnected(link.peerId)
    const peer: ClientPeer = new ClientPeer(link, sender, this.#sizes, () => this.#rest(peer))
    this.#links.set(peer.id, peer)
    if (this.#bans.reason(peer.id) === undefined) this.#dispatcher.join(peer)
  }

  /** Nothing can be sent to a peer that is still connected, as far as we know: it is tried again after a while. */
  #rest(peer: ClientPeer): void {
    if (this.#links.get(peer.id) !== peer) return
    this.disconnected(peer.id)
    const timer = setTimeout(() => this.connected(peer.link, peer.sender), RETRY_MS)
    timer.unref()
    this.#resting.set(peer.id, timer)
  }

  disconnected(peerId: string): void {
    clearTimeout(this.#resting.get(peerId))
    this.#resting.delete(peerId)
    const peer = this.#links.get(peerId)
    if (peer === undefined) return
    this.#links.delete(peerId)
    this.#dispatcher.leave(peer)
    this.#questions.left(peer)
  }

  /** Whether bytes of a block from this peer are of any use; if not they are not even kept. */
  expects(peerId: string): boolean {
    const peer = this.#links.get(peerId)
    return peer !== undefined && (peer.busy || peer.questions > 0)
  }

  /** Bytes came from the peer; `ofBlock`: of a block that is kept. */
  heard(peerId: string, ofBlock: boolean): void {
    this.#links.get(peerId)?.heard(ofBlock)
  }

  block(peerId: string, prefix: Uint8Array | undefined, bytes: Uint8Array): void {
    const peer = this.#links.get(peerId)
    if (peer === undefined) return
    const key = keyOfBlock(prefix, bytes)
    const want = key === undefined ? undefined : this.#wants.get(key)
    if (key === undefined || (want === undefined && this.#sessions.known(key) === undefined)) {
      this.offended(peerId, 'it sent bytes that are no block it was asked for')
      return
    }
    peer.sent(key, bytes.length, want !== undefined)
    this.#sessions.known(key)?.yes(peerId)
    this.#questions.answered(key, peer, 'yes')
    if (want !== undefined) this.#arrived(want, bytes)
    else this.#duplicate(peer, bytes.length)
  }

  presence(peerId: string, cid: Uint8Array, has: boolean): void {
    const peer = this.#links.get(peerId)
    const key = keyOfCidBytes(cid)
    if (peer === undefined || key === undefined) return
    this.#questions.answered(key, peer, has ? 'yes' : 'no')
    const want = this.#wants.get(key)
    if (has) peer.serves = true
    if (want === undefined && has) this.#sessions.known(key)?.yes(peerId)
    if (want?.standing(peer) === undefined) peer.said(key)
    else if (has) this.#dispatcher.has(peer, want)
    else this.#dispatcher.absent(peer, want)
  }

  /** The peer broke the rules: it is dropped, and left alone for longer each time. */
  offended(peerId: string, reason: string): void {
    const peer = this.#links.get(peerId)
    if (peer === undefined) return
    const lengthMs = this.#bans.add(peerId, reason)
    log('%s: %s; left alone for %d ms', peerId, reason, lengthMs)
    this.disconnected(peerId)
    peer.link.drop(reason)
  }

  /** One that serves blocks has stalled; another may serve none, and only want to be served: its link stays. */
  #wasSilent(peer: ClientPeer): void {
    const reason = `it was silent for ${Math.round(peer.silentMs / 100) / 10} s`
    if (peer.serves) {
      this.offended(peer.id, reason)
      return
    }
    this.#bans.add(peer.id, reason)
    this.connected(peer.link, peer.sender)
  }

  /** Every want fails. */
  close(): void {
    this.#closed = true
    for (const want of [...this.#wants.values()]) this.#fail(want, 'closed', 'shutting down')
    clearInterval(this.#ticker)
    for (const timer of this.#resting.values()) clearTimeout(timer)
  }

  #begin(want: Want): void {
    this.#wants.set(want.key, want)
    if (this.#ticker === undefined) {
      this.#tickedAt = performance.now()
      this.#ticker = setInterval(() => this.#tick(), TICK_MS)
    }
    this.#dispatcher.reconsider(want)
  }

  #arrived(want: Want, bytes: Uint8Array): void {
    this.#sessions.arrived(want.session, want.cid, bytes)
    this.#end(want, true)
    want.deliver(bytes)
  }

  #fail(want: Want, kind: WantError['kind'], message: string): void {
    this.#end(want)
    want.fail(new WantError(kind, message))
  }

  #end(want: Want, arrived = false): void {
    want.over = true
    if (!this.#wants.delete(want.key)) return
    want.abort.abort()
    this.#dispatcher.remove(want, arrived)
  }

  #duplicate(peer: ClientPeer, sizeBytes: number): void {
    this.duplicateBytes += sizeBytes
    if (peer.duplicateBytes > FORGIVEN_DUPLICATES + peer.bytes) {
      this.offended(peer.id, 'it keeps sending what it was not asked for')
    }
  }

  /** Nobody who is connected is left to ask. */
  #stranded(want: Want): void {
    if (!want.searched) void this.#searchFor(want)
    else if (want.searchedAt !== undefined) this.#giveUp(want)
  }

  async #searchFor(want: Want): Promise<void> {
    want.searched = true
    const { signal } = want.abort
    const { root } = want.session
    // Guesses are not worth a search each: who has the root has most of it.
    const own = want.urgency === 'demand' && keyOf(root) !== want.key ? [want.cid] : []
    const cids = [...own, root]
    await (this.#search?.run(cids, signal) ?? Promise.resolve())
    want.searchedAt = performance.now()
    if (!want.over) this.#dispatcher.reconsider(want) // stranded again, if nobody was found
  }

  #giveUp(want: Want): void {
    if (this.#dispatcher.peers.size > 0) this.#fail(want, 'absent', this.#absentMessage)
    else this.#waitForPeers(want, performance.now())
  }

  /** Nobody is connected; called at each tick. */
  #waitForPeers(want: Want, now: number): void {
    if (now > Math.max(want.startedAt + this.#patienceMs, this.#startUntil)) {
      const [peer] = this.#links.values()
      const reason = peer && this.#bans.reason(peer.id)
      this.#fail(want, 'alone', reason === undefined ? 'no peer is connected' : `no peer is left: ${reason}`)
    } else if (this.#search !== undefined && now - (want.searchedAt ?? now) > SEARCH_AGAIN_MS) {
      want.searchedAt = undefined
      void this.#searchFor(want)
    }
  }

  get #absentMessage(): string {
    const count = this.#dispatcher.peers.size
    const peers =
      count === 1 ? 'the connected peer has not got it' : `none of ${count} connected peers has it`
    return this.#search === undefined ? peers : `${peers}, and no other provider was found`
  }

  #tick(): void {
    const now = performance.now()
    const elapsedMs = now - this.#tickedAt
    this.#tickedAt = now
    this.#dispatcher.tick(now, elapsedMs)
    for (const peer of [...this.#dispatcher.peers.values()]) {
      if (!peer.speaksPresence) continue
      if (peer.silentMs > this.#maxSilenceMs) this.#wasSilent(peer)
      else if (peer.owingMs > this.#maxSilenceMs) this.offended(peer.id, 'it does not send what it has')
    }
    for (const peer of this.#links.values()) {
      if (!this.#dispatcher.peers.has(peer.id) && this.#bans.reason(peer.id) === undefined) {
        this.#dispatcher.join(peer)
      }
    }
    for (const want of [...this.#wants.values()]) this.#look(want, now)
    this.#stopTicking()
  }

  /** Time passes for nobody when nothing is awaited. */
  #stopTicking(): void {
    if (this.#wants.size > 0) return
    for (const peer of this.#dispatcher.peers.values()) if (peer.busy) return
    clearInterval(this.#ticker)
    this.#ticker = undefined
  }

  /** Looks after a want that does not get on. */
  #look(want: Want, now: number): void {
    if (this.#dispatcher.peers.size === 0) {
      this.#dispatcher.reconsider(want)
      return
    }
    const slow = want.urgency === 'demand' && now - want.startedAt > SEARCH_AFTER_MS
    if (!slow || want.searched || this.#search === undefined) return
    for (const peer of want.standings.keys()) if (want.session.likely(peer.id)) return
    void this.#searchFor(want)
  }
}
