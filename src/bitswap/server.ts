/**
 * The bitswap server: gives peers what they want and we hold.
 *
 * Invariant: a peer costs a bounded number of wants, and two messages at a time of bytes; of all peers together at
 * most `MAX_BYTES_IN_FLIGHT` are in memory. Peers take turns, one message each. What is served comes from the store's
 * own files, by location, and only what the supply shows.
 * Why wants that cannot be served are asked for again now and then: the store is on another thread, and telling this
 * one of each new block would cost far more than looking up what few peers still wait for.
 */
import { CID, isIdentity } from '../core/cid.js'
import { messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { prefixOf } from './block-key.js'
import type { PeerLink } from './link.js'
import type { WantEntry } from './message-parser.js'
import { encodeMessage, encodeMessageV0, type OutgoingBlock, type Presence } from './message-writer.js'
import type { SendQueue } from './send-queue.js'
import { ServedFiles } from './served-files.js'
import { type Answer, MAX_WANTS, type PeerWant, ServerPeer } from './server-peer.js'
import type { BlockSupply, HeldBlock } from './supply.js'

const log = logger('bitswap:server')

/** Bytes of blocks in one message, unless a single one is larger. */
const MESSAGE_BYTES = 256 * 1024
/** Of one peer: the next one is read while one is sent. */
const MAX_MESSAGES = 2
const MAX_BYTES_IN_FLIGHT = 32 * 1024 * 1024
/** CIDs that the store is asked for at a time. */
const BATCH = 128
/** Pause between looks for what we had not got when it was asked for. */
const RECHECK_MS = 1_000
/** Wants of all peers that are kept although we cannot serve them. */
const MAX_OPEN_WANTS = 16_384
/** Those looked for again each time. */
const MAX_RECHECKS = 256

interface Connection {
  link: PeerLink
  sender: SendQueue
  peer: ServerPeer
  /** Messages that are being composed or sent. */
  sending: number
  queued: boolean
  gone: boolean
}

/** What has been served since the start. */
export interface ServerReport {
  blocks: number
  bytes: number
  /** Of all peers, held or not. */
  wants: number
}

export class BitswapServer {
  readonly #supply: BlockSupply
  readonly #files = new ServedFiles()
  readonly #connections = new Map<string, Connection>()
  /** Who has something to be sent, in turn. */
  readonly #turns: Connection[] = []
  #bytesInFlight = 0
  #blocks = 0
  #bytes = 0
  #rechecking: NodeJS.Timeout | undefined
  /** Where the next look for open wants begins. */
  #recheckFrom = 0
  #closed = false

  constructor(supply: BlockSupply) {
    this.#supply = supply
  }

  get report(): ServerReport {
    const wants = [...this.#connections.values()].reduce((sum, { peer }) => sum + peer.wants, 0)
    return { blocks: this.#blocks, bytes: this.#bytes, wants }
  }

  connected(link: PeerLink, sender: SendQueue): void {
    this.disconnected(link.peerId)
    const state = { sending: 0, queued: false, gone: false }
    this.#connections.set(link.peerId, { link, sender, peer: new ServerPeer(), ...state })
  }

  disconnected(peerId: string): void {
    const connection = this.#connections.get(peerId)
    if (connection === undefined) return
    connection.gone = true
    connection.peer.clear()
    this.#connections.delete(peerId)
  }

  /**
   * The wants of one message, in order; `full`: they replace the earlier ones. Resolves when the next message
   * may come.
   */
  async wants(peerId: string, entries: readonly WantEntry[], full: boolean): Promise<void> {
    const connection = this.#connections.get(peerId)
    if (connection === undefined || this.#closed) return
    const { peer } = connection
    if (full) peer.clear()
    const asked: [string, PeerWant][] = []
    for (const entry of entries) {
      const key = Buffer.from(entry.cid).toString('latin1')
      if (entry.cancel) peer.cancel(key)
      else if (asked.length < MAX_WANTS) this.#take(peer, key, entry, asked)
    }
    await this.#locate(connection, asked, true)
  }

  #take(peer: ServerPeer, key: string, entry: WantEntry, asked: [string, PeerWant][]): void {
    const cid = decodeCid(entry.cid)
    if (cid === undefined || isIdentity(cid)) return
    const { priority, have, sendDontHave } = entry
    const want = { cid, priority, have, sendDontHave }
    if (peer.want(key, want)) asked.push([key, want])
  }

  async #locate(connection: Connection, wants: [string, PeerWant][], fresh: boolean): Promise<void> {
    for (let i = 0; i < wants.length && !connection.gone; i += BATCH) {
      const batch = wants.slice(i, i + BATCH)
      const held = await this.#held(batch.map(([, { cid }]) => cid))
      const forgetful = this.report.wants > MAX_OPEN_WANTS
      batch.forEach(([key], j) => {
        connection.peer.located(key, held[j], fresh)
        if (held[j] === undefined && forgetful) connection.peer.forget(key)
      })
      this.#queue(connection)
      this.#serve()
    }
    this.#recheckLater()
  }

  async #held(cids: CID[]): Promise<(HeldBlock | undefined)[]> {
    try {
      return await this.#supply.locate(cids)
    } catch (err) {
      log('locate: %s', messageOf(err))
      return []
    }
  }

  /** Puts a peer last in the queue, if there is something to be sent to it. */
  #queue(connection: Connection): void {
    const { peer, queued, sending, gone } = connection
    if (queued || gone || sending >= MAX_MESSAGES || !peer.hasAnswers) return
    connection.queued = true
    this.#turns.push(connection)
  }

  #serve(): void {
    while (this.#bytesInFlight < MAX_BYTES_IN_FLIGHT) {
      const connection = this.#turns.shift()
      if (connection === undefined) return
      connection.queued = false
      void this.#sendOne(connection)
      this.#queue(connection)
    }
  }

  async #sendOne(connection: Connection): Promise<void> {
    const answers = connection.peer.take(MESSAGE_BYTES)
    const size = answers.reduce((sum, answer) => sum + (answer.kind === 'block' ? answer.held.length : 0), 0)
    connection.sending++
    this.#bytesInFlight += size
    try {
      await this.#send(connection, answers)
    } finally {
      this.#bytesInFlight -= size
      connection.sending--
    }
    this.#queue(connection)
    this.#serve()
  }

  /** Takes its turn first and reads meanwhile, so that messages go out in the order in which they were begun. */
  async #send({ link, sender, peer }: Connection, answers: Answer[]): Promise<void> {
    const reading = Promise.all(answers.map(answer => this.#read(answer)))
    let blocks: OutgoingBlock[] = []
    const sent = await sender.send(async () => {
      const message = messageFor(answers, await reading, peer.pendingBytes)
      blocks = message.blocks
      return compose(link, message)
    })
    if (sent) for (const { bytes } of blocks) this.#count(peer, bytes.length)
  }

  #count(peer: ServerPeer, sizeBytes: number): void {
    peer.sentBlocks++
    peer.sentBytes += sizeBytes
    this.#blocks++
    this.#bytes += sizeBytes
  }

  /** The store may have moved the block since it was located. */
  async #read(answer: Answer): Promise<Uint8Array | undefined> {
    if (answer.kind !== 'block') return undefined
    const bytes = await this.#files.read(answer.held)
    if (bytes !== undefined) return bytes
    const [moved] = await this.#held([answer.want.cid])
    return moved && (await this.#files.read(moved))
  }

  #recheckLater(): void {
    if (this.#rechecking !== undefined || this.#closed) return
    if (this.#openWants().next().done === true) return
    this.#rechecking = setTimeout(() => void this.#recheck(), RECHECK_MS)
    this.#rechecking.unref()
  }

  *#openWants(): Generator<{ connection: Connection; entry: [string, PeerWant] }> {
    for (const connection of this.#connections.values()) {
      for (const entry of connection.peer.open()) yield { connection, entry }
    }
  }

  /** Looks for what was not held when it was asked for, a part of it each time. */
  async #recheck(): Promise<void> {
    const open = [...this.#openWants()]
    const from = this.#recheckFrom < open.length ? this.#recheckFrom : 0
    const part = open.slice(from, from + MAX_RECHECKS)
    this.#recheckFrom = from + part.length
    const byConnection = new Map<Connection, [string, PeerWant][]>()
    for (const { connection, entry } of part) {
      byConnection.set(connection, [...(byConnection.get(connection) ?? []), entry])
    }
    for (const [connection, wants] of byConnection) await this.#locate(connection, wants, false)
    this.#rechecking = undefined
    this.#recheckLater()
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#rechecking)
    for (const peerId of [...this.#connections.keys()]) this.disconnected(peerId)
    this.#turns.length = 0
    await this.#files.close()
  }
}

interface Message {
  presences: Presence[]
  blocks: OutgoingBlock[]
  pendingBytes: number
}

/** `blocks`: the bytes for each answer that is a block, undefined when they have gone. */
function messageFor(answers: Answer[], blocks: (Uint8Array | undefined)[], pendingBytes: number): Message {
  const message: Message = { presences: [], blocks: [], pendingBytes }
  answers.forEach(({ want, kind }, i) => {
    const bytes = blocks[i]
    if (bytes !== undefined) message.blocks.push({ prefix: prefixOf(want.cid), bytes })
    else if (kind !== 'block' || want.sendDontHave) {
      message.presences.push({ cid: want.cid.bytes, has: kind === 'has' })
    }
  })
  return message
}

/** In the manner of the version that was negotiated; nothing when it has no way to say it. */
function compose({ version }: PeerLink, message: Message): Uint8Array[] {
  if (version === '1.2.0') return encodeMessage(message)
  if (version === '1.1.0') return encodeMessage({ blocks: message.blocks })
  return encodeMessageV0(message.blocks.map(({ bytes }) => bytes))
}

function decodeCid(bytes: Uint8Array): CID | undefined {
  try {
    return CID.decode(bytes)
  } catch {
    return undefined
  }
}
