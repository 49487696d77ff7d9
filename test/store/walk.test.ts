import t from 'tap'
import { CID, CODEC_RAW, Digest, HASH_IDENTITY } from '../../src/core/cid.js'
import { CidfsError } from '../../src/core/errors.js'
import type { Store } from '../../src/store/store.js'
import { completeness, walk } from '../../src/store/walk.js'
import { links, node, openStore, putTree, rawBlock } from './support.js'

async function visited(store: Store, root: CID): Promise<string[]> {
  const names: string[] = []
  await walk(store, root, links, (cid, location) => {
    names.push(`${cid}${location === undefined ? ' missing' : ''}`)
    return true
  })
  return names
}

t.test('each block is visited once, depth first and in order', async t => {
  const store = await openStore(t)
  const [a, b, missing] = [rawBlock('a'), rawBlock('b'), rawBlock('missing')]
  const left = node([a.cid, b.cid, missing.cid], 'left')
  const right = node([b.cid, left.cid, missing.cid], 'right')
  const root = node([left.cid, right.cid])
  store.putMany([a, b, left, right, root])
  t.same(await visited(store, root.cid), [
    ...[root, left, a, b].map(({ cid }) => cid.toString()),
    `${missing.cid} missing`,
    right.cid.toString(),
  ])
  t.same(await completeness(store, root.cid, links), {
    held: false,
    blocks: 5,
    bytes: [a, b, left, right, root].reduce((sum, { bytes }) => sum + bytes.length, 0),
    missing: 1,
    firstMissing: missing.cid,
  })
})

t.test('completeness of a held DAG, and the early exit', async t => {
  const store = await openStore(t)
  const { root, blocks } = putTree(store, 'tree', 50)
  const whole = await completeness(store, root, links)
  t.ok(whole.held)
  t.equal(whole.blocks, 51)
  const holes = node([rawBlock('x').cid, root, rawBlock('y').cid])
  store.put(holes.cid, holes.bytes)
  const early = await completeness(store, holes.cid, links, { stopAtFirstMissing: true })
  t.match(early, { held: false, blocks: 1, missing: 1, firstMissing: rawBlock('x').cid })
  const full = await completeness(store, holes.cid, links)
  t.match(full, { blocks: blocks.length + 1, missing: 2 })
  const absent = await completeness(store, rawBlock('z').cid, links)
  t.match(absent, { held: false, blocks: 0, missing: 1 })
})

t.test('depth costs no stack', async t => {
  const store = await openStore(t)
  let tip = rawBlock('leaf')
  store.put(tip.cid, tip.bytes)
  for (let depth = 0; depth < 20_000; depth++) {
    tip = node([tip.cid])
    store.put(tip.cid, tip.bytes)
  }
  t.equal((await completeness(store, tip.cid, links)).blocks, 20_001)
})

t.test('a block that is linked as raw and as a node is followed as a node', async t => {
  const store = await openStore(t)
  const leaf = rawBlock('leaf')
  const inner = node([leaf.cid])
  const root = node([CID.createV1(CODEC_RAW, inner.cid.multihash), inner.cid, inner.cid])
  store.putMany([leaf, inner, root])
  t.equal((await visited(store, root.cid)).length, 3)
})

t.test('identity nodes are followed and not visited', async t => {
  const store = await openStore(t)
  const leaf = rawBlock('leaf')
  store.put(leaf.cid, leaf.bytes)
  const inline = CID.createV1(0x70, Digest.create(HASH_IDENTITY, node([leaf.cid]).bytes))
  t.same(await visited(store, inline), [leaf.cid.toString()])
})

t.test('a malformed node is a leaf; any other error ends the walk', async t => {
  const store = await openStore(t)
  const broken = node([rawBlock('a').cid])
  store.put(broken.cid, broken.bytes)
  const malformed = () => {
    throw new CidfsError('MALFORMED_DAG', 'no')
  }
  t.match(await completeness(store, broken.cid, malformed), { held: true, blocks: 1 })
  const bug = () => {
    throw new TypeError('a bug')
  }
  await t.rejects(completeness(store, broken.cid, bug), TypeError)
})

t.test('a walk lets the event loop run and can be interrupted', async t => {
  const store = await openStore(t)
  const { root } = putTree(store, 'wide', 30_000, 10)
  let turns = 0
  const timer = setInterval(() => turns++, 1)
  await completeness(store, root, links)
  clearInterval(timer)
  t.ok(turns > 2, `${turns} turns`)
  const abort = new AbortController()
  setImmediate(() => abort.abort())
  await t.rejects(completeness(store, root, links, { signal: abort.signal }), { code: 'INTERRUPTED' })
})
