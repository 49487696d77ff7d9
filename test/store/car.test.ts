import { createReadStream, readFileSync } from 'node:fs'
import { CarBlockIterator, CarReader, CarWriter } from '@ipld/car'
import t from 'tap'
import { CID, CODEC_RAW, cidOf, Digest, HASH_IDENTITY } from '../../src/core/cid.js'
import { CidfsError } from '../../src/core/errors.js'
import { exportCar } from '../../src/store/car-export.js'
import { CARV2_PRAGMA, encodeHeader, encodeSectionHead } from '../../src/store/car-format.js'
import { importCar } from '../../src/store/car-import.js'
import type { Block } from '../../src/store/packs.js'
import type { Store } from '../../src/store/store.js'
import { fixture, missingFixtures } from '../support/root.js'
import { links, node, openStore, packFiles, putTree, rawBlock } from './support.js'

const FIXTURES = [
  'dag-pb-leaves',
  'dir-with-dag-cbor-child',
  'dir-with-files',
  'file-with-middle-block-missing',
  'hamt-1000-entries',
  'hamt-10100-entries-no-children',
  'hostile-names-inside-root',
  'mode-mtime',
  'nested-small-dirs',
  'symlink',
  'unixfs-carv2',
  'utf8-names',
]

function car(roots: CID[], blocks: Block[]): Buffer {
  const sections = blocks.flatMap(({ cid, bytes }) => [encodeSectionHead(cid, bytes.length), bytes])
  return Buffer.concat([encodeHeader(roots), ...sections])
}

function carV2(inner: Buffer, padding = 0, dataSize = inner.length): Buffer {
  const header = Buffer.alloc(40)
  const dataOffset = CARV2_PRAGMA.length + header.length + padding
  header.writeBigUInt64LE(BigInt(dataOffset), 16)
  header.writeBigUInt64LE(BigInt(dataSize), 24)
  header.writeBigUInt64LE(BigInt(dataOffset + inner.length), 32)
  return Buffer.concat([
    CARV2_PRAGMA,
    header,
    Buffer.alloc(padding),
    inner,
    Buffer.from('an index, to be ignored'),
  ])
}

/** The bytes in chunks of `chunkBytes`. */
async function* stream(bytes: Uint8Array, chunkBytes = 1000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes)
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = []
  for await (const chunk of chunks) all.push(chunk)
  return Buffer.concat(all)
}

function reader(store: Store): { get(cid: CID): Uint8Array } {
  return {
    get(cid) {
      const bytes = store.get(cid)
      if (bytes === undefined) throw new CidfsError('UNREACHABLE', `no source has ${cid}`)
      return bytes
    },
  }
}

for (const name of FIXTURES) {
  t.test(`imports ${name} exactly as @ipld/car reads it`, { skip: missingFixtures() }, async t => {
    const path = fixture(`${name}.car`)
    const store = await openStore(t)
    const result = await importCar(store, createReadStream(path))
    const oracle = await CarReader.fromBytes(readFileSync(path))
    const roots = await oracle.getRoots()
    t.same(result.roots.map(String), roots.map(String))
    let blocks = 0
    for await (const { cid, bytes } of oracle.blocks()) {
      if (cid.multihash.code === HASH_IDENTITY) continue
      blocks++
      const found = store.get(CID.decode(cid.bytes))
      if (found === undefined || Buffer.compare(found, bytes) !== 0) t.fail(`${cid} differs`)
    }
    t.equal(result.blocks, blocks)
    t.ok(blocks > 0)
  })
}

t.test('a pack is a CAR that other tools read, and that can be imported again', async t => {
  const store = await openStore(t)
  const { root, blocks } = putTree(store, 'tree', 300)
  const file = packFiles(store)[0] as string
  const found: string[] = []
  const oracle = await CarBlockIterator.fromIterable(createReadStream(file))
  t.same(await oracle.getRoots(), [])
  for await (const { cid, bytes } of oracle) {
    t.same(store.get(CID.decode(cid.bytes)), bytes)
    found.push(cid.toString())
  }
  t.same(
    found,
    blocks.map(({ cid }) => cid.toString()),
  )
  const copy = await openStore(t)
  t.equal((await importCar(copy, createReadStream(file))).blocks, 301)
  t.ok(copy.has(root))
})

t.test('export and import round-trip, and @ipld/car agrees', async t => {
  const store = await openStore(t)
  const shared = rawBlock('shared')
  const big = rawBlock('big', 1_048_576)
  const left = node([shared.cid, big.cid], 'left')
  const identity = CID.createV1(CODEC_RAW, Digest.create(HASH_IDENTITY, Buffer.from('inline')))
  const root = node([left.cid, identity, shared.cid, left.cid], 'root')
  store.putMany([shared, big, left, root])
  const bytes = await collect(exportCar(root.cid, reader(store), links))
  const oracle = await CarReader.fromBytes(bytes)
  t.same((await oracle.getRoots()).map(String), [root.cid.toString()])
  const order: string[] = []
  for await (const { cid } of oracle.blocks()) order.push(cid.toString())
  t.same(
    order,
    [root, left, shared, big].map(({ cid }) => cid.toString()),
    'depth first, each once, no identity',
  )
  const copy = await openStore(t)
  const result = await importCar(copy, stream(bytes))
  t.same(result.roots.map(String), [root.cid.toString()])
  t.equal(result.blocks, 4)
  for (const block of [root, left, shared, big])
    t.ok(Buffer.compare(copy.get(block.cid) ?? Buffer.alloc(0), block.bytes) === 0)
})

t.test('imports what @ipld/car writes', async t => {
  const blocks = Array.from({ length: 50 }, (_, i) => rawBlock(i, 1 + i * 10))
  const { writer, out } = CarWriter.create([blocks[0]?.cid as CID])
  const written = collect(out)
  for (const block of blocks) await writer.put(block)
  await writer.close()
  const store = await openStore(t)
  t.equal((await importCar(store, stream(await written))).blocks, 50)
  for (const { cid, bytes } of blocks) t.same(store.get(cid), bytes)
})

t.test('chunks of any size give the same blocks', async t => {
  const { cid, bytes } = rawBlock('a', 3000)
  const file = car([cid], [{ cid, bytes }, rawBlock('b', 10), rawBlock('c', 0)])
  for (const chunkBytes of [1, 2, 7, 4096, 1_000_000]) {
    const store = await openStore(t)
    t.equal((await importCar(store, stream(file, chunkBytes))).blocks, 3)
    t.same(store.get(cid), bytes)
    t.ok(store.has(rawBlock('c', 0).cid))
  }
})

t.test('a CARv2 with padding is read, its index is not taken for data', async t => {
  const block = rawBlock('a')
  const inner = car([block.cid], [block, rawBlock('b')])
  const store = await openStore(t)
  const result = await importCar(store, stream(carV2(inner, 5000)))
  t.equal(result.blocks, 2)
  t.same(result.roots.map(String), [block.cid.toString()])
})

t.test('a CARv2 that is wrong about its data is refused', async t => {
  const block = rawBlock('a')
  const inner = car([block.cid], [block])
  const store = await openStore(t)
  const cases: [bytes: Buffer, message: RegExp][] = [
    [carV2(inner, 0, 0), /its writer did not finish/],
    [carV2(inner, 0, inner.length - 10), /beyond the data/],
    [carV2(inner, 0, inner.length + 1000), /truncated/],
    [carV2(inner).subarray(0, 30), /truncated/],
    [carV2(carV2(inner)), /not a CAR file/],
  ]
  for (const [bytes, message] of cases)
    await t.rejects(importCar(store, stream(bytes)), { code: 'BAD_CAR', message })
})

t.test('a block that does not match its hash ends the import; those before it stay', async t => {
  const store = await openStore(t)
  const [good, bad, after] = [rawBlock('good'), rawBlock('bad'), rawBlock('after')]
  const wrong = { cid: bad.cid, bytes: rawBlock('other').bytes }
  const position = car([], [good]).length
  await t.rejects(importCar(store, stream(car([], [good, wrong, after]))), {
    code: 'BAD_CAR',
    cid: bad.cid.toString(),
    message: `bad CAR at byte ${position}: block ${bad.cid} does not match its hash`,
  })
  t.ok(store.has(good.cid))
  t.notOk(store.has(bad.cid))
  t.notOk(store.has(after.cid))
})

t.test('a CAR cut anywhere says so, in one line', async t => {
  const store = await openStore(t)
  const blocks = [rawBlock('a', 50), rawBlock('b', 20)]
  const file = car([blocks[0]?.cid as CID], blocks)
  const whole = [
    car([blocks[0]?.cid as CID], []).length,
    car([blocks[0]?.cid as CID], blocks.slice(0, 1)).length,
  ]
  for (let length = 0; length < file.length; length++) {
    const result = await importCar(store, stream(file.subarray(0, length))).catch((err: unknown) => err)
    if (whole.includes(length)) t.notOk(result instanceof Error, 'a cut between sections cannot be told')
    else if (!(result instanceof CidfsError) || result.code !== 'BAD_CAR' || result.message.includes('\n')) {
      t.fail(`cut at ${length}: ${result}`)
    }
  }
})

t.test('what is no CAR is refused', async t => {
  const store = await openStore(t)
  const huge = Buffer.from([0xff, 0xff, 0xff, 0xff, 0x7f])
  const cases: [bytes: Buffer, message: RegExp][] = [
    [Buffer.alloc(0), /not a CAR file/],
    [Buffer.from('hello, this is some text\n'), /not a CAR file|truncated/],
    [Buffer.alloc(5000), /not a CAR file/],
    [Buffer.alloc(5000, 0xff), /not a CAR file/],
    [Buffer.concat([huge, Buffer.alloc(100)]), /not a CAR file/],
    [Buffer.concat([encodeHeader([]), Buffer.alloc(5000)]), /no length/],
    [Buffer.concat([encodeHeader([]), huge, Buffer.alloc(5000)]), /larger than 2097152 bytes/],
    [Buffer.concat([encodeHeader([]), Buffer.from([100]), Buffer.alloc(5000, 0x33)]), /CID/],
  ]
  for (const [bytes, message] of cases)
    await t.rejects(importCar(store, stream(bytes)), { code: 'BAD_CAR', message })
  t.equal(store.usage().blocks, 0)
})

t.test('a block above 2 MiB is refused, one of 2 MiB is not', async t => {
  const store = await openStore(t)
  const largest = rawBlock('largest', 2 * 1024 * 1024)
  await importCar(store, stream(car([], [largest]), 65536))
  t.ok(store.has(largest.cid))
  const tooLarge = rawBlock('too large', 2 * 1024 * 1024 + 1)
  await t.rejects(importCar(store, stream(car([], [tooLarge]), 65536)), {
    code: 'BAD_CAR',
    message: new RegExp(`block ${tooLarge.cid} of 2097153 bytes is larger`),
  })
})

t.test('a hash function that cannot be verified is named', async t => {
  const store = await openStore(t)
  const good = rawBlock('good')
  const cid = CID.createV1(CODEC_RAW, Digest.create(0x1e, new Uint8Array(32)))
  await t.rejects(importCar(store, stream(car([], [good, { cid, bytes: Buffer.from('x') }]))), {
    code: 'UNSUPPORTED_HASH',
    message: /hash function 0x1e/,
  })
  t.ok(store.has(good.cid))
})

t.test('identity blocks are skipped', async t => {
  const store = await openStore(t)
  const bytes = Buffer.from('inline')
  const cid = CID.createV1(CODEC_RAW, Digest.create(HASH_IDENTITY, bytes))
  const result = await importCar(store, stream(car([cid], [{ cid, bytes }, rawBlock('a')])))
  t.equal(result.blocks, 1)
  t.equal(store.usage().blocks, 1)
})

t.test('an import can be interrupted, shows progress and keeps the event loop running', async t => {
  const store = await openStore(t)
  const blocks = Array.from({ length: 3000 }, (_, i) => rawBlock(i, 2000))
  const abort = new AbortController()
  let turns = 0
  const timer = setInterval(() => turns++, 1)
  const seen: number[] = []
  const options = {
    signal: abort.signal,
    onProgress: ({ blocks }: { blocks: number }) => {
      seen.push(blocks)
      if (blocks > 1500) abort.abort()
    },
  }
  await t.rejects(importCar(store, stream(car([], blocks), 1_000_000), options), { code: 'INTERRUPTED' })
  clearInterval(timer)
  t.ok(turns > 0, 'timers ran')
  t.ok((seen.at(-1) as number) < 3000)
  t.equal(store.usage().blocks, seen.at(-1))
})

t.test('an error of the stream is passed on and the stream is let go', async t => {
  const store = await openStore(t)
  let closed = false
  async function* failing() {
    try {
      yield car([], [rawBlock('a')])
      throw Object.assign(new Error('read failed'), { code: 'EIO' })
    } finally {
      closed = true
    }
  }
  await t.rejects(importCar(store, failing()), { code: 'EIO' })
  t.ok(closed)
  t.ok(store.has(rawBlock('a').cid))
})

t.test('an export of a DAG with a missing block fails, after what could be read', async t => {
  const store = await openStore(t)
  const missing = rawBlock('missing')
  const root = node([rawBlock('here').cid, missing.cid])
  store.putMany([rawBlock('here'), root])
  await t.rejects(collect(exportCar(root.cid, reader(store), links)), {
    code: 'UNREACHABLE',
    message: `no source has ${missing.cid}`,
  })
})

t.test('an export reads no further than its consumer', async t => {
  const store = await openStore(t)
  const { root } = putTree(store, 'wide', 200, 100_000)
  let reads = 0
  const counting = {
    get: (cid: CID) => {
      reads++
      return store.get(cid) as Uint8Array
    },
  }
  const chunks = exportCar(root, counting, links)
  await chunks.next()
  await chunks.next()
  t.ok(reads < 5, `${reads} blocks read for two chunks`)
  await chunks.return(undefined)
  const abort = new AbortController()
  const rest = exportCar(root, counting, links, { signal: abort.signal })
  await rest.next()
  abort.abort()
  await t.rejects(collect(rest), { code: 'INTERRUPTED' })
})

t.test('a block linked as raw and as a node is written once and still followed', async t => {
  const store = await openStore(t)
  const leaf = rawBlock('leaf')
  const inner = node([leaf.cid])
  const root = node([CID.createV1(CODEC_RAW, inner.cid.multihash), inner.cid])
  store.putMany([leaf, inner, root])
  const copy = await openStore(t)
  const result = await importCar(copy, exportCar(root.cid, reader(store), links))
  t.equal(result.blocks, 3)
  t.ok(copy.has(leaf.cid))
})

t.test('a root that is a raw block is a CAR of one section', async t => {
  const bytes = Buffer.from('hello')
  const cid = cidOf(CODEC_RAW, bytes)
  const exported = await collect(exportCar(cid, { get: () => bytes }, links))
  t.same(exported, car([cid], [{ cid, bytes }]))
})
