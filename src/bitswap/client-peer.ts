/**
 * A peer that we may ask: what it was asked, how it does, and how much more it can be asked.
 *
 * Invariant: never more than `limit` blocks are asked of it at a time, and all that was asked or withdrawn in one
 * turn of the event loop goes out in one message.
 * Why the limit follows the rate: what a fast peer needs to stay busy would take a slow one minutes.
 */
import { type CID, HASH_SHA2_256 } from '../core/cid.js'
import type { BitswapVersion, PeerLink } from './link.js'
import type { WantEntry } from './message-parser.js'
import { encodeMessage } from './message-writer.js'
import { PeerRate } from './peer-rate.js'
import type { SendQueue } from './send-queue.js'
import type { Want } from './want.js'

const FIRST_LIMIT = 32
const MIN_LIMIT = 8
const MAX_LIMIT = 128
/** What is asked of a peer should be here within this time. */
const QUEUE_MS = 1_500
const MAX_ENTRIES_PER_MESSAGE = 1_024
/** Answers that are awaited for nothing but to know. */
const MAX_LINGERING = 256
/** Kubo answers wants of higher priority first, equal ones in the order in which they came. */
const PRIORITY = { demand: 10, 'read-ahead': 1 } as const
/** Silence after which others are asked as well, in latencies and at least and at most. */
const PATIENCE_LATENCIES = 4
const MIN_PATIENCE_MS = 400
const MAX_PATIENCE_MS = 3_000
const READ_AHEAD_PATIENCE = 4
/** Nothing counts as longer: it was we who slept. */
const MAX_TICK_MS = 250

interface Ask {
  want: Want
  at: number
  /** How long it was expected to take. */
  expectedMs: number
  /** It had nothing else to do. */
  alone: boolean
}

/** The size of a block, on average; shared by all peers of a client. */
export interface BlockSizes {
  averageBytes: number
}

export class ClientPeer {
  readonly link: PeerLink
  readonly sender: SendQueue
  readonly rate = new PeerRate()
  /** Wants whose bytes it was asked for. */
  readonly asked = new Map<string, Ask>()
  /** Wants that it was asked whether it has, and when. */
  readonly probed = new Map<string, { want: Want; at: number }>()
  blocks = 0
  bytes = 0
  duplicateBytes = 0
  /** Something else than wants keeps it accountable: see `BitswapClient.whoHas`. */
  questions = 0
  /** It has been asked something and said nothing for so long. */
  silentMs = 0
  /** It has said that it has a block, or begun to send one: it serves blocks, and owes those it is asked for. */
  serves = false
  /** It has been late with a block and sent nothing of any for so long. */
  owingMs = 0
  readonly #sizes: BlockSizes
  readonly #unreachable: () => void
  /** To be sent. */
  readonly #entries = new Map<string, WantEntry>()
  /** What it may believe that we want. */
  readonly #told = new Set<string>()
  readonly #lingering = new Map<string, CID>()
  /** A block that it was late with, and still has to send. */
  #debt: string | undefined
  #flushing = false

  /** `unreachable` is called when something could not be sent: the peer is gone, or about to be. */
  constructor(link: PeerLink, sender: SendQueue, sizes: BlockSizes, unreachable: () => void) {
    this.link = link
    this.sender = sender
    this.#sizes = sizes
    this.#unreachable = unreachable
  }

  get id(): string {
    return this.link.peerId
  }

  get version(): BitswapVersion {
    return this.link.version
  }

  /** Whether it answers questions without sending blocks, and says no. */
  get speaksPresence(): boolean {
    return this.version === '1.2.0'
  }

  /** Whether a block can be named to it: 1.0.0 has CIDs of version 0 only. */
  canName(cid: CID): boolean {
    return this.version !== '1.0.0' || (cid.multihash.code === HASH_SHA2_256 && cid.multihash.size === 32)
  }

  get limit(): number {
    if (!this.rate.measured) return FIRST_LIMIT
    const blocks = (this.rate.bytesPerMs * QUEUE_MS) / this.#sizes.averageBytes
    return Math.max(MIN_LIMIT, Math.min(MAX_LIMIT, Math.floor(blocks)))
  }

  get room(): number {
    return this.limit - this.asked.size
  }

  /** Milliseconds until a block would be here if it were asked for now. */
  get costMs(): number {
    return this.rate.latencyMs + ((this.asked.size + 1) * this.#sizes.averageBytes) / this.rate.bytesPerMs
  }

  /** Silent for longer than it usually is. */
  isSilent(urgent: boolean): boolean {
    const usualMs = PATIENCE_LATENCIES * this.rate.latencyMs
    const patienceMs = Math.max(MIN_PATIENCE_MS, Math.min(MAX_PATIENCE_MS, usualMs))
    return this.silentMs > patienceMs * (urgent ? 1 : READ_AHEAD_PATIENCE)
  }

  /** It owes an answer. */
  get busy(): boolean {
    return this.asked.size > 0 || this.probed.size > 0 || this.#lingering.size > 0 || this.#debt !== undefined
  }

  /** It is known to be of use, and has nothing to do. */
  get isIdle(): boolean {
    return this.blocks > 0 && this.asked.size === 0 && !this.isSilent(true)
  }

  wasLate(now: number): void {
    this.rate.late(this.#sizes.averageBytes, now)
  }

  ask(want: Want): void {
    const at = performance.now()
    const alone = !this.busy
    if (this.asked.size === 0) this.rate.busy(at)
    this.probed.delete(want.key)
    this.asked.set(want.key, { want, at, expectedMs: this.costMs, alone })
    want.stands(this, 'asked')
    this.#queue(want.key, this.#entry(want, false))
  }

  /** Only for those who speak of presence. */
  probe(want: Want): void {
    this.probed.set(want.key, { want, at: performance.now() })
    want.stands(this, 'probed')
    this.#queue(want.key, this.#entry(want, true))
  }

  #entry({ cid, urgency }: Want, have: boolean): WantEntry {
    const sendDontHave = this.speaksPresence
    return { cid: this.#name(cid), priority: PRIORITY[urgency], cancel: false, have, sendDontHave }
  }

  #name(cid: CID): Uint8Array {
    return this.version === '1.0.0' ? cid.multihash.bytes : cid.bytes
  }

  /** Asks whether it has a block that is not wanted. */
  question(key: string, cid: CID): void {
    const entry = { cid: this.#name(cid), priority: PRIORITY.demand, cancel: false }
    this.#queue(key, { ...entry, have: true, sendDontHave: true })
  }

  /** It need not answer any more; it may not have been asked at all. */
  cancel(key: string, cid: CID): void {
    this.asked.delete(key)
    this.probed.delete(key)
    this.#lingering.delete(key)
    if (this.#debt === key) this.#debt = undefined
    this.#entries.delete(key)
    if (!this.#told.has(key)) return
    this.#queue(key, { cid: this.#name(cid), priority: 1, cancel: true, have: false, sendDontHave: false })
  }

  /**
   * The block has come from another one before it said whether it has it: the answer is still worth knowing, for
   * what belongs to the block. What it believes that we want is withdrawn then.
   */
  linger(key: string, cid: CID): void {
    this.probed.delete(key)
    if (this.#lingering.size < MAX_LINGERING) this.#lingering.set(key, cid)
    else this.cancel(key, cid)
  }

  /**
   * Another one has sent what this one is late with. It is withdrawn, except that one block stays asked for: who
   * promises and never sends is found out that way, and who is slow is measured.
   */
  outrun(key: string, cid: CID): void {
    if (this.#debt === undefined && this.#told.has(key)) this.#debt = key
    if (this.#debt === key) this.asked.delete(key)
    else this.cancel(key, cid)
  }

  /** It said yes or no. A no does not make it forget that we want it. */
  said(key: string): void {
    const lingering = this.#lingering.get(key)
    if (lingering !== undefined) this.cancel(key, lingering)
    if (this.#debt === key) this.#debt = undefined
    this.#answered(key)
    this.asked.delete(key)
    this.probed.delete(key)
  }

  /** It sent the block, and has thereby forgotten that we want it. `useful`: nobody else had sent it. */
  sent(key: string, sizeBytes: number, useful: boolean): void {
    const wanted = this.asked.has(key)
    this.#told.delete(key)
    this.said(key)
    if (useful) this.blocks++
    if (useful) this.bytes += sizeBytes
    else this.duplicateBytes += sizeBytes
    this.#sizes.averageBytes += (sizeBytes - this.#sizes.averageBytes) / 32
    if (wanted) this.rate.received(sizeBytes, performance.now(), this.asked.size * 2 >= this.limit)
  }

  #answered(key: string): void {
    const ask = this.asked.get(key)
    const probe = this.probed.get(key)
    const now = performance.now()
    if (ask?.alone) this.rate.answered(now - ask.at)
    else if (probe !== undefined && this.asked.size === 0) this.rate.answered(now - probe.at)
  }

  /** Bytes came; `ofBlock`: of one that may be what it was asked for. */
  heard(ofBlock: boolean): void {
    this.silentMs = 0
    if (!ofBlock) return
    this.owingMs = 0
    this.serves = true
  }

  /** Time has passed. */
  tick(elapsedMs: number): void {
    if (this.busy) this.silentMs += Math.min(elapsedMs, MAX_TICK_MS)
    else this.silentMs = 0
    if (this.#debt === undefined) this.owingMs = 0
    else this.owingMs += Math.min(elapsedMs, MAX_TICK_MS)
  }

  #queue(key: string, entry: WantEntry): void {
    this.#entries.set(key, entry)
    if (this.#flushing) return
    this.#flushing = true
    setImmediate(() => void this.#flush())
  }

  async #flush(): Promise<void> {
    while (this.#entries.size > 0) {
      const sent = await this.sender.send(() => this.#compose())
      if (sent) continue
      this.#entries.clear()
      this.#unreachable()
    }
    this.#flushing = false
  }

  #compose(): Uint8Array[] {
    const entries = [...this.#entries].slice(0, MAX_ENTRIES_PER_MESSAGE)
    for (const [key, { cancel }] of entries) {
      this.#entries.delete(key)
      if (cancel) this.#told.delete(key)
      else this.#told.add(key)
    }
    return encodeMessage({ wants: entries.map(([, entry]) => entry) })
  }
}
