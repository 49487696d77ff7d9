import t from 'tap'
import { ProvidedRecords } from '../../src/sources/provided-records.js'
import { Pacer } from '../../src/store/pacer.js'
import { openStore, rawBlock } from '../store/support.js'

t.test('the time of a record is known until it is forgotten', async t => {
  const records = new ProvidedRecords(await openStore(t))
  const { cid } = rawBlock('a')
  t.equal(records.get(cid), undefined)
  const now = Date.now()
  records.set(cid, now)
  t.equal(records.get(cid), now)
  t.equal(records.count, 1)
})

t.test('what is old is forgotten, over many pages, and nothing else', async t => {
  const records = new ProvidedRecords(await openStore(t))
  const cids = Array.from({ length: 2_000 }, (_, i) => rawBlock(i).cid)
  for (const [i, cid] of cids.entries()) records.set(cid, i % 3 === 0 ? 5 : 50)
  await records.forgetOlderThan(10, new Pacer())
  t.ok(cids.every((cid, i) => (records.get(cid) === undefined) === (i % 3 === 0)))
  t.equal(records.count, cids.filter((_, i) => i % 3 !== 0).length)
})
