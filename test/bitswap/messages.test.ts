/** The bitswap messages: written and read again, cut anywhere, and in the forms that others write. */
import type { MultihashDigest } from 'multiformats/hashes/interface'
import t, { type Test } from 'tap'
import { keyOfBlock, keyOfCidBytes, prefixOf } from '../../src/bitswap/block-key.js'
import { MAX_ITEMS_PER_MESSAGE } from '../../src/bitswap/limits.js'
import { MessageParser, ProtocolError, type WantEntry } from '../../src/bitswap/message-parser.js'
import { encodeMessage, encodeMessageV0, encodeVarint } from '../../src/bitswap/message-writer.js'
import { CID, CODEC_DAG_PB, cidOf, keyOf } from '../../src/core/cid.js'
import { Dag } from '../support/dag.js'
import { frame, Recorder, rawBlock } from './support.js'

const BLOCK = rawBlock(3000, 1)
const SMALL = rawBlock(5, 2)
const V0 = CID.createV0(cidOf(CODEC_DAG_PB, SMALL.bytes).multihash as MultihashDigest<18>)
const want = (cid: CID, more: Partial<WantEntry> = {}): WantEntry => {
  return { cid: cid.bytes, priority: 1, cancel: false, have: false, sendDontHave: false, ...more }
}
const MESSAGE = {
  wants: [
    want(BLOCK.cid, { priority: 2 ** 31 - 1, have: true, sendDontHave: true }),
    want(V0, { priority: 300 }),
    want(SMALL.cid, { cancel: true }),
  ],
  blocks: [
    { prefix: prefixOf(BLOCK.cid), bytes: BLOCK.bytes },
    { prefix: prefixOf(V0), bytes: SMALL.bytes },
    { prefix: prefixOf(SMALL.cid), bytes: new Uint8Array(0) },
  ],
  presences: [
    { cid: BLOCK.cid.bytes, has: true },
    { cid: V0.bytes, has: false },
  ],
  pendingBytes: 1_000_000,
}

function parse(input: Uint8Array | Uint8Array[]): Recorder {
  const chunks = Array.isArray(input) ? input : [input]
  const recorder = new Recorder()
  const parser = new MessageParser(recorder)
  for (const chunk of chunks) parser.push(chunk)
  return recorder
}

function cut(bytes: Uint8Array, size: number): Uint8Array[] {
  const chunks = []
  for (let at = 0; at < bytes.length; at += size) chunks.push(Uint8Array.from(bytes.subarray(at, at + size)))
  return chunks
}

function check(t: Test, found: Recorder, times = 1): void {
  const repeated = <T>(list: T[]): T[] => Array.from({ length: times }, () => list).flat()
  const plain = (list: object[]) => JSON.parse(JSON.stringify(list)) as object[]
  t.same(plain(found.wants), plain(repeated(MESSAGE.wants)))
  t.same(plain(found.blocks), plain(repeated(MESSAGE.blocks)))
  t.same(plain(found.presences), plain(repeated(MESSAGE.presences)))
  t.same(found.ends, repeated([false]))
}

t.test('what is written is read, however it is cut', async t => {
  const bytes = frame(encodeMessage(MESSAGE))
  for (const size of [1, 2, 3, 7, 64, 1000, bytes.length]) check(t, parse(cut(bytes, size)))
  check(t, parse(cut(Buffer.concat([bytes, bytes, bytes]), 1001)), 3)
})

t.test('a block fills an ArrayBuffer of its own', async t => {
  const chunk = frame(encodeMessage(MESSAGE))
  const { blocks } = parse(chunk)
  chunk.fill(0)
  t.same(Buffer.from(blocks[0]!.bytes), Buffer.from(BLOCK.bytes), 'nothing of the chunk is kept')
  t.equal(blocks[0]!.bytes.buffer.byteLength, BLOCK.bytes.length)
})

t.test('blocks in the manner of 1.0.0 come without a prefix', async t => {
  const { blocks } = parse(frame(encodeMessageV0([BLOCK.bytes, SMALL.bytes])))
  t.same(
    blocks.map(block => [block.prefix, block.bytes.length]),
    [
      [undefined, 3000],
      [undefined, 5],
    ],
  )
  t.equal(keyOfBlock(undefined, blocks[1]!.bytes), keyOf(V0))
})

t.test('blocks that are not wanted are passed over, the rest of the message is not', async t => {
  const recorder = new Recorder()
  recorder.accepts = false
  new MessageParser(recorder).push(frame(encodeMessage(MESSAGE)))
  t.same(recorder.blocks, [])
  t.equal(recorder.presences.length, 2)
})

t.test('the data of a block may come before its prefix', async t => {
  const prefix = prefixOf(SMALL.cid)
  const body = Buffer.concat(
    [[0x12, SMALL.bytes.length], SMALL.bytes, [0x0a, prefix.length], prefix].map(part => Buffer.from(part)),
  )
  const { blocks } = parse(frame([Buffer.concat([Buffer.from([0x1a, body.length]), body])]))
  t.equal(keyOfBlock(blocks[0]!.prefix, blocks[0]!.bytes), keyOf(SMALL.cid))
})

t.test('fields that are not known are passed over', async t => {
  const unknown = [
    0xa8, 0x06, 0x05, 0xb2, 0x06, 0x02, 1, 2, 0xb9, 0x06, 1, 2, 3, 4, 5, 6, 7, 8, 0xbd, 0x06, 1, 2, 3, 4,
  ]
  check(t, parse(frame([Uint8Array.from(unknown), ...encodeMessage(MESSAGE), Uint8Array.from(unknown)])))
})

t.test('a want list that replaces earlier ones is told from others', async t => {
  t.same(parse(frame([Uint8Array.of(0x0a, 2, 0x10, 1)])).ends, [true])
  t.same(parse(Uint8Array.of(0)).ends, [false], 'an empty message is one')
})

const REFUSED: Record<string, Uint8Array> = {
  'a message beyond the limit': encodeVarint(4 * 1024 * 1024 + 1),
  'a length of more than ten bytes': Buffer.alloc(11, 0xff),
  'a block beyond the limit': Buffer.concat(
    [encodeVarint(3_000_000), [0x12], encodeVarint(2_097_153)].map(part => Buffer.from(part)),
  ),
  'a field beyond its message': frame([Uint8Array.of(0x12, 5, 1)]),
  'a message in a message that is longer': frame([
    Uint8Array.of(0x0a, 4, 0x0a, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1),
  ]),
  'a tag cut off by the end': frame([Uint8Array.of(0x80)]),
  'field number 0': frame([Uint8Array.of(0x02, 0)]),
  'a group': frame([Uint8Array.of(0x33)]),
  'a number where a block belongs': frame([Uint8Array.of(0x10, 1)]),
  'a string where a number belongs': frame([Uint8Array.of(0x2a, 0)]),
  'more entries than anybody has': frame([
    Buffer.alloc(2 * MAX_ITEMS_PER_MESSAGE + 2, Buffer.from([0x22, 0])),
  ]),
}

for (const [what, bytes] of Object.entries(REFUSED)) {
  t.test(`${what} is refused`, async t => {
    t.throws(() => parse(bytes), ProtocolError)
    t.throws(() => parse(cut(bytes, 1)), ProtocolError, 'byte by byte as well')
  })
}

t.test('a CID longer than any is passed over', async t => {
  const wants = [want(BLOCK.cid), { ...want(BLOCK.cid), cid: new Uint8Array(200) }, want(SMALL.cid)]
  t.equal(parse(frame(encodeMessage({ wants }))).wants.length, 2)
})

t.test('a priority below 0 is none', async t => {
  const entry = Buffer.concat([
    Buffer.from([0x0a, 36]),
    BLOCK.cid.bytes,
    Buffer.from([0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
  ])
  const list = Buffer.concat([Buffer.from([0x0a, entry.length]), entry])
  const { wants } = parse(frame([Buffer.from([0x0a, list.length]), list]))
  t.equal(wants[0]?.priority, 0)
})

t.test('nothing is kept for a length that was only declared', async t => {
  const parsers = Array.from({ length: 500 }, () => {
    const parser = new MessageParser(new Recorder())
    parser.push(
      Buffer.concat([
        encodeVarint(2_097_200),
        Buffer.from([0x12]),
        encodeVarint(2_097_152),
        Buffer.from([1]),
      ]),
    )
    return parser
  })
  t.ok(process.memoryUsage.rss() < 500 * 1024 * 1024, 'a gigabyte of blocks was announced')
  t.equal(
    parsers.reduce((sum, parser) => sum + parser.partialBytes, 0),
    500 * 2_097_152,
    'and is accounted for',
  )
})

t.test('keys of CIDs and of blocks agree, for every hash', async t => {
  const dag = new Dag({
    add: (cid, bytes) => {
      t.equal(keyOfCidBytes(cid.bytes), keyOf(cid))
      t.equal(keyOfBlock(prefixOf(cid), bytes), keyOf(cid))
    },
  })
  for (const hash of ['sha2-256', 'sha2-512', 'blake2b-256'] as const) dag.raw(BLOCK.bytes, hash)
  t.equal(keyOfCidBytes(V0.bytes), keyOf(V0))
  t.equal(keyOfBlock(prefixOf(V0), SMALL.bytes), keyOf(V0))
  t.equal(dag.cids.length, 3)
})

t.test('what is no CID and no prefix has no key', async t => {
  for (const bytes of [
    [],
    [1],
    [1, 0x55, 0x12, 32, 1],
    [2, 0x55, 0x12, 1, 1],
    [1, 0x55, 0x12, 0x80],
    [0x81, 0x00, 0x55, 0x12, 0],
  ]) {
    t.equal(keyOfCidBytes(Uint8Array.from(bytes)), undefined)
  }
  for (const prefix of [
    [],
    [1, 0x55, 0x12],
    [1, 0x55, 0x12, 20],
    [1, 0x55, 0x99, 0x01, 32],
    [1, 0x55, 0, 5],
    [1, 0x55, 0x12, 32, 0],
  ]) {
    t.equal(keyOfBlock(Uint8Array.from(prefix), SMALL.bytes), undefined)
  }
})
