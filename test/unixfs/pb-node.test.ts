import * as dagPb from '@ipld/dag-pb'
import fc from 'fast-check'
import type { MultihashDigest } from 'multiformats'
import t from 'tap'
import { CID, CODEC_RAW, cidOf } from '../../src/core/cid.js'
import { CidfsError } from '../../src/core/errors.js'
import { decodePbNode, encodePbNode, linkLength } from '../../src/unixfs/pb-node.js'
import { codeThrown, link, utf8 } from './support.js'

const someCid = cidOf(CODEC_RAW, utf8('some'))
const sha256 = someCid.multihash as MultihashDigest<18>
const cids: CID[] = [
  someCid,
  CID.createV0(sha256),
  CID.createV1(0x71, sha256),
  CID.parse('bafkqaaa'),
  CID.parse('bafkqabtimvwgy3yk'),
]

const links = fc.array(
  fc.record({
    cid: fc.constantFrom(...cids),
    name: fc.string({ maxLength: 40 }),
    tsize: fc.oneof(fc.nat(), fc.maxSafeNat()),
  }),
  { maxLength: 20 },
)

t.test('what @ipld/dag-pb encodes decodes to the same links and data, in both field orders', async t => {
  fc.assert(
    fc.property(
      links,
      fc.uint8Array({ maxLength: 50 }),
      fc.constantFrom('data-first', 'links-first'),
      (wanted, data, fieldOrder) => {
        const node = dagPb.prepare({
          Data: data,
          Links: wanted.map(({ cid, name, tsize }) => ({ Hash: cid, Name: name, Tsize: tsize })),
        })
        const bytes = dagPb.encode(node, { fieldOrder: fieldOrder as 'data-first' | 'links-first' })
        const decoded = decodePbNode(bytes)
        t.equal(Buffer.compare(decoded.data!, data), 0)
        t.equal(decoded.linkCount, node.Links.length)
        decoded.links().forEach((link, i) => {
          const { Hash, Name, Tsize } = node.Links[i]!
          if (!link.cid.equals(Hash) || Buffer.from(link.name).toString() !== Name || link.tsize !== Tsize) {
            t.fail(`link ${i} differs`)
          }
        })
      },
    ),
    { numRuns: 300 },
  )
})

t.test('encodes as @ipld/dag-pb does, and says beforehand how long a link will be', async t => {
  fc.assert(
    fc.property(links, fc.uint8Array({ maxLength: 50 }), (wanted, data) => {
      const encodable = wanted.map(({ cid, name, tsize }) => link(cid, name, tsize))
      const bytes = encodePbNode(encodable, data)
      const oracle = dagPb.encode({
        Data: data,
        Links: [...wanted]
          .map(({ cid, name, tsize }) => ({ Hash: cid, Name: name, Tsize: tsize }))
          .sort((a, b) => Buffer.compare(utf8(a.Name), utf8(b.Name))),
      })
      const sorted = [...encodable].sort((a, b) => Buffer.compare(a.name, b.name))
      if (Buffer.compare(encodePbNode(sorted, data), oracle) !== 0) t.fail('encoding differs')
      const sum = encodable.reduce((n, l) => n + linkLength(l.cid.bytes.length, l.name.length, l.tsize), 0)
      if (sum !== bytes.length - data.length - 2) t.fail('length differs')
    }),
    { numRuns: 300 },
  )
  t.pass('all equal')
})

t.test('names that are not UTF-8 stay as they are', async t => {
  const name = Uint8Array.of(0xff, 0xfe, 0x41, 0x80)
  const bytes = encodePbNode([{ cid: someCid, name, tsize: 1 }], new Uint8Array(0))
  t.same(decodePbNode(bytes).name(0), name)
})

t.test('links without name and Tsize are read; those without a CID are not', async t => {
  const hash = [0x0a, someCid.bytes.length, ...someCid.bytes]
  const node = decodePbNode(Uint8Array.from([0x12, hash.length, ...hash]))
  t.same(node.link(0).name, new Uint8Array(0))
  t.equal(node.link(0).tsize, 0)
  t.equal(node.data, undefined)
  t.ok(node.link(0).cid.equals(someCid))
  t.equal(
    codeThrown(() => decodePbNode(Uint8Array.of(0x12, 2, 0x12, 0))),
    'MALFORMED_DAG',
  )
  t.equal(
    codeThrown(() => decodePbNode(Uint8Array.of(0x12, 2, 0x0a, 0))),
    'MALFORMED_DAG',
  )
})

t.test('a Tsize of 64 bits saturates', async t => {
  const hash = [0x0a, someCid.bytes.length, ...someCid.bytes]
  const body = [...hash, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]
  t.equal(decodePbNode(Uint8Array.from([0x12, body.length, ...body])).tsize(0), Number.MAX_SAFE_INTEGER)
})

t.test('refuses what is truncated, too long, repeated or out of order', async t => {
  const good = encodePbNode([link(someCid, 'a', 1), link(someCid, 'b', 2)], utf8('data'))
  for (let length = 1; length < good.length; length++) {
    const code = codeThrown(() => decodePbNode(good.subarray(0, length)))
    const oracle = oracleAccepts(good.subarray(0, length))
    if ((code === undefined) !== oracle) t.fail(`cut at ${length}: ${code}`)
  }
  const huge = [0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]
  const hostile: Record<string, number[]> = {
    'length of 2^64': huge,
    'varint without end': new Array(12).fill(0xff),
    'eleven bytes of varint': [0x0a, ...new Array(10).fill(0x80), 0],
    'unknown field': [0x1a, 0],
    'wrong wire type': [0x08, 1],
    'two data fields': [0x0a, 0, 0x0a, 0],
    'links around data': [...Array.from(encodePbNode([link(someCid)], new Uint8Array(0))), 0x12, 0],
    'link fields out of order': [0x12, 4, 0x18, 1, 0x12, 0],
  }
  for (const [what, bytes] of Object.entries(hostile)) {
    t.equal(
      codeThrown(() => decodePbNode(Uint8Array.from(bytes))),
      'MALFORMED_DAG',
      what,
    )
  }
})

t.test('on any bytes: a CidfsError, or what @ipld/dag-pb reads too', async t => {
  const good = encodePbNode(
    cids.map((cid, i) => link(cid, `name ${i}`, i * 1000)),
    utf8('data'),
  )
  const mutated = fc
    .array(fc.tuple(fc.nat({ max: good.length - 1 }), fc.nat({ max: 255 })), { maxLength: 4 })
    .map(changes => {
      const bytes = new Uint8Array(good)
      for (const [at, value] of changes) bytes[at] = value
      return bytes
    })
  let accepted = 0
  fc.assert(
    fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 60 })), bytes => {
      try {
        const node = decodePbNode(bytes)
        node.links()
        accepted++
        if (!oracleAccepts(bytes)) throw new Error('accepted what @ipld/dag-pb refuses')
      } catch (err) {
        if (!(err instanceof CidfsError)) throw err
      }
    }),
    { numRuns: 5000 },
  )
  t.ok(accepted > 50, 'some were accepted')
})

t.test('a link whose CID multiformats would not take is refused while decoding', async t => {
  const byte = fc.oneof(
    fc.constantFrom(0, 1, 2, 0x12, 0x20, 0x55, 0x70, 0x7f, 0x80, 0xff),
    fc.nat({ max: 255 }),
  )
  let accepted = 0
  fc.assert(
    fc.property(fc.array(byte, { minLength: 1, maxLength: 14 }), fc.boolean(), (head, whole) => {
      const bytes = Uint8Array.from(whole ? [1, 0x55, 0x00, head.length, ...head] : head)
      const block = [0x0a, bytes.length, ...bytes]
      try {
        const cid = decodePbNode(Uint8Array.from([0x12, block.length, ...block])).cid(0)
        if (Buffer.compare(cid.bytes, bytes) !== 0) throw new Error('another CID')
        accepted++
      } catch (err) {
        if (!(err instanceof CidfsError)) throw err
      }
    }),
    { numRuns: 20_000 },
  )
  t.ok(accepted > 100)
})

t.test('a compact node is equal and does not keep the buffer it was cut from', async t => {
  const bytes = encodePbNode([link(someCid, 'a', 7)], utf8('data'))
  const slab = new Uint8Array(100_000)
  slab.set(bytes, 500)
  const node = decodePbNode(slab.subarray(500, 500 + bytes.length)).compact()
  slab.fill(0)
  t.equal(node.bytes.buffer.byteLength, bytes.length)
  t.same(node.data, new Uint8Array(utf8('data')))
  t.same(node.link(0).name, new Uint8Array(utf8('a')))
  t.ok(node.cid(0).equals(someCid))
})

function oracleAccepts(bytes: Uint8Array): boolean {
  try {
    dagPb.decode(bytes)
    return true
  } catch {
    return false
  }
}
