import t from 'tap'
import { CID, CODEC_DAG_PB, CODEC_RAW, cidOf } from '../../src/core/cid.js'
import { inspect, links } from '../../src/unixfs/inspect.js'
import { encodePbNode } from '../../src/unixfs/pb-node.js'
import { codeThrown, link, MemoryBlocks, utf8 } from './support.js'

const blocks = new MemoryBlocks()
const leaf = blocks.put(cidOf(CODEC_RAW, utf8('leaf')), utf8('leaf'))
const look = (cid: CID) => inspect(cid, blocks.bytesOf(cid))

t.test('raw blocks and blocks of any codec but dag-pb are their bytes', async t => {
  for (const codec of [CODEC_RAW, 0x71, 0x0129, 0x90]) {
    const cid = CID.createV1(codec, leaf.multihash)
    t.same(inspect(cid, utf8('leaf')), { kind: 'bytes', sizeBytes: 4 })
    t.same(links(cid, utf8('leaf')), [])
  }
})

t.test('types, sizes, targets, times; of the mode only the low twelve bits', async t => {
  const mtime = { seconds: -3, nanoseconds: 9 }
  const data = utf8('abc')
  t.match(look(blocks.node({ type: 'file', data, mode: 0o107644, mtime })), {
    kind: 'file',
    sizeBytes: 3,
    mode: 0o7644,
    mtime,
  })
  t.match(look(blocks.node({ type: 'raw', data, filesize: 3 })), { kind: 'file', sizeBytes: 3 })
  t.equal(look(blocks.node({ type: 'directory', mode: 0 })).kind, 'directory')
  t.match(look(blocks.node({ type: 'directory', mode: 0 })), { mode: 0 })
  t.match(look(blocks.node({ type: 'directory' })), { mode: undefined, mtime: undefined })
  t.equal(look(blocks.node({ type: 'hamt-shard', hashType: 0x22, fanout: 256 })).kind, 'hamt')
  const symlink = look(blocks.node({ type: 'symlink', data: Uint8Array.of(0xff, 0x2f) }))
  t.same(symlink, { kind: 'symlink', target: Uint8Array.of(0xff, 0x2f), mode: undefined, mtime: undefined })
})

t.test('a size that is not recorded is that of the parts', async t => {
  const cid = blocks.node({ type: 'file', data: utf8('ab'), blocksizes: [4, 4] }, [link(leaf), link(leaf)])
  t.match(look(cid), { kind: 'file', sizeBytes: 10 })
})

t.test(
  'lies about sizes, missing or broken UnixFS and metadata nodes are MALFORMED_DAG with the CID',
  async t => {
    const bad = [
      blocks.node({ type: 'file', blocksizes: [4] }, [link(leaf), link(leaf)]),
      blocks.node({ type: 'file', blocksizes: [4, 4] }, [link(leaf)]),
      blocks.node({ type: 'file', filesize: 9, blocksizes: [4, 4] }, [link(leaf), link(leaf)]),
      blocks.node({ type: 'file', data: utf8('abc'), filesize: 4 }),
      blocks.node({ type: 'file', blocksizes: [Number.MAX_SAFE_INTEGER] }, [link(leaf)]),
      blocks.node({ type: 'metadata', data: utf8('x') }),
      blocks.put(cidOf(CODEC_DAG_PB, utf8('junk')), utf8('junk')),
      blocks.put(cidOf(CODEC_DAG_PB, encodePbNode([], utf8('junk'))), encodePbNode([], utf8('junk'))),
      blocks.put(cidOf(CODEC_DAG_PB, new Uint8Array(0)), new Uint8Array(0)),
    ]
    for (const cid of bad) {
      t.equal(
        codeThrown(() => look(cid)),
        'MALFORMED_DAG',
      )
      t.throws(() => look(cid), new RegExp(cid.toString()))
    }
  },
)

t.test('links are those of dag-pb, UnixFS or not, in order', async t => {
  const bytes = encodePbNode([link(leaf, 'b'), link(leaf, 'a')], utf8('not unixfs'))
  t.same(links(cidOf(CODEC_DAG_PB, bytes), bytes).map(String), [`${leaf}`, `${leaf}`])
  t.equal(
    codeThrown(() => links(cidOf(CODEC_DAG_PB, utf8('junk')), utf8('junk'))),
    'MALFORMED_DAG',
  )
})
