/**
 * Peers without a network: frames handed over in memory, cut as a test likes.
 */
import { createHash } from 'node:crypto'
import { appendFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Bitswap } from '../../src/bitswap/bitswap.js'
import { keyOfBlock, keyOfCidBytes, prefixOf } from '../../src/bitswap/block-key.js'
import type { BitswapVersion, InboundStream, PeerLink } from '../../src/bitswap/link.js'
import { MessageParser, type MessageSink, type WantEntry } from '../../src/bitswap/message-parser.js'
import {
  encodeMessage,
  encodeMessageV0,
  encodeVarint,
  type OutgoingMessage,
} from '../../src/bitswap/message-writer.js'
import type { BlockSupply, HeldBlock } from '../../src/bitswap/supply.js'
import { type CID, CODEC_RAW, cidFromSha256, keyOf } from '../../src/core/cid.js'
import { pattern } from '../support/dag.js'

export interface TestBlock {
  cid: CID
  bytes: Uint8Array
}

/** A raw block that is like no other. */
export function rawBlock(sizeBytes: number, seed: number): TestBlock {
  const bytes = pattern(sizeBytes, seed)
  return { bytes, cid: cidFromSha256(CODEC_RAW, createHash('sha256').update(bytes).digest()) }
}

export function rawBlocks(count: number, sizeBytes: number, seed = 1): TestBlock[] {
  return Array.from({ length: count }, (_, i) => rawBlock(sizeBytes, seed * 100_003 + i))
}

/** A message as it goes over a stream. */
export function frame(pieces: readonly Uint8Array[]): Uint8Array {
  const body = Buffer.concat(pieces)
  return Buffer.concat([encodeVarint(body.length), body])
}

/** Everything a parser said, in order. */
export class Recorder implements MessageSink {
  readonly wants: WantEntry[] = []
  readonly blocks: { prefix: Uint8Array | undefined; bytes: Uint8Array }[] = []
  readonly presences: { cid: Uint8Array; has: boolean }[] = []
  readonly ends: boolean[] = []
  accepts = true

  acceptBlock(): boolean {
    return this.accepts
  }
  block(prefix: Uint8Array | undefined, bytes: Uint8Array): void {
    this.blocks.push({ prefix, bytes })
  }
  want(entry: WantEntry): void {
    this.wants.push(entry)
  }
  presence(cid: Uint8Array, has: boolean): void {
    this.presences.push({ cid, has })
  }
  messageEnd(full: boolean): void {
    this.ends.push(full)
  }
}

export interface FakePeerOptions {
  version?: BitswapVersion
  /** Milliseconds before an answer. */
  delayMs?: number
  /** As fast as it can when absent. */
  bytesPerMs?: number
  /** Answers nothing. */
  silent?: boolean
  /** Sends these instead of blocks that were asked for. */
  wrong?: (bytes: Uint8Array) => Uint8Array
  /** Sends this instead of any message. */
  garbage?: Uint8Array
  /** Ends what it sends after so many bytes, in the middle of a message. */
  stopsAfter?: number
}

/** A peer that serves what it was given, and records what it was asked. */
export class FakePeer implements PeerLink {
  readonly version: BitswapVersion
  readonly blocks = new Map<string, TestBlock>()
  /** Want-blocks, want-haves and cancels by the key of the block, in order. */
  readonly asked: string[] = []
  readonly probed: string[] = []
  readonly cancelled: string[] = []
  readonly dropped: string[] = []
  /** Bytes sent. */
  sent = 0
  messages = 0
  options: FakePeerOptions
  #bitswap: Bitswap | undefined
  #stream: InboundStream | undefined
  #writing: Promise<void> = Promise.resolve()
  readonly #timers = new Set<NodeJS.Timeout>()

  constructor(
    readonly peerId: string,
    blocks: Iterable<TestBlock> = [],
    options: FakePeerOptions = {},
  ) {
    this.version = options.version ?? '1.2.0'
    this.options = options
    for (const block of blocks) this.add(block)
  }

  add(block: TestBlock): void {
    this.blocks.set(keyOf(block.cid), block)
  }

  connect(bitswap: Bitswap): this {
    this.#bitswap = bitswap
    bitswap.connected(this)
    this.#stream = bitswap.inbound(this.peerId, this.version)
    return this
  }

  disconnect(): void {
    const stream = this.#stream
    this.#stream = undefined
    for (const timer of this.#timers) clearTimeout(timer)
    stream?.end()
    this.#bitswap?.disconnected(this.peerId)
  }

  async send(pieces: readonly Uint8Array[]): Promise<void> {
    if (this.#stream === undefined) throw new Error('gone')
    const wants: WantEntry[] = []
    const recorder = Object.assign(new Recorder(), { want: (entry: WantEntry) => wants.push(entry) })
    this.messages++
    new MessageParser(recorder).push(frame(pieces))
    this.#after(this.options.delayMs ?? 0, () => this.#answer(wants))
  }

  drop(reason: string): void {
    this.dropped.push(reason)
    this.disconnect()
  }

  #after(delayMs: number, fn: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      fn()
    }, delayMs)
    this.#timers.add(timer)
  }

  #answer(wants: WantEntry[]): void {
    for (const want of wants) {
      const key = keyOfCidBytes(want.cid) ?? ''
      const list = want.cancel ? this.cancelled : want.have ? this.probed : this.asked
      list.push(key)
      if (want.cancel || this.options.silent) continue
      if (this.options.garbage !== undefined) this.write(this.options.garbage)
      else this.#answerOne(want, this.blocks.get(key))
    }
  }

  #answerOne(want: WantEntry, block: TestBlock | undefined): void {
    if (block === undefined) {
      if (want.sendDontHave) this.say({ presences: [{ cid: want.cid, has: false }] })
    } else if (want.have) this.say({ presences: [{ cid: want.cid, has: true }] })
    else this.sendBlock(block)
  }

  sendBlock({ cid, bytes }: TestBlock): void {
    const sent = this.options.wrong?.(bytes) ?? bytes
    if (this.version === '1.0.0') this.write(frame(encodeMessageV0([sent])))
    else this.say({ blocks: [{ prefix: prefixOf(cid), bytes: sent }] })
  }

  say(message: OutgoingMessage): void {
    this.write(frame(encodeMessage(message)))
  }

  /** Bytes of its stream, in order, however long the other side takes them. */
  write(bytes: Uint8Array): void {
    const rest = (this.options.stopsAfter ?? Number.POSITIVE_INFINITY) - this.sent
    const part = rest < bytes.length ? bytes.subarray(0, Math.max(0, rest)) : bytes
    this.sent += part.length
    this.#writing = this.#writing.then(() => this.#push(part)).catch(() => this.disconnect())
  }

  async #push(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length && this.#stream !== undefined; at += 65_536) {
      const chunk = bytes.subarray(at, at + 65_536)
      const { bytesPerMs } = this.options
      if (bytesPerMs !== undefined) await sleep(chunk.length / bytesPerMs)
      await this.#stream?.data(chunk)
    }
  }
}

/** Joins two nodes; returns what takes them apart. */
export function neighbours(a: Bitswap, b: Bitswap, version: BitswapVersion = '1.2.0'): () => void {
  const ends = [pipe(a, 'b', b, 'a', version), pipe(b, 'a', a, 'b', version)] as const
  a.connected(ends[0])
  b.connected(ends[1])
  return () => {
    a.disconnected('b')
    b.disconnected('a')
  }
}

/** What `from` sends on, and `to` reads. */
function pipe(from: Bitswap, toId: string, to: Bitswap, fromId: string, version: BitswapVersion): PeerLink {
  let stream: InboundStream | undefined
  return {
    peerId: toId,
    version,
    async send(pieces) {
      stream ??= to.inbound(fromId, version)
      await stream.data(frame(pieces))
    },
    drop: () => from.disconnected(toId),
  }
}

/** A deterministic source of numbers below `limit`. */
export function random(seed: number): (limit: number) => number {
  let state = seed >>> 0
  return limit => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * limit)
  }
}

/** A peer that only asks, and records what it is given. */
export class Asker implements PeerLink {
  readonly got = new Recorder()
  /** Sizes of the messages it was sent. */
  readonly messages: number[] = []
  dropped: string | undefined
  /** Holds what is sent to it back until it resolves. */
  gate: Promise<void> = Promise.resolve()
  readonly #stream: InboundStream

  constructor(
    bitswap: Bitswap,
    readonly peerId: string,
    readonly version: BitswapVersion = '1.2.0',
  ) {
    bitswap.connected(this)
    this.#stream = bitswap.inbound(peerId, version)
  }

  async send(pieces: readonly Uint8Array[]): Promise<void> {
    const bytes = frame(pieces)
    await this.gate
    this.messages.push(bytes.length)
    new MessageParser(this.got).push(bytes)
  }

  drop(reason: string): void {
    this.dropped = reason
  }

  /** Resolves when the next message may be sent. */
  async want(...entries: ({ cid: CID } & Partial<Omit<WantEntry, 'cid'>>)[]): Promise<void> {
    const wants = entries.map(({ cid, ...more }) => {
      const entry = { priority: 1, cancel: false, have: false, sendDontHave: true, ...more }
      return { ...entry, cid: this.version === '1.0.0' ? cid.multihash.bytes : cid.bytes }
    })
    await this.write(frame(encodeMessage({ wants })))
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#stream.data(bytes)
  }

  /** Keys of the blocks it was sent, in order. */
  get keys(): (string | undefined)[] {
    return this.got.blocks.map(({ prefix, bytes }) => keyOfBlock(prefix, bytes))
  }
}

/** Blocks in a file, as a store has them. */
export class FileSupply implements BlockSupply {
  readonly #held = new Map<string, HeldBlock>()
  /** CIDs in each question. */
  readonly asked: number[] = []
  readonly path: string
  #end = 0

  private constructor(dir: string) {
    this.path = join(dir, 'container')
  }

  static async create(dir: string, blocks: readonly TestBlock[] = []): Promise<FileSupply> {
    const supply = new FileSupply(dir)
    await writeFile(supply.path, '')
    for (const block of blocks) await supply.add(block)
    return supply
  }

  async add({ cid, bytes }: TestBlock): Promise<void> {
    await appendFile(this.path, bytes)
    this.#held.set(keyOf(cid), { path: this.path, offset: this.#end, length: bytes.length })
    this.#end += bytes.length
  }

  async locate(cids: readonly CID[]): Promise<(HeldBlock | undefined)[]> {
    this.asked.push(cids.length)
    return cids.map(cid => this.#held.get(keyOf(cid)))
  }
}
