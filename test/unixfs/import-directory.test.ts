import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { CODEC_RAW, cidOf } from '../../src/core/cid.js'
import { isPromise } from '../../src/core/maybe-promise.js'
import type { Built } from '../../src/unixfs/built.js'
import { Directory } from '../../src/unixfs/directory.js'
import { buildDirectory, type DirectoryOptions, directorySteps } from '../../src/unixfs/import-directory.js'
import { buildSymlink } from '../../src/unixfs/import-symlink.js'
import { type EncodableLink, encodePbNode } from '../../src/unixfs/pb-node.js'
import { HAMT_THRESHOLD_BYTES } from '../../src/unixfs/profile.js'
import { runNow } from '../../src/unixfs/steps.js'
import { imported } from './importer.js'
import { Kubo, withoutKubo } from './kubo.js'
import { codeRejected, codeThrown, link, MemoryBlocks, utf8 } from './support.js'

const content = utf8('content')
const leaf = cidOf(CODEC_RAW, content)

function built(entries: EncodableLink[], options?: DirectoryOptions, blocks = new MemoryBlocks()): Built {
  return runNow(directorySteps(entries, blocks.put, options))
}

function described({ cid, tsize }: Built): { cid: string; tsize: number } {
  return { cid: cid.toString(), tsize }
}

const entriesOf = (names: string[]) => names.map(name => link(leaf, name, content.length))

t.test('same CIDs and Tsizes as the importer, plain and with every fan-out', async t => {
  const segment = fc
    .string({ minLength: 1, maxLength: 20, unit: 'grapheme' })
    .filter(name => !/[/\0\\]/.test(name) && name !== '.' && name !== '..' && name.trim() === name)
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(segment, { minLength: 1, maxLength: 60 }),
      fc.integer({ min: 3, max: 10 }),
      fc.boolean(),
      async (names, bits, sharded) => {
        const blocks = new MemoryBlocks()
        const oracle = await imported(
          names.map(path => ({ path, content })),
          blocks,
          { wrapWithDirectory: true, ...(sharded && { shardSplitThresholdBytes: 0, shardFanoutBits: bits }) },
        )
        const options = sharded ? { thresholdBytes: 0, fanout: 2 ** bits } : {}
        const ours = built(entriesOf(names), options)
        t.same(described(ours), described(oracle))
      },
    ),
    { numRuns: 80 },
  )
})

/** Names of a plain directory whose block has exactly `sizeBytes` bytes. */
function namesFor(sizeBytes: number): string[] {
  const names = Array.from({ length: 4990 }, (_, i) => `n${i}`.padEnd(7, '-'))
  const lengthWith = (last: string) => encodePbNode(entriesOf([...names, last]), utf8('\x08\x01')).length
  while (lengthWith('z') < sizeBytes - 120) names.push(`m${names.length}`)
  for (let length = 1; length < 250; length++) {
    if (lengthWith('z'.repeat(length)) === sizeBytes) return [...names, 'z'.repeat(length)]
  }
  throw new Error('no directory of that size')
}

t.test('a directory is sharded above the threshold, not at it; as the importer has it', async t => {
  for (const [excess, sharded] of [
    [-1, false],
    [0, false],
    [1, true],
  ] as const) {
    const names = namesFor(HAMT_THRESHOLD_BYTES + excess)
    const blocks = new MemoryBlocks()
    const ours = built(entriesOf(names), {}, blocks)
    t.equal(Directory.open(ours.cid, blocks.bytesOf(ours.cid), blocks).sharded, sharded)
    if (!sharded) t.equal(blocks.bytesOf(ours.cid).length, HAMT_THRESHOLD_BYTES + excess)
    const oracle = await imported(
      names.map(path => ({ path, content })),
      new MemoryBlocks(),
      { wrapWithDirectory: true },
    )
    t.same(described(ours), described(oracle), `${excess} above`)
  }
})

t.test('the order of the entries does not matter; names sort by their bytes', async t => {
  const names = ['b', 'a', 'B', 'ab', 'é', '\u{10000}', '\uffff']
  const cids = [names, [...names].reverse(), [...names].sort()].map(some => `${built(entriesOf(some)).cid}`)
  t.equal(new Set(cids).size, 1)
  const blocks = new MemoryBlocks()
  const { cid } = built(entriesOf(names), {}, blocks)
  const listed = await Directory.open(cid, blocks.bytesOf(cid), blocks).list()
  t.same(
    listed.map(entry => Buffer.from(entry.name).toString()),
    ['B', 'a', 'ab', 'b', 'é', '\uffff', '\u{10000}'],
  )
})

t.test('what was built is found, names that are not UTF-8 included, in 20,000 entries', async t => {
  const blocks = new MemoryBlocks()
  const entries = entriesOf(Array.from({ length: 20_000 }, (_, i) => `file ${i}`))
  const odd = { cid: leaf, name: Uint8Array.of(0xff, 0xfe, 0x80), tsize: 1 }
  const result = buildDirectory([...entries, odd], blocks.put)
  t.ok(isPromise(result), 'the event loop turns meanwhile')
  const { cid } = await result
  const directory = Directory.open(cid, blocks.bytesOf(cid), blocks)
  t.ok(await directory.find(odd.name))
  for (const { name } of entries) if ((await directory.find(name)) === undefined) t.fail(`${name}`)
  t.equal((await directory.list()).length, 20_001)
  t.equal(directory.hidden, 0)
})

t.test('empty directories, plain and sharded', async t => {
  t.equal(built([]).cid.toString(), 'bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354')
  t.equal(built([]).tsize, 4)
  const blocks = new MemoryBlocks()
  const { cid } = built([], { thresholdBytes: 0 }, blocks)
  t.same(await Directory.open(cid, blocks.bytesOf(cid), blocks).list(), [])
})

t.test('repeated names, names no directory can show and bad fan-outs are refused', async t => {
  for (const options of [{}, { thresholdBytes: 0 }]) {
    for (const names of [['a', 'b', 'a'], [''], ['.'], ['..'], ['a/b'], ['\0'], ['x'.repeat(256)]]) {
      t.equal(await codeRejected(() => buildDirectory(entriesOf(names), () => {}, options)), 'INVALID')
    }
  }
  for (const fanout of [0, 4, 100, 2048]) {
    t.equal(
      codeThrown(() => built(entriesOf(['a']), { thresholdBytes: 0, fanout })),
      'INVALID',
    )
  }
})

t.test('symbolic links as the importer makes them', async t => {
  const blocks = new MemoryBlocks()
  const oracle = await imported([{ path: 'l', link: '../some/where' }], blocks, { wrapWithDirectory: true })
  const ours = buildSymlink(utf8('../some/where'), blocks.put)
  t.same(described(built([{ ...ours, name: utf8('l') }])), described(oracle))
})

t.test(
  'same CIDs as Kubo: symlinks, nesting, sorting, threshold',
  { skip: withoutKubo, timeout: 100_000 },
  async t => {
    const kubo = new Kubo()
    t.teardown(() => kubo.remove())
    const put = () => {}
    const top = join(kubo.directory, 'top')
    mkdirSync(join(top, 'empty'), { recursive: true })
    mkdirSync(join(top, 'inner'))
    symlinkSync('../some/where', join(top, 'a link'))
    const invalid = Buffer.from([0x6e, 0xff, 0xfe])
    for (const name of ['b', 'B', 'é', 'inner/x']) writeFileSync(join(top, name), content)
    writeFileSync(Buffer.concat([Buffer.from(`${top}/`), invalid]), content)
    const inner = built(entriesOf(['x']))
    const tree = [
      ...entriesOf(['b', 'B', 'é']),
      { cid: leaf, name: invalid, tsize: content.length },
      { ...inner, name: utf8('inner') },
      { ...built([]), name: utf8('empty') },
      { ...buildSymlink(utf8('../some/where'), put), name: utf8('a link') },
    ]
    t.equal(kubo.add(top), built(tree).cid.toString(), 'a small tree')
    for (const excess of [-1, 0, 1]) {
      const names = namesFor(HAMT_THRESHOLD_BYTES + excess)
      const path = join(kubo.directory, `excess${excess}`)
      mkdirSync(path)
      for (const name of names) writeFileSync(join(path, name), content)
      t.equal(kubo.add(path), built(entriesOf(names)).cid.toString(), `${excess} above the threshold`)
    }
  },
)
