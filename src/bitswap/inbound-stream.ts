/**
 * One stream that a peer opened: its bytes become blocks and answers for the client, and wants for the server.
 *
 * Invariant: the stream is held back while the store looks for what was asked, so that nothing piles up. Only the
 * wants of one message are kept, and no more of them than a peer may have.
 */
import type { BitswapClient } from './client.js'
import { MESSAGE_TIMEOUT_MS } from './limits.js'
import type { InboundStream } from './link.js'
import { MessageParser, type MessageSink, ProtocolError, type WantEntry } from './message-parser.js'
import type { BitswapServer } from './server.js'

/** Nothing in the middle of a message for so long: the peer has stopped. */
const STALL_MS = 15_000
/** Entries of one message that are looked at. */
const MAX_ENTRIES = 8_192

export interface StreamContext {
  client: Pick<BitswapClient, 'heard' | 'offended' | 'expects' | 'block' | 'presence'>
  server: Pick<BitswapServer, 'wants'>
  /** Until the peer can be answered, if it cannot yet. */
  connection: Promise<void> | undefined
  /** Whether there is room for a block of this length. */
  mayKeep(lengthBytes: number): boolean
  ended(): void
}

export class PeerStream implements InboundStream, MessageSink {
  readonly #peerId: string
  readonly #context: StreamContext
  readonly #parser = new MessageParser(this)
  #wants: WantEntry[] = []
  /** What the stream is held back for. */
  #answering: Promise<void> | undefined
  /** When the block or message that is under way began, and when bytes last came. */
  #beganAt = 0
  #heardAt = 0

  constructor(peerId: string, context: StreamContext) {
    this.#peerId = peerId
    this.#context = context
  }

  get partialBytes(): number {
    return this.#parser.partialBytes
  }

  isStuck(now: number): boolean {
    if (!this.#parser.midMessage || this.#answering !== undefined) return false
    return now - this.#heardAt > STALL_MS || now - this.#beganAt > MESSAGE_TIMEOUT_MS
  }

  data(chunk: Uint8Array): undefined | Promise<void> {
    this.#heardAt = performance.now()
    if (!this.#parser.midMessage) this.#beganAt = this.#heardAt
    try {
      const before = this.#parser.partialBytes
      this.#parser.push(chunk)
      this.#context.client.heard(this.#peerId, before + this.#parser.partialBytes > 0)
    } catch (err) {
      if (err instanceof ProtocolError) {
        this.#context.client.offended(this.#peerId, `it broke the protocol: ${err.message}`)
      }
      throw err
    }
    return this.#answering
  }

  end(): void {
    this.#context.ended()
  }

  acceptBlock(lengthBytes: number): boolean {
    return this.#context.client.expects(this.#peerId) && this.#context.mayKeep(lengthBytes)
  }

  block(prefix: Uint8Array | undefined, bytes: Uint8Array): void {
    this.#beganAt = this.#heardAt
    this.#context.client.block(this.#peerId, prefix, bytes)
  }

  want(entry: WantEntry): void {
    if (this.#wants.length < MAX_ENTRIES) this.#wants.push(entry)
  }

  presence(cid: Uint8Array, has: boolean): void {
    this.#context.client.presence(this.#peerId, cid, has)
  }

  messageEnd(full: boolean): void {
    const wants = this.#wants
    this.#wants = []
    if (wants.length === 0 && !full) return
    const { server, connection } = this.#context
    const answer = (): Promise<void> => server.wants(this.#peerId, wants, full)
    // Wants are noted at once, in order; only looking for the blocks takes time.
    const answered = connection === undefined ? answer() : connection.then(answer)
    const all: Promise<void> = Promise.all([this.#answering, answered]).then(() => {
      if (this.#answering === all) this.#answering = undefined
    })
    this.#answering = all
  }
}
