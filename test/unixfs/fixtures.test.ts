import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { CarBlockIterator } from '@ipld/car'
import t, { type Test } from 'tap'
import { type CID, CODEC_DAG_PB, CODEC_RAW, cidOf, parseCid } from '../../src/core/cid.js'
import { Directory } from '../../src/unixfs/directory.js'
import { FileTable } from '../../src/unixfs/file-table.js'
import { type Inspected, inspect, links } from '../../src/unixfs/inspect.js'
import { locate } from '../../src/unixfs/path.js'
import { readRange } from './read-file.js'
import { codeRejected, MemoryBlocks, repositoryRoot, utf8 } from './support.js'

/** One entry of expect/*.json; the schema is in the README of the fixtures. */
interface Expected {
  type: 'file' | 'dir' | 'symlink' | 'other' | 'unknown'
  cid: string
  size?: number
  sha256?: string
  missing?: boolean
  readable?: { start: number; end: number; sha256: string }[]
  names?: string[]
  sharded?: boolean
  hidden?: string[]
  target?: string
  mode?: string
  mtime?: { seconds: number; nanoseconds: number }
  tsize?: number
  error?: string
}

interface Fixture {
  root: string
  entries: Record<string, Expected>
}

const directory = process.env.CIDFS_FIXTURES ?? join(repositoryRoot(), '..', 'shared', 'fixtures')
const expectations = join(directory, 'expect')
const skip = existsSync(expectations) ? false : `no fixtures at ${directory}: nothing compared with them`

t.test('trees of public CAR files are what was computed from their bytes', { skip }, async t => {
  const files = readdirSync(expectations).filter(name => name.endsWith('.json'))
  t.ok(files.length >= 12)
  for (const file of files) {
    const car = `${file.replace(/(\.wrapper)?\.json$/, '')}.car`
    const fixture = JSON.parse(readFileSync(join(expectations, file), 'utf8')) as Fixture
    const blocks = await readCar(join(directory, car))
    const root = parseCid(fixture.root)
    for (const [path, expected] of Object.entries(fixture.entries)) {
      await checkEntry(t, root, path, expected, blocks, `${file}: /${path}`)
    }
  }
})

async function readCar(path: string): Promise<MemoryBlocks> {
  const blocks = new MemoryBlocks()
  for await (const { cid, bytes } of await CarBlockIterator.fromBytes(readFileSync(path))) {
    blocks.put(cid as CID, bytes)
  }
  return blocks
}

async function checkEntry(
  t: Test,
  root: CID,
  path: string,
  expected: Expected,
  blocks: MemoryBlocks,
  what: string,
): Promise<void> {
  const segments = path === '' ? [] : path.split('/').map(utf8)
  const { cid, tsize } = await locate(root, segments, blocks)
  if (cid.toString() !== expected.cid) t.fail(`${what}: ${cid}, not ${expected.cid}`)
  if (expected.type === 'unknown') {
    if (blocks.has(cid) || tsize !== expected.tsize) t.fail(`${what}: tsize ${tsize}`)
    return
  }
  const bytes = blocks.bytesOf(cid)
  if (expected.error !== undefined) {
    t.equal(await codeRejected(async () => inspect(cid, bytes)), 'MALFORMED_DAG', what)
    return
  }
  const inspected = inspect(cid, bytes)
  checkMetadata(t, inspected, expected, what)
  if (inspected.kind === 'symlink') t.equal(Buffer.from(inspected.target).toString(), expected.target, what)
  else if (inspected.kind === 'file' || inspected.kind === 'bytes') {
    t.equal(inspected.sizeBytes, expected.size, what)
    await checkContent(t, cid, expected, blocks, what)
  } else await checkDirectory(t, cid, expected, blocks, what)
}

const kinds: Record<string, Expected['type'][]> = {
  file: ['file'],
  bytes: ['file', 'other'],
  directory: ['dir'],
  hamt: ['dir'],
  symlink: ['symlink'],
}

function checkMetadata(t: Test, inspected: Inspected, expected: Expected, what: string): void {
  if (!kinds[inspected.kind]!.includes(expected.type)) t.fail(`${what}: ${inspected.kind}`)
  const { mode, mtime } = { mode: undefined, mtime: undefined, ...inspected }
  t.equal(mode?.toString(8).padStart(4, '0'), expected.mode, `${what}: mode`)
  t.same(mtime, expected.mtime, `${what}: mtime`)
}

async function checkContent(
  t: Test,
  cid: CID,
  expected: Expected,
  blocks: MemoryBlocks,
  what: string,
): Promise<void> {
  const table = FileTable.open(cid, blocks.bytesOf(cid))
  const sha256 = async (start: number, end: number) =>
    createHash('sha256')
      .update(await readRange(table, start, end, blocks))
      .digest('hex')
  if (expected.missing !== true) {
    t.equal(await sha256(0, table.sizeBytes), expected.sha256, what)
    return
  }
  t.equal(await codeRejected(() => sha256(0, table.sizeBytes)), 'UNREACHABLE', what)
  let lostFrom = 0
  for (const range of [...expected.readable!, { start: table.sizeBytes, end: table.sizeBytes, sha256: '' }]) {
    for (const at of [lostFrom, range.start - 1]) {
      if (lostFrom < range.start) t.equal(await codeRejected(() => sha256(at, at + 1)), 'UNREACHABLE', what)
    }
    if (range.start < range.end) t.equal(await sha256(range.start, range.end), range.sha256, what)
    lostFrom = range.end
  }
}

async function checkDirectory(
  t: Test,
  cid: CID,
  expected: Expected,
  blocks: MemoryBlocks,
  what: string,
): Promise<void> {
  const opened = Directory.open(cid, blocks.bytesOf(cid), blocks)
  t.equal(opened.sharded, expected.sharded, what)
  if (expected.missing === true) {
    t.equal(await codeRejected(() => opened.list()), 'UNREACHABLE', what)
    return
  }
  const listed = (await opened.list()).map(entry => Buffer.from(entry.name))
  listed.sort(Buffer.compare)
  t.same(listed.map(String), expected.names, what)
  t.equal(opened.hidden, expected.hidden?.length ?? 0, `${what}: hidden`)
}

t.test('every block a fixture links to can be walked to', { skip }, async t => {
  const blocks = await readCar(join(directory, 'hamt-1000-entries.car'))
  const seen = new Set<string>()
  const walk = (cid: CID) => {
    if (seen.has(`${cid}`)) return
    seen.add(`${cid}`)
    for (const child of links(cid, blocks.bytesOf(cid))) walk(child)
  }
  walk(parseCid('bafybeidbclfqleg2uojchspzd4bob56dqetqjsj27gy2cq3klkkgxtpn4i'))
  t.equal(seen.size, blocks.map.size)
  const dagPb = [...seen].filter(text => parseCid(text).code === CODEC_DAG_PB)
  t.ok(dagPb.length > 100 && dagPb.length < seen.size)
  t.same(links(cidOf(CODEC_RAW, utf8('x')), utf8('x')), [])
})
