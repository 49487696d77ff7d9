import { bytesReader, readBlockHead } from '@ipld/car/decoder'
import fc from 'fast-check'
import t from 'tap'
import { CID, CODEC_DAG_PB, CODEC_RAW, Digest } from '../../src/core/cid.js'
import { codeOf } from '../../src/core/errors.js'
import {
  decodeHeader,
  decodeSectionHead,
  decodeVarint,
  encodeHeader,
  encodeSectionHead,
} from '../../src/store/car-format.js'

const cids = fc
  .record({
    codec: fc.constantFrom(CODEC_RAW, CODEC_DAG_PB, 0x0129, 0x300000),
    hash: fc.constantFrom(0x12, 0x13, 0xb220),
    digest: fc.uint8Array({ minLength: 20, maxLength: 128 }),
  })
  .map(({ codec, hash, digest }) => CID.createV1(codec, Digest.create(hash, digest)))

t.test('section heads are read back, and @ipld/car reads the same', async t => {
  await fc.assert(
    fc.asyncProperty(cids, fc.nat(2 * 1024 * 1024), fc.nat(20), async (cid, blockLength, lead) => {
      const bytes = Buffer.concat([
        Buffer.alloc(lead),
        encodeSectionHead(cid, blockLength),
        Buffer.alloc(200),
      ])
      const head = decodeSectionHead(bytes, lead)
      const oracle = await readBlockHead(bytesReader(bytes.subarray(lead)))
      return (
        head?.cid.equals(cid) === true &&
        head.blockLength === blockLength &&
        head.headLength + blockLength === oracle.length &&
        oracle.blockLength === blockLength
      )
    }),
    { numRuns: 300 },
  )
  t.pass()
})

t.test('a head that is cut is asked for again, garbage is BAD_CAR, nothing else happens', async t => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), bytes => {
      try {
        const head = decodeSectionHead(bytes, 0)
        return head === undefined || head.blockLength >= 0
      } catch (err) {
        return codeOf(err) === 'BAD_CAR'
      }
    }),
    { numRuns: 2000 },
  )
  t.pass()
})

t.test('a number of more than 53 bits is refused', async t => {
  t.same(decodeVarint(Uint8Array.of(0x80, 0x01), 0), { value: 128, length: 2 })
  t.equal(decodeVarint(Uint8Array.of(0x80, 0x80), 0), undefined)
  t.throws(() => decodeVarint(new Uint8Array(10).fill(0xff), 0), { code: 'BAD_CAR' })
})

t.test('headers are read back', async t => {
  const [root] = fc.sample(cids, { numRuns: 1, seed: 1 })
  for (const roots of [[], [root as CID], [root as CID, root as CID]]) {
    t.same((await decodeHeader(encodeHeader(roots))).map(String), roots.map(String))
  }
  await t.rejects(decodeHeader(Uint8Array.of(1, 0)), { code: 'BAD_CAR' })
})
