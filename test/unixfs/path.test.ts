import t from 'tap'
import { type CID, CODEC_RAW, cidOf } from '../../src/core/cid.js'
import { Directory } from '../../src/unixfs/directory.js'
import { locate, resolve } from '../../src/unixfs/path.js'
import { atOnce, codeRejected, link, MemoryBlocks, utf8 } from './support.js'

const blocks = new MemoryBlocks()
const leaf = blocks.put(cidOf(CODEC_RAW, utf8('leaf')), utf8('leaf'))
const absent = cidOf(CODEC_RAW, utf8('absent'))
const symlink = blocks.node({ type: 'symlink', data: utf8('leaf') })
const inner = blocks.node({ type: 'directory' }, [link(absent, 'absent', 6), link(leaf, 'leaf', 4)])
const root = blocks.node({ type: 'directory' }, [link(inner, 'inner', 9), link(symlink, 'link')])
const segments = (path: string) => path.split('/').filter(Boolean).map(utf8)
const at = (path: string, from: CID = root) => resolve(from, segments(path), blocks)

t.test('resolves to a link, its block and what it is, at once', async t => {
  t.match(atOnce(at('inner/leaf')), { tsize: 4, inspected: { kind: 'bytes', sizeBytes: 4 } })
  t.match(atOnce(at('')), { tsize: undefined, inspected: { kind: 'directory' } })
  t.match(atOnce(at('link')), { inspected: { kind: 'symlink' } })
  t.match(atOnce(at('', leaf)), { inspected: { kind: 'bytes' } })
})

t.test('locating does not get the last block', async t => {
  const found = atOnce(locate(root, segments('inner/absent'), blocks))
  t.ok(found.cid.equals(absent))
  t.equal(found.tsize, 6)
  t.equal(await codeRejected(() => at('inner/absent')), 'UNREACHABLE')
})

t.test('absent names, and names below what is no directory', async t => {
  t.equal(await codeRejected(() => at('nothing')), 'NOT_FOUND')
  t.equal(await codeRejected(() => at('inner/nothing/more')), 'NOT_FOUND')
  t.equal(await codeRejected(() => at('inner/leaf/more')), 'NOT_DIRECTORY')
  t.equal(await codeRejected(() => at('link/more')), 'NOT_DIRECTORY', 'symlinks are not followed')
  t.equal(await codeRejected(() => at('more', leaf)), 'NOT_DIRECTORY')
  t.throws(() => at('inner/nothing/more'), { path: 'inner/nothing' } as unknown as Error)
})

t.test('waits where it must, and takes directories from whoever keeps them', async t => {
  blocks.later = true
  t.teardown(() => (blocks.later = false))
  const kept = new Map<string, Directory>()
  const openDirectory = async (cid: CID) => {
    const directory = kept.get(`${cid}`) ?? Directory.open(cid, await blocks.get(cid), blocks)
    kept.set(`${cid}`, directory)
    return directory
  }
  const found = await resolve(root, segments('inner/leaf'), blocks, { openDirectory })
  t.ok(found.cid.equals(leaf))
  t.same([...kept.keys()], [`${root}`, `${inner}`])
  blocks.asked.length = 0
  await locate(root, segments('inner/leaf'), blocks, { openDirectory })
  t.same(blocks.asked, [])
})
