/**
 * A million frames that nobody should send: random bytes, and messages with something wrong in them.
 *
 * What breaks the format is refused with the protocol's own error, everything else is read; neither takes memory.
 */
import { isDeepStrictEqual } from 'node:util'
import t from 'tap'
import { Bitswap } from '../../src/bitswap/bitswap.js'
import { keyOfBlock, keyOfCidBytes, prefixOf } from '../../src/bitswap/block-key.js'
import { linksOf } from '../../src/bitswap/dag-links.js'
import { MessageParser, type MessageSink, ProtocolError } from '../../src/bitswap/message-parser.js'
import { encodeMessage, encodeMessageV0, encodeVarint } from '../../src/bitswap/message-writer.js'
import { encodePbNode } from '../../src/unixfs/pb-node.js'
import { link } from '../support/dag.js'
import { FakePeer, frame, Recorder, random, rawBlock, rawBlocks } from './support.js'

t.setTimeout(110_000)
const MIB = 1024 * 1024
const [SMALL, LARGE] = [rawBlock(20, 1), rawBlock(900, 2)]
const want = { cid: SMALL.cid.bytes, priority: 5, cancel: false, have: true, sendDontHave: true }
const SEEDS = [
  { wants: [want, { ...want, have: false }, { ...want, cancel: true }] },
  { blocks: [SMALL, LARGE].map(({ cid, bytes }) => ({ prefix: prefixOf(cid), bytes })) },
  { presences: [true, false].map(has => ({ cid: LARGE.cid.bytes, has })), pendingBytes: 70_000 },
  { wants: [want], blocks: [{ prefix: prefixOf(SMALL.cid), bytes: SMALL.bytes }] },
].map(message => Buffer.concat(encodeMessage(message)))
SEEDS.push(Buffer.concat(encodeMessageV0([SMALL.bytes, LARGE.bytes])))

/** Uses what it is given as the client and the server do. */
class Counter implements MessageSink {
  things = 0
  acceptBlock(): boolean {
    return this.things % 3 !== 0
  }
  block(prefix: Uint8Array | undefined, bytes: Uint8Array): void {
    this.things++
    if (prefix === undefined || prefix.length < 6) keyOfBlock(prefix, bytes)
  }
  want({ cid }: { cid: Uint8Array }): void {
    this.things++
    keyOfCidBytes(cid)
  }
  presence(cid: Uint8Array): void {
    this.things++
    keyOfCidBytes(cid)
  }
  messageEnd(): void {
    this.things++
  }
}

/** A few bytes changed, inserted, removed, repeated, or the end cut off. */
function mutate(seed: Buffer, next: (limit: number) => number): Buffer {
  const bytes = Buffer.from(seed)
  for (let i = next(4); i >= 0; i--) bytes[next(Math.min(bytes.length, 80))] = next(256)
  const at = next(bytes.length)
  switch (next(8)) {
    case 0:
      return bytes.subarray(0, at)
    case 1:
      return Buffer.concat([bytes.subarray(0, at), Buffer.alloc(next(12), next(256)), bytes.subarray(at)])
    case 2:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(Math.min(bytes.length, at + next(20)))])
    case 3:
      return Buffer.concat([bytes, bytes.subarray(0, at)])
    default:
      return bytes
  }
}

function randomBytes(next: (limit: number) => number): Buffer {
  const bytes = Buffer.allocUnsafe(next(64))
  for (let i = 0; i < bytes.length; i++) bytes[i] = next(256)
  return bytes
}

/** Whether it was refused. @throws what is not the protocol's error. */
function feed(parser: MessageParser, bytes: Uint8Array, next: (limit: number) => number): boolean {
  try {
    for (let at = 0; at < bytes.length; ) {
      const size = next(3) === 0 ? 1 + next(9) : bytes.length
      parser.push(bytes.subarray(at, at + size))
      at += size
    }
    return false
  } catch (err) {
    if (!(err instanceof ProtocolError)) throw err
    return true
  }
}

t.test('a million frames: none does more than be refused', async t => {
  const next = random(20)
  const sink = new Counter()
  let parser = new MessageParser(sink)
  let refused = 0
  const before = process.memoryUsage()
  for (let i = 0; i < 1_000_000; i++) {
    const body = i % 4 === 0 ? randomBytes(next) : mutate(SEEDS[i % SEEDS.length]!, next)
    const framed = next(10) === 0 ? body : Buffer.concat([encodeVarint(body.length), body])
    if (!feed(parser, framed, next)) continue
    refused++
    parser = new MessageParser(sink)
  }
  const after = process.memoryUsage()
  t.ok(refused > 100_000, `${refused} were refused`)
  t.ok(sink.things > 100_000, `${sink.things} things were understood`)
  t.ok(after.rss - before.rss < 200 * MIB, `${Math.round((after.rss - before.rss) / MIB)} MiB more`)
})

/** Everything a frame makes a parser say, and how it ends. */
function outcome(bytes: Uint8Array, sizes: () => number): unknown[] {
  const recorder = new Recorder()
  const parser = new MessageParser(recorder)
  let end = 'read'
  try {
    for (let at = 0; at < bytes.length; ) {
      const size = sizes()
      parser.push(bytes.subarray(at, at + size))
      at += size
    }
  } catch (err) {
    end = `${err}`
  }
  const { wants, blocks, presences, ends } = recorder
  return [end, wants, blocks, presences, ends, parser.midMessage]
}

t.test('how a frame is cut changes nothing, whatever is in it', async t => {
  const next = random(23)
  let different = 0
  for (let i = 0; i < 20_000; i++) {
    const body = mutate(SEEDS[i % SEEDS.length]!, next)
    const framed = Buffer.concat([encodeVarint(body.length), body])
    const whole = outcome(framed, () => framed.length)
    const pieces = outcome(framed, () => 1 + next(next(2) === 0 ? 3 : 300))
    if (!isDeepStrictEqual(whole, pieces)) different++
  }
  t.equal(different, 0)
})

t.test('a peer that sends rubbish is dropped, and takes no memory, as often as it comes back', async t => {
  const next = random(21)
  const bitswap = new Bitswap()
  t.teardown(() => bitswap.close())
  const before = process.memoryUsage()
  let dropped = 0
  for (let i = 0; i < 20_000; i++) {
    const peer = new FakePeer(`peer${i % 3000}`).connect(bitswap)
    const stream = bitswap.inbound(peer.peerId, '1.2.0')
    try {
      for (let j = 0; j < 5; j++) await stream.data(frame([mutate(SEEDS[j % SEEDS.length]!, next)]))
    } catch (err) {
      if (!(err instanceof ProtocolError)) throw err
    }
    stream.end()
    dropped += peer.dropped.length
    peer.disconnect()
  }
  const after = process.memoryUsage()
  t.ok(dropped > 1000, `${dropped} times`)
  t.ok(bitswap.client.banned.length <= 1024, 'not all of them are remembered')
  t.equal(bitswap.client.peers.length, 0)
  t.equal(bitswap.report.served.wants, 0)
  t.ok(after.rss - before.rss < 200 * MIB, `${Math.round((after.rss - before.rss) / MIB)} MiB more`)
})

t.test('links are read from anything without an error', async t => {
  const next = random(22)
  const node = Buffer.from(
    encodePbNode(
      rawBlocks(20, 10).map(({ cid }) => link(cid, 'name', 10)),
      Buffer.from('data'),
    ),
  )
  t.equal(linksOf(node).length, 20)
  let links = 0
  for (let i = 0; i < 50_000; i++) links += linksOf(mutate(node, next)).length
  t.ok(links > 50_000)
})
