import { generateKeyPair } from '@libp2p/crypto/keys'
import { base32 } from 'multiformats/bases/base32'
import { base36 } from 'multiformats/bases/base36'
import { base58btc } from 'multiformats/bases/base58'
import t from 'tap'
import { CID, cidOf, Digest } from '../../src/core/cid.js'
import { codeOf } from '../../src/core/errors.js'
import { decodeKey, generateKey } from '../../src/p2p/ipns-key.js'
import { keyName, parseName } from '../../src/p2p/ipns-name.js'
import { parsePath } from '../../src/p2p/ipns-path.js'

const SOME_CID = cidOf(0x55, Buffer.from('content')).toString()

t.test('every spelling of a key is one name', async t => {
  const ed25519 = (await generateKeyPair('Ed25519')).publicKey
  const rsa = (await generateKeyPair('RSA', 1024)).publicKey
  for (const key of [ed25519, rsa]) {
    const cid = key.toCID() as CID
    const spellings = [
      ...[base36, base32].map(base => cid.toString(base)),
      cid.toString(base58btc),
      base58btc.baseEncode(cid.multihash.bytes), // 12D3Koo… or Qm…
    ]
    for (const text of spellings) {
      t.match(parseName(text), { kind: 'key', text: cid.toString(base36) }, text)
      t.same(
        Buffer.from((parseName(text) as { multihash: Uint8Array }).multihash),
        Buffer.from(cid.multihash.bytes),
      )
    }
  }
})

t.test('a name of DNS is one in any case', async t => {
  t.same(parseName('EN.Wikipedia-on-IPFS.org'), { kind: 'dns', text: 'en.wikipedia-on-ipfs.org' })
  t.same(parseName('_sub.xn--bcher-kva.example'), { kind: 'dns', text: '_sub.xn--bcher-kva.example' })
})

t.test('what cannot be a name is none', async t => {
  const long = `${'a'.repeat(64)}.org`
  const others = [
    '',
    '.',
    '..',
    'localhost',
    'a..b',
    '.a.b',
    'a.b.',
    '-a.org',
    'a-.org',
    'a b.org',
    'a/b.org',
    long,
  ]
  for (const text of [
    ...others,
    `${'a.'.repeat(127)}ab`,
    'naïve.org',
    'x\0.org',
    SOME_CID,
    'Qm',
    '12D3Koo',
    'k51',
  ]) {
    t.equal(parseName(text), undefined, JSON.stringify(text))
  }
  const short = Digest.create(0x12, new Uint8Array(20).fill(1))
  t.equal(parseName(CID.createV1(0x72, short).toString()), undefined, 'a hash that is cut')
  const noKey = Digest.create(0x00, Buffer.from('hello, this is not a key'))
  t.equal(parseName(CID.createV1(0x72, noKey).toString()), undefined, 'bytes that are no key')
  t.equal(keyName(Digest.create(0x12, new Uint8Array(32)).bytes).text.startsWith('k2'), true)
})

t.test('paths are those of content and of names, in one spelling', async t => {
  const v0 = 'QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn'
  t.same(parsePath(`/ipfs/${v0}/a//b/`), { root: `/ipfs/${v0}`, segments: ['a', 'b'] })
  t.same(parsePath('/ipns/EXAMPLE.org'), { root: '/ipns/example.org', segments: [] })
  t.same(parsePath(`/ipfs/${SOME_CID}/ä b`), { root: `/ipfs/${SOME_CID}`, segments: ['ä b'] })
})

t.test('a path that leads elsewhere is refused', async t => {
  const bad = [
    ...[
      '',
      '/',
      'ipfs',
      '/ipfs',
      '/ipfs/',
      `ipfs/${SOME_CID}`,
      '/ipns/localhost',
      '/etc/passwd',
      '//',
      '/ipfs/x',
    ],
    ...['..', '.', 'a\0b', 'x'.repeat(256), 'x'.repeat(250).concat('/').repeat(20)].map(
      rest => `/ipfs/${SOME_CID}/${rest}`,
    ),
    `/ipfs/${SOME_CID}/../../staging`,
    `/ipfs/../ipfs/${SOME_CID}`,
    `/ipld/${SOME_CID}`,
  ]
  for (const path of bad) {
    try {
      parsePath(path)
      t.fail(JSON.stringify(path))
    } catch (err) {
      t.equal(codeOf(err), 'MALFORMED_DAG', JSON.stringify(path.slice(0, 60)))
    }
  }
})

t.test('keys survive export and import', async t => {
  const key = generateKey()
  t.equal(decodeKey(key.protobuf).name.text, key.name.text)
  const theirs = await generateKeyPair('Ed25519')
  const { privateKeyToProtobuf } = await import('@libp2p/crypto/keys')
  const imported = decodeKey(privateKeyToProtobuf(theirs))
  t.equal(imported.name.text, theirs.publicKey.toCID().toString(base36))
  const message = Buffer.from('message')
  t.ok(await theirs.publicKey.verify(message, imported.sign(message)), 'it signs as they do')
})

t.test('what is no Ed25519 key is refused in one line', async t => {
  const { privateKeyToProtobuf } = await import('@libp2p/crypto/keys')
  const { protobuf } = generateKey()
  const swapped = Buffer.from(protobuf)
  swapped[swapped.length - 1]! ^= 1
  const files: Uint8Array[] = [
    new Uint8Array(0),
    Buffer.from('hello'),
    Buffer.from('-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n'),
    protobuf.subarray(0, 40),
    Buffer.concat([protobuf, Buffer.of(0)]),
    swapped,
    privateKeyToProtobuf(await generateKeyPair('RSA', 1024)),
  ]
  for (const file of files) {
    t.throws(() => decodeKey(file), { code: 'INVALID', message: /^that is no Ed25519 private key: [^\n]*$/ })
  }
})
