import fc from 'fast-check'
import { exporter } from 'ipfs-unixfs-exporter'
import { importFile } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced, flat, trickle } from 'ipfs-unixfs-importer/layout'
import t from 'tap'
import { CID, CODEC_RAW, cidOf, Digest } from '../../src/core/cid.js'
import { FileTable } from '../../src/unixfs/file-table.js'
import { readFile, readRange } from './read-file.js'
import { atOnce, codeRejected, codeThrown, link, MemoryBlocks, pattern, utf8 } from './support.js'

const content = pattern(70_001)

function raw(bytes: Uint8Array, blocks: MemoryBlocks): CID {
  return blocks.put(cidOf(CODEC_RAW, bytes), bytes)
}

function identity(bytes: Uint8Array, codec = CODEC_RAW): CID {
  return CID.createV1(codec, Digest.create(0, bytes))
}

function open(cid: CID, blocks: MemoryBlocks): FileTable {
  return FileTable.open(cid, blocks.bytesOf(cid))
}

const layouts = {
  balanced: balanced({ maxChildrenPerNode: 4 }),
  'balanced, wide': balanced({ maxChildrenPerNode: 1000 }),
  flat: flat(),
  trickle: trickle({ layerRepeat: 2, maxChildrenPerNode: 4 }),
}
const leaves = {
  raw: { rawLeaves: true },
  file: { rawLeaves: false, leafType: 'file' },
  'unixfs raw': { rawLeaves: false, leafType: 'raw', reduceSingleLeafToSelf: false },
} as const

async function imported(
  layout: keyof typeof layouts,
  leaf: keyof typeof leaves,
  chunkSize: number,
  bytes: Uint8Array,
  blocks: MemoryBlocks,
): Promise<CID> {
  const { cid } = await importFile({ content: bytes }, blocks.store, {
    layout: layouts[layout],
    chunker: fixedSize({ chunkSize }),
    ...leaves[leaf],
  })
  return cid as CID
}

t.test('ranges of any layout and leaf type are the bytes the exporter yields', async t => {
  for (const layout of Object.keys(layouts) as (keyof typeof layouts)[]) {
    for (const leaf of Object.keys(leaves) as (keyof typeof leaves)[]) {
      const blocks = new MemoryBlocks()
      const cid = await imported(layout, leaf, 1000, content, blocks)
      const table = open(cid, blocks)
      t.equal(table.sizeBytes, content.length)
      for (const [start, end] of [
        [0, content.length],
        [0, 1],
        [999, 1001],
        [1000, 2000],
        [69_999, 80_000],
        [5_500, 40_321],
        [content.length, content.length + 5],
        [7, 7],
      ] as const) {
        const got = await readRange(table, start, end, blocks)
        if (Buffer.compare(got, content.subarray(start, end)) !== 0)
          t.fail(`${layout} ${leaf} ${start}-${end}`)
      }
      t.equal(Buffer.compare(await exported(cid, blocks), content), 0)
    }
  }
})

async function exported(cid: CID, blocks: MemoryBlocks): Promise<Uint8Array> {
  const entry = (await exporter(cid, blocks.store)) as { content(): AsyncIterable<Uint8Array> }
  const parts: Uint8Array[] = []
  for await (const part of entry.content()) parts.push(part)
  return Buffer.concat(parts)
}

t.test('any ranges of any tree, in any order, now or later', async () => {
  const range = fc.tuple(fc.nat({ max: 21_000 }), fc.nat({ max: 9_000 }))
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...(Object.keys(layouts) as (keyof typeof layouts)[])),
      fc.constantFrom(...(Object.keys(leaves) as (keyof typeof leaves)[])),
      fc.integer({ min: 100, max: 3000 }),
      fc.nat({ max: 20_000 }),
      fc.array(range, { maxLength: 6 }),
      fc.boolean(),
      async (layout, leaf, chunkSize, size, ranges, later) => {
        const blocks = new MemoryBlocks()
        const bytes = content.subarray(0, size)
        const cid = await imported(layout, leaf, chunkSize, bytes, blocks)
        blocks.later = later
        const table = open(cid, blocks)
        for (const [start, length] of ranges) {
          const got = await readRange(table, start, start + length, blocks)
          if (Buffer.compare(got, bytes.subarray(start, start + length)) !== 0)
            throw new Error('bytes differ')
        }
      },
    ),
    { numRuns: 60 },
  )
})

t.test('gets only nodes over the range, never raw leaves, and each once', async t => {
  const blocks = new MemoryBlocks()
  const cid = await imported('balanced', 'raw', 1000, content, blocks)
  const table = open(cid, blocks)
  const [span, ...rest] = atOnce(table.spans(10_100, 10_200, blocks))
  t.same(rest, [])
  t.match(span, { start: 10_100, length: 100, dataOffset: 100, blockLength: 1000 })
  t.equal(blocks.asked.length, 3, 'one node a level below the root')
  t.ok(blocks.asked.every(({ code }) => code !== CODEC_RAW))
  atOnce(table.spans(10_000, 11_000, blocks))
  t.equal(blocks.asked.length, 3)
  t.equal(table.heldNodes, 4)
})

t.test('a dag-pb leaf is got once, then its offset is known', async t => {
  const blocks = new MemoryBlocks()
  const cid = await imported('balanced, wide', 'file', 1000, content, blocks)
  const table = open(cid, blocks)
  t.equal(table.needed(500, 1500).length, 2)
  atOnce(table.spans(500, 1500, blocks))
  t.equal(blocks.asked.length, 2)
  const again = atOnce(table.spans(0, 2000, blocks))
  t.equal(blocks.asked.length, 2)
  t.match(again[0], { start: 0, length: 1000, blockLength: undefined })
  t.equal(table.needed(500, 1500).length, 2, 'its bytes are still needed')
})

t.test('needed names leaves and unexpanded nodes, and more once they are expanded', async t => {
  const blocks = new MemoryBlocks()
  const cid = await imported('balanced', 'raw', 1000, content, blocks)
  const table = open(cid, blocks)
  t.same(
    table.needed(0, 70_001).map(c => c.code),
    [0x70, 0x70],
  )
  atOnce(table.spans(0, 70_001, blocks))
  t.equal(table.needed(0, 70_001).length, 71)
  t.equal(table.needed(0, 70_001, 10).length, 10)
  t.equal(table.needed(69_000, 90_000).length, 2)
  t.same(table.needed(80_000, 90_000), [])
})

t.test('a missing node fails only the ranges that need it', async t => {
  const blocks = new MemoryBlocks()
  const cid = await imported('balanced', 'raw', 1000, content, blocks)
  const probe = open(cid, blocks)
  atOnce(probe.spans(30_000, 30_001, blocks))
  blocks.delete(blocks.asked.at(-1)!)
  const table = open(cid, blocks)
  t.equal(await codeRejected(() => table.spans(0, 70_001, blocks)), 'UNREACHABLE')
  t.equal(await codeRejected(() => table.spans(30_000, 30_001, blocks)), 'UNREACHABLE')
  const lost = { start: 28_000, end: 32_000 }
  t.same(await readRange(table, 0, lost.start, blocks), Buffer.from(content.subarray(0, lost.start)))
  t.same(await readRange(table, lost.end, 70_001, blocks), Buffer.from(content.subarray(lost.end)))
  t.equal(table.nextBoundary(30_500), lost.end, 'where to cut')
  t.equal(table.nextBoundary(27_999), lost.start)
  t.equal(table.nextBoundary(70_001), 70_001)
})

t.test('files in one block, empty files, identity CIDs and other codecs', async t => {
  const blocks = new MemoryBlocks()
  const small = utf8('small')
  const inRoot = blocks.node({ type: 'file', data: small, filesize: 5 })
  const [span] = atOnce(open(inRoot, blocks).spans(1, 99, blocks))
  t.match(span, { start: 1, length: 4, cid: inRoot })
  t.same(await readFile(inRoot, blocks), Buffer.from(small))
  t.same(await readFile(raw(small, blocks), blocks), Buffer.from(small))
  t.same(await readFile(raw(new Uint8Array(0), blocks), blocks), Buffer.alloc(0))
  t.same(await readFile(blocks.node({ type: 'file' }), blocks), Buffer.alloc(0))
  t.same(await readFile(identity(small), blocks), Buffer.from(small))
  t.same(atOnce(FileTable.open(identity(small), small).spans(1, 3, blocks)), [
    { start: 1, length: 2, inline: small.subarray(1, 3) },
  ])
  const cbor = CID.createV1(0x71, raw(small, blocks).multihash)
  t.same(await readFile(cbor, blocks), Buffer.from(small))
  const wrapped = identity(blocks.bytesOf(inRoot), 0x70)
  t.same(await readFile(wrapped, blocks), Buffer.from(small))
  t.same(open(inRoot, blocks).needed(0, 5), [])
})

t.test('data in interior nodes comes before the children; identity and mixed leaves read', async t => {
  const blocks = new MemoryBlocks()
  const pbLeaf = blocks.node({ type: 'raw', data: utf8('pb'), filesize: 2 })
  const idPb = identity(blocks.bytesOf(pbLeaf), 0x70)
  const inner = blocks.node({ type: 'file', data: utf8('in'), filesize: 6, blocksizes: [2, 2] }, [
    link(identity(utf8('id'))),
    link(idPb),
  ])
  const root = blocks.node({ type: 'file', data: utf8('root'), blocksizes: [3, 0, 6, 2] }, [
    link(raw(utf8('raw'), blocks)),
    link(raw(new Uint8Array(0), blocks)),
    link(inner),
    link(pbLeaf),
  ])
  t.equal(Buffer.from(await readFile(root, blocks)).toString(), 'rootrawinidpbpb')
  const table = open(root, blocks)
  for (let start = 0; start <= 15; start++) {
    for (let end = start; end <= 15; end++) {
      const got = Buffer.from(await readRange(table, start, end, blocks)).toString()
      if (got !== 'rootrawinidpbpb'.slice(start, end)) t.fail(`${start}-${end}: ${got}`)
    }
  }
  t.equal(Buffer.compare(await exported(root, blocks), utf8('rootrawinidpbpb')), 0)
})

t.test('lies are found where they are told: sizes of children, of leaves, types, codecs', async t => {
  const blocks = new MemoryBlocks()
  const good = raw(utf8('good'), blocks)
  const code = (cid: CID, start: number, end: number) =>
    codeRejected(() => readRange(open(cid, blocks), start, end, blocks))
  const bad: Record<string, CID> = {
    'a child with another size': blocks.node({ type: 'file', data: utf8('abc') }),
    'a directory': blocks.node({ type: 'directory' }),
    'a symlink': blocks.node({ type: 'symlink', data: utf8('abcd') }),
    'a raw leaf with another length': raw(utf8('abc'), blocks),
    'an identity leaf with another length': identity(utf8('abc')),
    'an oversized identity leaf': identity(new Uint8Array(129)),
    'dag-cbor': CID.createV1(0x71, good.multihash),
  }
  for (const [what, child] of Object.entries(bad)) {
    const root = blocks.node({ type: 'file', blocksizes: [4, 4, 4] }, [link(good), link(child), link(good)])
    t.equal(await code(root, 0, 12), 'MALFORMED_DAG', what)
    t.equal(await code(root, 4, 5), 'MALFORMED_DAG', what)
    t.equal(await code(root, 0, 4), undefined, `${what}: the bytes before are fine`)
    t.equal(await code(root, 8, 12), undefined, `${what}: the bytes behind are fine`)
  }
  t.equal(
    codeThrown(() => open(blocks.node({ type: 'directory' }), blocks)),
    'IS_DIRECTORY',
  )
  t.equal(
    codeThrown(() => open(blocks.node({ type: 'symlink' }), blocks)),
    'INVALID',
  )
})

t.test('a chain as deep as the limit is read, a deeper one is refused', async t => {
  const blocks = new MemoryBlocks()
  let cid = raw(utf8('deep'), blocks)
  for (let depth = 0; depth <= 1024; depth++)
    cid = blocks.node({ type: 'file', blocksizes: [4] }, [link(cid)])
  t.equal(Buffer.from(await readFile(cid, blocks)).toString(), 'deep')
  blocks.later = true
  t.equal(Buffer.from(await readFile(cid, blocks)).toString(), 'deep')
  const deeper = blocks.node({ type: 'file', blocksizes: [4] }, [link(cid)])
  blocks.later = false
  t.equal(await codeRejected(() => readFile(deeper, blocks)), 'MALFORMED_DAG')
  blocks.later = true
  t.equal(await codeRejected(() => readFile(deeper, blocks)), 'MALFORMED_DAG')
})

t.test('a range of more pieces than anyone could use is refused', async t => {
  const blocks = new MemoryBlocks()
  let cid = raw(utf8('x'), blocks)
  let size = 1
  for (let level = 0; level < 5; level++) {
    const child = link(cid)
    cid = blocks.node({ type: 'file', blocksizes: new Array(1000).fill(size) }, new Array(1000).fill(child))
    size *= 1000
  }
  const table = open(cid, blocks)
  t.equal(table.sizeBytes, 1e15)
  t.same(await readRange(table, 1e15 - 3, 1e15, blocks), Buffer.from('xxx'))
  t.equal(
    codeThrown(() => table.spans(0, 1 << 20, blocks)),
    'MALFORMED_DAG',
  )
})

t.test('a huge file stays cheap: nodes beyond a bound are dropped and come again', async t => {
  const blocks = new MemoryBlocks()
  const chunk = raw(new Uint8Array(1024), blocks)
  const levels = [
    blocks.node({ type: 'file', blocksizes: new Array(16).fill(1024) }, new Array(16).fill(link(chunk))),
  ]
  let size = 16 * 1024
  for (let i = 0; i < 2; i++) {
    const child = levels.at(-1)!
    levels.push(
      blocks.node({ type: 'file', blocksizes: new Array(100).fill(size) }, new Array(100).fill(link(child))),
    )
    size *= 100
  }
  const table = open(levels.at(-1)!, blocks)
  for (let start = 0; start < size; start += 16 * 1024) atOnce(table.spans(start, start + 10, blocks))
  t.ok(table.heldNodes <= 65, `${table.heldNodes} nodes`)
  t.equal(blocks.asked.length, 100 + 10_000)
  atOnce(table.spans(0, 10, blocks))
  t.equal(blocks.asked.length, 100 + 10_000 + 2)
})

t.test('aligned says whether known boundaries are those of pages', async t => {
  const blocks = new MemoryBlocks()
  const aligned = async (chunkSize: number, layout: keyof typeof layouts = 'balanced, wide') =>
    open(await imported(layout, 'raw', chunkSize, content, blocks), blocks)
  t.equal((await aligned(4096)).aligned, true)
  t.equal((await aligned(1024)).aligned, false)
  t.equal((await aligned(6000)).aligned, false)
  t.equal(FileTable.open(raw(content, blocks), content).aligned, true)
  const table = await aligned(1024, 'balanced')
  t.equal(table.aligned, true, 'the root alone does not tell')
  atOnce(table.spans(0, 1, blocks))
  t.equal(table.aligned, false, 'its children do')
})
