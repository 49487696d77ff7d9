import { generateKeyPair, privateKeyFromProtobuf } from '@libp2p/crypto/keys'
import { createIPNSRecord, createIPNSRecordWithExpiration, marshalIPNSRecord } from 'ipns'
import t from 'tap'
import { cidOf } from '../../src/core/cid.js'
import { generateKey } from '../../src/p2p/ipns-key.js'
import { signRecord, supersedes } from '../../src/p2p/ipns-record.js'
import { verifyRecord } from '../../src/p2p/ipns-verify.js'

const VALUE = `/ipfs/${cidOf(0x55, Buffer.from('content'))}`
const HOUR_MS = 3_600_000
const TTL_MS = 300_000

function fields(over: object = {}) {
  return { value: VALUE, sequence: 7n, eolMs: Date.now() + HOUR_MS, ttlMs: TTL_MS, ...over }
}

t.test('records are byte for byte those of the package ipns', async t => {
  const key = generateKey()
  const theirKey = privateKeyFromProtobuf(key.protobuf)
  for (const sequence of [0n, 1n, 23n, 24n, 255n, 256n, 65_536n, 2n ** 32n, 2n ** 53n + 1n]) {
    for (const ttlMs of [0, 1000, TTL_MS, 48 * HOUR_MS]) {
      const record = fields({ sequence, ttlMs })
      const eol = new Date(record.eolMs).toISOString().replace('Z', '000000Z')
      const ttlNs = BigInt(ttlMs) * 1_000_000n
      const theirs = await createIPNSRecordWithExpiration(theirKey, VALUE, sequence, eol, {
        ttlNs,
        v1Compatible: true,
      })
      t.same(
        Buffer.from(signRecord(key, record)),
        Buffer.from(marshalIPNSRecord(theirs)),
        `${sequence} ${ttlMs}`,
      )
    }
  }
})

t.test('what was signed comes out again', async t => {
  const key = generateKey()
  const record = fields()
  const verified = await verifyRecord(key.name.multihash, signRecord(key, record))
  t.match(verified, record)
})

t.test('records of RSA keys, whose names are hashes, are verified', async t => {
  const key = await generateKeyPair('RSA', 2048)
  const bytes = marshalIPNSRecord(await createIPNSRecord(key, VALUE, 3, HOUR_MS))
  t.match(await verifyRecord(key.publicKey.toMultihash().bytes, bytes), { value: VALUE, sequence: 3n })
})

t.test('what is not signed by the key of the name is refused', async t => {
  const [key, other] = [generateKey(), generateKey()]
  const bytes = signRecord(key, fields())
  await t.rejects(verifyRecord(other.name.multihash, bytes), { code: 'BAD_BLOCK' }, 'another name')
  // V1 fields, V2 signature and data alike: no byte can be changed
  let accepted = 0
  for (let at = 0; at < bytes.length; at++) {
    const changed = Buffer.from(bytes)
    changed[at]! ^= 0x20
    const verified = await verifyRecord(key.name.multihash, changed).catch(() => undefined)
    if (verified === undefined) continue
    accepted++
    t.match(
      verified,
      { value: VALUE, sequence: 7n },
      'only the old signature, which says nothing, may differ',
    )
  }
  t.ok(accepted <= 64, `${accepted} changes of the old signature`)
})

t.test('records past their end, too large or cut are refused', async t => {
  const key = generateKey()
  const refused = (bytes: Uint8Array, why: RegExp) =>
    t.rejects(verifyRecord(key.name.multihash, bytes), { code: 'BAD_BLOCK', message: why })
  await refused(signRecord(key, fields({ eolMs: Date.now() - 1 })), /expired/)
  await refused(signRecord(key, fields({ value: `${VALUE}/${'x'.repeat(11_000)}` })), /too large/)
  const good = signRecord(key, fields())
  for (const length of [0, 1, 10, 100, good.length - 1]) await refused(good.subarray(0, length), /./)
})

t.test('a value that leads out of the trees is refused although it is signed', async t => {
  const key = generateKey()
  for (const value of [
    `${VALUE}/../../staging`,
    '/etc/passwd',
    '/ipns/localhost',
    '/',
    'nonsense',
    `${VALUE}/\0`,
  ]) {
    const bytes = signRecord(key, fields({ value }))
    await t.rejects(verifyRecord(key.name.multihash, bytes), { code: 'BAD_BLOCK' }, JSON.stringify(value))
  }
})

t.test('whatever is sent instead of a record is refused, and costs little', async t => {
  const key = generateKey()
  const good = signRecord(key, fields())
  const field = (number: number, bytes: Buffer) =>
    Buffer.concat([Buffer.of((number << 3) | 2, 0x80 | (bytes.length & 0x7f), bytes.length >> 7), bytes])
  const nested = Buffer.concat([field(8, Buffer.alloc(200)), field(9, Buffer.alloc(9_500, 0x81))])
  await t.rejects(verifyRecord(key.name.multihash, nested), { code: 'BAD_BLOCK' }, 'arrays in arrays')
  let seed = 1
  const random = (below: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
    return (seed >>> 8) % below
  }
  let refused = 0
  for (let i = 0; i < 3_000; i++) {
    const bytes = Buffer.from(good.subarray(0, i % 2 === 0 ? random(good.length) : good.length))
    for (let n = random(5); n >= 0 && bytes.length > 0; n--) bytes[random(bytes.length)] = random(256)
    await verifyRecord(key.name.multihash, bytes).then(
      verified => t.match(verified, { value: VALUE, sequence: 7n }),
      (err: { code: string }) => err.code === 'BAD_BLOCK' && refused++,
    )
  }
  t.ok(refused > 2_000, `${refused} were refused`)
})

t.test('the later sequence supersedes, then the longer life', async t => {
  const at = (sequence: bigint, eolMs: number) => ({ sequence, eolMs })
  t.ok(supersedes(at(2n, 0), at(1n, 9)))
  t.notOk(supersedes(at(1n, 9), at(2n, 0)))
  t.ok(supersedes(at(1n, 9), at(1n, 8)))
  t.notOk(supersedes(at(1n, 8), at(1n, 8)), 'the same does not')
})
