import { importer } from 'ipfs-unixfs-importer'
import t from 'tap'
import { CID, CODEC_RAW, cidOf } from '../../src/core/cid.js'
import { Directory } from '../../src/unixfs/directory.js'
import { bitsAt, hashOfName } from '../../src/unixfs/hamt-shard.js'
import { links } from '../../src/unixfs/inspect.js'
import type { EncodableLink } from '../../src/unixfs/pb-node.js'
import { atOnce, codeRejected, codeThrown, link, MemoryBlocks, utf8 } from './support.js'

const leaf = cidOf(CODEC_RAW, utf8('leaf'))

function open(cid: CID, blocks: MemoryBlocks): Directory {
  return Directory.open(cid, blocks.bytesOf(cid), blocks)
}

async function names(directory: Directory): Promise<string[]> {
  return (await directory.list()).map(entry => Buffer.from(entry.name).toString())
}

/** A directory of small files made by the stock importer, and what is in it. */
async function imported(count: number, fanoutBits: number, blocks: MemoryBlocks) {
  const contents = new Map<string, string>()
  for (let i = 0; i < count; i++) contents.set(`entry-ü-${i}`, `content ${i}`)
  const source = [...contents].map(([path, text]) => ({ path, content: utf8(text) }))
  let root: CID | undefined
  const options = { profile: 'unixfs-v1-2025', wrapWithDirectory: true } as const
  const sharding = fanoutBits === 0 ? {} : { shardSplitThresholdBytes: 0, shardFanoutBits: fanoutBits }
  for await (const entry of importer(source, blocks.store, { ...options, ...sharding }))
    root = entry.cid as CID
  return { root: root!, contents }
}

t.test('plain directories and HAMTs of every fan-out list and find what the importer put in', async t => {
  for (const bits of [0, 3, 4, 5, 6, 7, 8, 9, 10]) {
    const blocks = new MemoryBlocks()
    const { root, contents } = await imported(700, bits, blocks)
    const directory = open(root, blocks)
    t.equal(directory.sharded, bits !== 0)
    const found = new Map(
      (await directory.list()).map(entry => [
        Buffer.from(entry.name).toString(),
        Buffer.from(blocks.bytesOf(entry.cid)).toString(),
      ]),
    )
    t.same(found, contents, `fan-out ${2 ** bits}`)
    t.equal(directory.hidden, 0)
    t.equal(atOnce(directory.list()), atOnce(directory.list()), 'the same array, at once')
    const fresh = open(root, blocks)
    for (const [name, text] of contents) {
      const entry = atOnce(fresh.find(utf8(name)))
      if (entry === undefined || entry.tsize !== text.length) t.fail(`${name} not found`)
    }
    for (const absent of ['', '.', 'entry-', 'entry-ü-700', 'ENTRY-ü-1', '00', 'A7']) {
      t.equal(atOnce(fresh.find(utf8(absent))), undefined)
    }
  }
})

t.test('bits of a hash, across bytes and to the end', async t => {
  const hash = Uint8Array.of(0b10110011, 0b01011100, 0, 0, 0, 0, 0b1, 0b11110101)
  t.equal(bitsAt(hash, 0, 3), 0b101)
  t.equal(bitsAt(hash, 6, 3), 0b110)
  t.equal(bitsAt(hash, 3, 10), 0b1001101011)
  t.equal(bitsAt(hash, 55, 9), 0b111110101)
  t.equal(bitsAt(hash, 61, 3), 0b101)
})

t.test('the hash is murmur3-x64-64, most significant byte first', async t => {
  t.equal(Buffer.from(hashOfName(utf8(''))).toString('hex'), '0000000000000000')
  t.equal(Buffer.from(hashOfName(utf8('hello'))).toString('hex'), 'cbd8a7b341bd9b02')
  t.equal(Buffer.from(hashOfName(utf8('hello, world'))).toString('hex'), '342fac623a5ebc8e')
})

t.test('a lookup gets only the shards on its path, a listing all of them', async t => {
  const blocks = new MemoryBlocks()
  const { root, contents } = await imported(2000, 8, blocks)
  const directory = open(root, blocks)
  const name = await deepName(directory, [...contents.keys()], blocks)
  blocks.asked.length = 0
  const fresh = open(root, blocks)
  t.ok(atOnce(fresh.find(utf8(name))))
  const path = [...blocks.asked]
  t.ok(path.length >= 2, `${path.length} shards`)
  atOnce(fresh.find(utf8(name)))
  t.equal(blocks.asked.length, path.length, 'shards are kept')

  const partial = new MemoryBlocks()
  for (const cid of [root, ...path]) partial.put(cid, blocks.bytesOf(cid))
  const cut = open(root, partial)
  t.ok(atOnce(cut.find(utf8(name))), 'other shards may be absent')
  t.equal(await codeRejected(() => cut.list()), 'UNREACHABLE', 'a listing fails rather than be short')
})

async function deepName(directory: Directory, candidates: string[], blocks: MemoryBlocks): Promise<string> {
  for (const name of candidates) {
    const before = blocks.asked.length
    const fresh = Directory.open(directory.cid, blocks.bytesOf(directory.cid), blocks)
    await fresh.find(utf8(name))
    if (blocks.asked.length - before >= 2) return name
  }
  throw new Error('no name below two shards')
}

t.test('shards that come later are asked for together, and the order is the same', async t => {
  const blocks = new MemoryBlocks()
  const { root } = await imported(3000, 8, blocks)
  const wanted = await names(open(root, blocks))
  blocks.later = true
  const directory = open(root, blocks)
  const entries = await directory.list()
  t.same(
    entries.map(entry => Buffer.from(entry.name).toString()),
    wanted,
  )
  t.ok(blocks.mostUnderWay > 8 && blocks.mostUnderWay <= 32, `${blocks.mostUnderWay} under way`)
  t.ok(await open(root, blocks).find(utf8(wanted[77]!)))
})

t.test('names no directory can show are hidden and counted, of equal names the first counts', async t => {
  const blocks = new MemoryBlocks()
  const long = 'x'.repeat(255)
  const other = cidOf(CODEC_RAW, utf8('other'))
  const shown = ['b', 'a', '...', ' ', long, '\u00e9']
  const bad = ['', '.', '..', 'a/b', '/', 'nul\0', `${long}x`]
  const cid = blocks.node({ type: 'directory' }, [
    ...shown.map(name => link(leaf, name)),
    ...bad.map(name => link(leaf, name)),
    link(other, 'a'),
  ])
  const directory = open(cid, blocks)
  t.same(await names(directory), shown)
  t.equal(directory.hidden, bad.length + 1)
  for (const name of bad) t.equal(atOnce(directory.find(utf8(name))), undefined)
  t.ok(atOnce(directory.find(utf8('a')))?.cid.equals(leaf))
  const many = Array.from({ length: 100 }, (_, i) => link(i < 50 ? leaf : other, `${i % 50}`))
  const large = open(blocks.node({ type: 'directory' }, many), blocks)
  t.equal((await names(large)).length, 50)
  t.equal(large.hidden, 50)
  t.ok(atOnce(large.find(utf8('7')))?.cid.equals(leaf), 'also by index')
})

t.test('names that are not UTF-8 are found by their bytes', async t => {
  const blocks = new MemoryBlocks()
  const name = Uint8Array.of(0xff, 0x80)
  const cid = blocks.node({ type: 'directory' }, [{ cid: leaf, name, tsize: 0 }])
  const directory = open(cid, blocks)
  t.ok(atOnce(directory.find(name)))
  t.equal(atOnce(directory.find(Uint8Array.of(0xff, 0x81))), undefined)
  t.same(atOnce(directory.list())[0]?.name, name)
})

const hamt = { type: 'hamt-shard', hashType: 0x22, fanout: 256 } as const

/** A bitmap with these slots set, trimmed as it is written. */
function bitmapOf(...slots: number[]): Uint8Array {
  const bytes = new Uint8Array(Math.floor(Math.max(...slots) / 8) + 1)
  for (const slot of slots) bytes[bytes.length - 1 - (slot >>> 3)]! |= 1 << (slot & 7)
  return bytes
}

t.test('what is no directory, and shards that contradict themselves, are refused', async t => {
  const blocks = new MemoryBlocks()
  const code = (cid: CID) => codeThrown(() => open(cid, blocks))
  t.equal(code(blocks.node({ type: 'file', data: utf8('x') })), 'NOT_DIRECTORY')
  t.equal(code(blocks.node({ type: 'symlink', data: utf8('x') })), 'NOT_DIRECTORY')
  t.equal(code(blocks.put(leaf, utf8('leaf'))), 'MALFORMED_DAG')
  t.equal(code(blocks.node({ ...hamt, hashType: 0x23 })), 'UNSUPPORTED_HASH')
  t.equal(code(blocks.node({ ...hamt, hashType: undefined })), 'UNSUPPORTED_HASH')
  for (const fanout of [undefined, 0, 1, 4, 7, 24, 2048, 2 ** 40, Number.MAX_SAFE_INTEGER]) {
    t.equal(code(blocks.node({ ...hamt, fanout })), 'MALFORMED_DAG', `fan-out ${fanout}`)
  }
  t.equal(code(blocks.node({ ...hamt, data: new Uint8Array(33) })), 'MALFORMED_DAG', 'wide bitmap')
  t.equal(code(blocks.node({ ...hamt, data: new Uint8Array(1_000_000) })), 'MALFORMED_DAG', 'huge bitmap')
  t.equal(code(blocks.node({ ...hamt, data: bitmapOf(3) })), 'MALFORMED_DAG', 'more bits than links')
  t.equal(code(blocks.node(hamt, [link(leaf, '00a')])), 'MALFORMED_DAG', 'more links than bits')
  for (const name of ['04a', 'zza', '3', '']) {
    t.equal(code(blocks.node({ ...hamt, data: bitmapOf(3) }, [link(leaf, name)])), 'MALFORMED_DAG', name)
  }
  t.equal(code(blocks.node(hamt)), undefined, 'an empty one is fine')
  t.same(await names(open(blocks.node(hamt), blocks)), [])
})

t.test('an entry that no lookup would find is hidden', async t => {
  const blocks = new MemoryBlocks()
  const slot = bitsAt(hashOfName(utf8('right')), 0, 8)
  const wrong = (slot + 1) % 256
  const entries: [number, EncodableLink][] = [
    [slot, link(leaf, `${hex(slot)}right`)],
    [wrong, link(leaf, `${hex(wrong)}wrong`)],
  ]
  entries.sort((a, b) => a[0] - b[0])
  const cid = blocks.node(
    { ...hamt, data: bitmapOf(slot, wrong) },
    entries.map(([, entry]) => entry),
  )
  const directory = open(cid, blocks)
  t.same(await names(directory), ['right'])
  t.equal(directory.hidden, 1)
  t.equal(atOnce(directory.find(utf8('wrong'))), undefined)
})

function hex(slot: number): string {
  return slot.toString(16).toUpperCase().padStart(2, '0')
}

t.test('shards deeper than the hash, shared, of another type or codec end a listing', async t => {
  const blocks = new MemoryBlocks()
  let deep = blocks.node(hamt)
  for (let i = 0; i < 9; i++) deep = blocks.node({ ...hamt, data: bitmapOf(i) }, [link(deep, hex(i))])
  t.equal(await codeRejected(() => open(deep, blocks).list()), 'MALFORMED_DAG', 'nine levels of eight bits')

  const full = Array.from({ length: 256 }, (_, slot) => slot)
  let bomb = blocks.node(hamt)
  for (let i = 0; i < 7; i++) {
    const data = new Uint8Array(32).fill(0xff)
    bomb = blocks.node(
      { ...hamt, data },
      full.map(slot => link(bomb, hex(slot))),
    ) // 256^7 paths
  }
  t.equal(await codeRejected(() => open(bomb, blocks).list()), 'MALFORMED_DAG', 'shared shards')

  const children: Record<string, CID> = {
    'a file': blocks.node({ type: 'file', data: utf8('x') }),
    'a plain directory': blocks.node({ type: 'directory' }),
    'a raw link': CID.createV1(CODEC_RAW, blocks.node(hamt).multihash),
  }
  for (const [what, child] of Object.entries(children)) {
    const cid = blocks.node({ ...hamt, data: bitmapOf(9) }, [link(child, '09')])
    t.equal(await codeRejected(() => open(cid, blocks).list()), 'MALFORMED_DAG', what)
  }
})

t.test('shards stored under raw CIDs are found by multihash', async t => {
  const blocks = new MemoryBlocks()
  const { root, contents } = await imported(1000, 8, blocks)
  const moved = new MemoryBlocks()
  const move = (cid: CID) => {
    if (cid.code === CODEC_RAW) return
    moved.put(CID.createV1(CODEC_RAW, cid.multihash), blocks.bytesOf(cid))
    for (const child of links(cid, blocks.bytesOf(cid))) move(child)
  }
  move(root)
  t.equal((await names(open(root, moved))).length, contents.size)
})
