/** Sessions: which wants belong together, and who is likely to have them. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { Session, Sessions } from '../../src/bitswap/session.js'
import { CODEC_DAG_PB, cidOf, keyOf } from '../../src/core/cid.js'
import { encodePbNode } from '../../src/unixfs/pb-node.js'
import { link } from '../support/dag.js'
import { rawBlock, rawBlocks } from './support.js'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void

t.test('what a node links to belongs to the session of the node, and nothing else does', async t => {
  const sessions = new Sessions()
  const children = rawBlocks(3, 10)
  const bytes = encodePbNode(
    children.map(({ cid }) => link(cid, 'name', 10)),
    Buffer.from('data'),
  )
  const root = cidOf(CODEC_DAG_PB, bytes)
  const session = sessions.of(root)
  sessions.arrived(session, root, bytes)
  for (const { cid } of children) t.equal(sessions.of(cid), session)
  const other = sessions.of(rawBlock(10, 99).cid)
  t.not(other, session)
  t.equal(`${other.root}`, `${rawBlock(10, 99).cid}`)
  t.equal(sessions.known(keyOf(rawBlock(10, 98).cid)), undefined)
})

t.test('raw blocks are not taken for nodes', async t => {
  const sessions = new Sessions()
  const child = rawBlock(10, 1)
  const bytes = encodePbNode([link(child.cid)], Buffer.from('data'))
  const raw = cidOf(0x55, bytes)
  sessions.arrived(sessions.of(raw), raw, bytes)
  t.equal(sessions.known(keyOf(child.cid)), undefined)
})

t.test(
  'a peer is likely to have a DAG after one block of it, and unlikely after a few that it has not',
  async t => {
    const session = new Session(rawBlock(10, 1).cid)
    t.notOk(session.likely('a'))
    session.no('a')
    t.notOk(session.likely('a'))
    session.yes('a')
    t.ok(session.likely('a'))
    session.no('a')
    t.ok(session.likely('a'), 'one miss is forgiven')
    for (let i = 0; i < 3; i++) session.no('a')
    t.notOk(session.likely('a'))
  },
)

t.test('many sessions and many peers take little memory', async t => {
  const sessions = new Sessions()
  gc()
  const before = process.memoryUsage().heapUsed
  const session = sessions.of(rawBlock(10, 1).cid)
  for (let i = 0; i < 100_000; i++) session.yes(`peer ${i}`)
  t.ok(session.likely('peer 99999'))
  t.notOk(session.likely('peer 1'), 'the oldest are forgotten')
  for (let i = 0; i < 50_000; i++) sessions.of(cidOf(0x55, Buffer.from(`${i}`))).yes('a')
  gc()
  const grown = process.memoryUsage().heapUsed - before
  t.ok(grown < 48 * 1024 * 1024, `${Math.round(grown / 1024 / 1024)} MiB`)
  t.ok(sessions.known(keyOf(cidOf(0x55, Buffer.from('49999')))))
})
