/** Every shape that UnixFS data can have, made here, served by a gateway, read through a real mount. */
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced, trickle } from 'ipfs-unixfs-importer/layout'
import { bases } from 'multiformats/basics'
import t from 'tap'
import { CID, CODEC_RAW, Digest } from '../../src/core/cid.js'
import { Dag, link, pattern, sha256 } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { Mount } from '../support/mount.js'
import { isNative } from '../support/transport.js'
import { ask, askOne } from './ask.js'

t.setTimeout(110_000)

const gateway = await TestGateway.start(t)
const mount = await Mount.start(t, { gateways: [gateway.url] })
const dag = new Dag(gateway)
const at = (cid: CID, ...names: string[]) => mount.path('ipfs', cid.toString(), ...names)

t.test('raw and dag-pb leaves in balanced and trickle layouts read as they were written', async t => {
  const content = pattern(300_001)
  for (const rawLeaves of [true, false]) {
    for (const layout of [balanced({ maxChildrenPerNode: 3 }), trickle({ maxChildrenPerNode: 3 })]) {
      for (const leafType of rawLeaves ? (['file'] as const) : (['file', 'raw'] as const)) {
        const cid = await dag.import([{ content }], {
          ...{ layout, rawLeaves, leafType, cidVersion: rawLeaves ? 1 : 0 },
          chunker: fixedSize({ chunkSize: 4099 }),
        })
        const found = await askOne({ op: 'digest', path: at(cid) })
        t.match(found, { sizeBytes: content.length, sha256: sha256(content) }, `${cid}`)
      }
    }
  }
})

t.test('data in interior nodes comes before that of their children', async t => {
  const [a, b, c] = [pattern(5000, 2), pattern(7, 3), pattern(4096, 4)]
  const leaf = (bytes: Uint8Array) => ({ cid: dag.raw(bytes), sizeBytes: bytes.length })
  const inner = dag.file([leaf(b), leaf(c)], Buffer.from('inner'))
  const { cid, sizeBytes } = dag.file([leaf(a), inner, leaf(b)], Buffer.from('outer'))
  const expected = Buffer.concat([Buffer.from('outer'), a, Buffer.from('inner'), b, c, b])
  const [whole, across] = await ask([
    { op: 'read', path: at(cid) },
    { op: 'read', path: at(cid), offset: 5000, length: 20 },
  ])
  t.equal(sizeBytes, expected.length)
  t.ok(whole?.bytes?.equals(expected), 'the whole')
  t.ok(across?.bytes?.equals(expected.subarray(5000, 5020)), 'a range over all of them')
})

t.test('inline and empty files have their size and content', async t => {
  const text = Buffer.from('inline')
  const inline = dag.node({ type: 'file', data: text, filesize: text.length })
  const untold = dag.node({ type: 'file', data: text })
  const nothing = dag.node({ type: 'file' })
  const empty = dag.raw(new Uint8Array(0))
  const dir = dag.directory([
    link(empty, 'empty', 0),
    link(inline, 'inline', 14),
    link(nothing, 'nothing', 4),
  ])
  const found = await ask(
    [
      at(inline),
      at(untold),
      at(nothing),
      at(empty),
      at(dir, 'empty'),
      at(dir, 'inline'),
      at(dir, 'nothing'),
    ].flatMap(path => [{ op: 'stat', path } as const, { op: 'read', path } as const]),
  )
  const sizes = found.filter((_, i) => i % 2 === 0).map(answer => answer.stat?.sizeBytes)
  const contents = found.filter((_, i) => i % 2 === 1).map(answer => answer.bytes?.toString())
  t.same(sizes, [6, 6, 0, 0, 0, 6, 0])
  t.same(contents, ['inline', 'inline', '', '', '', 'inline', ''])
})

for (const bits of [3, 4, 8, 10]) {
  t.test(`a HAMT of fan-out ${2 ** bits} lists and finds its names`, async t => {
    const names = Array.from({ length: 700 }, (_, i) => `entry ${i} of many`)
    const source = names.map(name => ({ path: `dir/${name}`, content: Buffer.from(name) }))
    const cid = await dag.import(source, { shardSplitThresholdBytes: 0, shardFanoutBits: bits })
    const [found, missing, listed] = await ask([
      { op: 'read', path: at(cid, names[123]!) },
      { op: 'stat', path: at(cid, 'entry 700 of many') },
      { op: 'list', path: at(cid) },
    ])
    t.equal(found?.bytes?.toString(), names[123], 'found before the directory was listed')
    t.equal(missing?.errno, 'ENOENT')
    t.same(listed?.names?.map(String), [...names].sort())
    const contents = await ask(names.map(name => ({ op: 'read', path: at(cid, name) })))
    t.same(
      contents.map(answer => answer.bytes?.toString()),
      names,
    )
  })
}

t.test('symbolic links have their target as it is, and are followed within the tree', async t => {
  const target = isNative ? Buffer.from([0x2e, 0x2e, 0x2f, 0xff, 0xfe]) : Buffer.from('../nowhere')
  const file = dag.raw(Buffer.from('behind the link'))
  const odd = dag.node({ type: 'symlink', data: target })
  const sub = dag.directory([
    link(odd, 'odd'),
    link(dag.node({ type: 'symlink', data: Buffer.from('../file') }), 'up'),
  ])
  const root = dag.directory([link(file, 'file', 15), link(sub, 'sub')])
  const [readlink, stat, followed, dangling] = await ask([
    { op: 'readlink', path: at(root, 'sub', 'odd') },
    { op: 'stat', path: at(root, 'sub', 'odd') },
    { op: 'read', path: at(root, 'sub', 'up') },
    { op: 'read', path: at(root, 'sub', 'odd') },
  ])
  t.ok(readlink?.bytes?.equals(target))
  t.match(stat?.stat, { type: 'symlink', sizeBytes: target.length })
  t.equal(followed?.bytes?.toString(), 'behind the link')
  t.equal(dangling?.errno, 'ENOENT')
})

t.test('mode and mtime are shown where they are recorded', async t => {
  const mtime = { seconds: 1_600_000_000, nanoseconds: isNative ? 123_456_789 : 123_000_000 }
  const data = Buffer.from('x')
  const file = dag.node({ type: 'file', data, mode: 0o100640, mtime })
  const old = dag.node({ type: 'file', data, mtime: { seconds: -86_400, nanoseconds: 500_000_000 } })
  const dir = dag.node({ type: 'directory', mode: 0o40711, mtime }, [link(file, 'file'), link(old, 'old')])
  const plain = dag.directory([link(file, 'file')])
  const found = await ask(
    [at(dir), at(dir, 'file'), at(dir, 'old'), at(plain)].map(path => ({ op: 'stat', path })),
  )
  t.same(
    found.map(({ stat }) => [stat?.type, stat?.mode, stat?.mtimeNs]),
    [
      ['dir', '0711', `1600000000${mtime.nanoseconds}`],
      ['file', '0640', `1600000000${mtime.nanoseconds}`],
      ['file', '0444', isNative ? '-86399500000000' : '0'],
      ['dir', '0555', '0'],
    ],
  )
})

/** Bases of which every spelling can be a file name: no slash in the alphabet, and not too long. */
function spellings(cid: CID): string[] {
  const texts = Object.values(bases).map(({ prefix, encoder }) => {
    const text = encoder.encode(cid.bytes)
    return text.startsWith(prefix) ? text : prefix + text
  })
  return texts.filter(text => !/[/\0]/.test(text) && Buffer.byteLength(text) <= 255)
}

t.test('every spelling of a CID reaches the same inode', async t => {
  const file = dag.node({ type: 'file', data: Buffer.from('spelled') })
  const dir = dag.directory([link(file, 'file')])
  for (const cid of [file, dir]) {
    const texts = [...spellings(cid), cid.toV0().toString()]
    t.ok(texts.length > 15, `${texts.length} spellings`)
    const found = await ask(texts.map(text => ({ op: 'stat', path: mount.path('ipfs', text) })))
    const inos = found.map((answer, i) => answer.stat?.ino ?? `${answer.errno}: ${texts[i]}`)
    t.same([...new Set(inos)], [inos[0]])
    t.match(inos[0], /^\d+$/)
  }
  const [first, second] = [file.toString(), file.toV0().toString()]
  const { stdout } = await mount.run('stat', ['-c', '%i', `ipfs/${first}`, `ipfs/${second}`])
  t.equal(new Set(stdout.trim().split('\n')).size, 1, 'stat(1) agrees')
})

t.test('identity CIDs are files, directories and leaves without any block', async t => {
  const text = Buffer.from('in the CID itself')
  const identity = dag.raw(text, 'identity')
  const other = dag.raw(Buffer.from(' and in a block'))
  const joined = dag.file([
    { cid: identity, sizeBytes: text.length },
    { cid: other, sizeBytes: 15 },
  ]).cid
  const tiny = dag.node(
    { type: 'directory' },
    [link(dag.raw(Buffer.from('t'), 'identity'), 'tiny', 1)],
    'identity',
  )
  const before = gateway.requests.length
  const [root, child] = await ask([
    { op: 'read', path: at(identity) },
    { op: 'read', path: at(tiny, 'tiny') },
  ])
  t.equal(root?.bytes?.toString(), 'in the CID itself')
  t.equal(child?.bytes?.toString(), 't')
  t.equal(gateway.requests.length, before, 'nobody was asked')
  t.equal(
    (await askOne({ op: 'read', path: at(joined) })).bytes?.toString(),
    'in the CID itself and in a block',
  )
})

for (const hash of ['sha2-512', 'blake2b-256'] as const) {
  t.test(`${hash} works for leaves, files and directories`, async t => {
    const leaf = dag.raw(pattern(5000, hash.length), hash)
    const file = dag.node(
      { type: 'file', blocksizes: [5000, 5000], filesize: 10_000 },
      [link(leaf, '', 5000), link(leaf, '', 5000)],
      hash,
    )
    const dir = dag.node({ type: 'directory' }, [link(file, 'file'), link(leaf, 'leaf', 5000)], hash)
    const content = pattern(5000, hash.length)
    const [whole, one] = await ask([
      { op: 'digest', path: at(dir, 'file') },
      { op: 'digest', path: at(dir, 'leaf') },
    ])
    t.equal(whole?.sha256, sha256(Buffer.concat([content, content])))
    t.equal(one?.sha256, sha256(content))
  })
}

t.test('blocks of other codecs are their plain bytes', async t => {
  const bytes = Buffer.from([0xa1, 0x61, 0x61, 0x01]) // {"a": 1} in CBOR
  for (const codec of [0x71, 0x0129, 0x0200, 0x72, 0x78, 0x300001]) {
    const cid = dag.put(codec, bytes)
    const dir = dag.directory([link(cid, 'child', 4)])
    const [root, child, listed] = await ask([
      { op: 'read', path: at(cid) },
      { op: 'read', path: at(dir, 'child') },
      { op: 'stat', path: at(dir, 'child') },
    ])
    t.ok(root?.bytes?.equals(bytes), `codec 0x${codec.toString(16)} as a root`)
    t.ok(child?.bytes?.equals(bytes), `codec 0x${codec.toString(16)} in a directory`)
    t.match(listed?.stat, { type: 'file', sizeBytes: 4 })
  }
})

t.test('names are bytes: those that are not UTF-8 are listed and found', async t => {
  const utf8 = [Buffer.from('café'), Buffer.from('€'.repeat(85))]
  const others = [Buffer.from([0xff, 0xfe]), Buffer.from('caf\xe9', 'latin1'), Buffer.alloc(255, 0x80)]
  const names = isNative ? [...others, ...utf8] : utf8
  const sorted = [...names].sort(Buffer.compare)
  const dir = dag.directory(sorted.map((name, i) => link(dag.raw(Buffer.from(`content ${i}`)), name, 9)))
  const prefix = Buffer.from(`${at(dir)}/`)
  const listed = await askOne({ op: 'list', path: at(dir) })
  t.same(
    listed.names?.map(name => name.toString('hex')),
    sorted.map(name => name.toString('hex')),
  )
  const found = await ask(sorted.map(name => ({ op: 'read', path: Buffer.concat([prefix, name]) })))
  t.same(
    found.map(answer => answer.bytes?.toString()),
    sorted.map((_, i) => `content ${i}`),
  )
  const { stdout } = await mount.run('find', [`ipfs/${dir}`, '-type', 'f', '-printf', '.'])
  t.equal(stdout.length, names.length, 'find(1) visits all of them')
})

t.test('a hash function that cannot be verified is EOPNOTSUPP, and only for what needs it', async t => {
  const blake3 = CID.createV1(CODEC_RAW, Digest.create(0x1e, pattern(32)))
  const good = dag.raw(Buffer.from('good'))
  const dir = dag.directory([link(blake3, 'blake3', 4), link(good, 'good', 4)])
  const [root, child, sibling, listed] = await ask([
    { op: 'stat', path: at(blake3) },
    { op: 'read', path: at(dir, 'blake3') },
    { op: 'read', path: at(dir, 'good') },
    { op: 'list', path: at(dir) },
  ])
  t.equal(root?.errno, 'EOPNOTSUPP')
  t.equal(child?.errno, 'EOPNOTSUPP')
  t.equal(sibling?.bytes?.toString(), 'good')
  t.same(listed?.names?.map(String), ['blake3', 'good'])
})

t.test('extended attributes name the CID and what is held of it', async t => {
  const leaves = [1, 2, 3].map(seed => ({ cid: dag.raw(pattern(4096, seed + 50)), sizeBytes: 4096 }))
  const { cid } = dag.file(leaves)
  const path = at(cid)
  const value = async (name: string) => (await askOne({ op: 'xattr', path, name })).bytes?.toString()
  t.equal(await value('user.ipfs.cid'), cid.toString())
  t.equal(await value('user.ipfs.cached'), '25', 'its root, of four blocks')
  await mount.run('cat', [path])
  t.equal(await value('user.ipfs.cached'), '100')
  const { stdout } = await mount.run('getfattr', ['-d', '--absolute-names', path])
  t.match(stdout, `user.ipfs.cid="${cid}"`)
})
