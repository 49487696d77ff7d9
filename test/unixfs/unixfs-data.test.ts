import fc from 'fast-check'
import { UnixFS } from 'ipfs-unixfs'
import t from 'tap'
import { CidfsError } from '../../src/core/errors.js'
import { decodeUnixfsData, encodeUnixfsData, type UnixfsData } from '../../src/unixfs/unixfs-data.js'
import { codeThrown } from './support.js'

const mtime = fc.record({
  seconds: fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
  nanoseconds: fc.nat({ max: 999_999_999 }),
})
const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined })

t.test('a file encodes to the bytes of ipfs-unixfs, and decodes to what was encoded', async t => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 50 }),
      fc.array(fc.maxSafeNat(), { maxLength: 10 }),
      optional(mtime),
      optional(fc.nat({ max: 0o7777 }).filter(mode => mode !== 0o644)),
      (data, blocksizes, time, mode) => {
        const oracle = new UnixFS({
          type: 'file',
          data: new Uint8Array(data),
          blockSizes: blocksizes.map(BigInt),
          ...(time && { mtime: { secs: BigInt(time.seconds), nsecs: time.nanoseconds || undefined } }),
          ...(mode !== undefined && { mode }),
        })
        const message: UnixfsData = {
          type: 'file',
          data,
          filesize: Number(oracle.fileSize()),
          blocksizes,
          mode,
          mtime: time,
        }
        if (!Number.isSafeInteger(message.filesize)) return
        const bytes = encodeUnixfsData(message)
        if (Buffer.compare(bytes, oracle.marshal()) !== 0) t.fail('encoding differs')
        t.match(decodeUnixfsData(bytes), { ...message, data: new Uint8Array(data) })
      },
    ),
    { numRuns: 300 },
  )
})

t.test('a HAMT shard encodes to the bytes of ipfs-unixfs', async t => {
  const data = Uint8Array.of(1, 2, 3)
  const oracle = new UnixFS({ type: 'hamt-sharded-directory', data, fanout: 256n, hashType: 0x22n })
  const bytes = encodeUnixfsData({ type: 'hamt-shard', data, blocksizes: [], hashType: 0x22, fanout: 256 })
  t.equal(Buffer.compare(bytes, oracle.marshal()), 0)
})

t.test('block sizes are read packed, unpacked and mixed', async t => {
  const bytes = Uint8Array.of(0x08, 2, 0x20, 5, 0x22, 3, 6, 0x80, 0x01, 0x20, 7)
  t.same(decodeUnixfsData(bytes).blocksizes, [5, 6, 128, 7])
})

t.test('times before 1970 and at the ends of 64 bits', async t => {
  const time = (...seconds: number[]) => Uint8Array.of(0x08, 1, 0x42, seconds.length + 1, 0x08, ...seconds)
  const minusOne = [...new Array(9).fill(0xff), 1]
  t.same(decodeUnixfsData(time(...minusOne)).mtime, { seconds: -1, nanoseconds: 0 })
  const lowest = [...new Array(9).fill(0x80), 1]
  t.equal(decodeUnixfsData(time(...lowest)).mtime?.seconds, -Number.MAX_SAFE_INTEGER)
  const highest = [...new Array(8).fill(0xff), 0x7f]
  t.equal(decodeUnixfsData(time(...highest)).mtime?.seconds, Number.MAX_SAFE_INTEGER)
  for (const seconds of [-1, -128, -(2 ** 31), -(2 ** 32), -(2 ** 45), 2 ** 31, 2 ** 32, 2 ** 45]) {
    const bytes = encodeUnixfsData({ type: 'file', blocksizes: [], mtime: { seconds, nanoseconds: 5 } })
    t.same(decodeUnixfsData(bytes).mtime, { seconds, nanoseconds: 5 }, `${seconds}`)
  }
})

t.test('metadata without sense is dropped', async t => {
  t.equal(decodeUnixfsData(Uint8Array.of(0x08, 1, 0x42, 5, 0x15, 1, 0, 0, 0)).mtime, undefined)
  const tooMany = Uint8Array.of(0x08, 1, 0x42, 7, 0x08, 9, 0x15, 0, 0xca, 0x9a, 0x3b)
  t.same(decodeUnixfsData(tooMany).mtime, { seconds: 9, nanoseconds: 0 })
})

t.test(
  'unknown fields are passed over; missing and unknown types, groups and cut bytes are refused',
  async t => {
    const extra = [0x78, 1, 0x7a, 2, 9, 9, 0x7d, 1, 2, 3, 4, 0x79, 1, 2, 3, 4, 5, 6, 7, 8]
    t.equal(decodeUnixfsData(Uint8Array.of(...extra, 0x08, 4)).type, 'symlink')
    t.equal(
      codeThrown(() => decodeUnixfsData(new Uint8Array(0))),
      'MALFORMED_DAG',
    )
    t.equal(
      codeThrown(() => decodeUnixfsData(Uint8Array.of(0x08, 6))),
      'MALFORMED_DAG',
    )
    t.equal(
      codeThrown(() => decodeUnixfsData(Uint8Array.of(0x08, 2, 0x7b, 0x7c))),
      'MALFORMED_DAG',
    )
    t.equal(
      codeThrown(() => decodeUnixfsData(Uint8Array.of(0x08, 2, 0x12, 5, 1))),
      'MALFORMED_DAG',
    )
    t.equal(
      codeThrown(() => decodeUnixfsData(Uint8Array.of(0x08, 2, 0x22, 1, 0x80))),
      'MALFORMED_DAG',
    )
  },
)

t.test('on any bytes: a CidfsError or a message', async t => {
  const good = encodeUnixfsData({
    type: 'file',
    data: Uint8Array.of(1, 2, 3),
    filesize: 100,
    blocksizes: [50, 47],
    mode: 0o755,
    mtime: { seconds: -5, nanoseconds: 7 },
  })
  const mutated = fc
    .array(fc.tuple(fc.nat({ max: good.length - 1 }), fc.nat({ max: 255 })), { maxLength: 4 })
    .map(changes => {
      const bytes = new Uint8Array(good)
      for (const [at, value] of changes) bytes[at] = value
      return bytes
    })
  let accepted = 0
  fc.assert(
    fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 40 })), bytes => {
      try {
        decodeUnixfsData(bytes)
        accepted++
      } catch (err) {
        if (!(err instanceof CidfsError)) throw err
      }
    }),
    { numRuns: 5000 },
  )
  t.ok(accepted > 500, 'some were accepted')
})
