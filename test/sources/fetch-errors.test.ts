import t from 'tap'
import { keyOf } from '../../src/core/cid.js'
import { CidfsError } from '../../src/core/errors.js'
import { FetchErrors } from '../../src/sources/fetch-errors.js'
import { rawBlock } from './fake-gateway.js'

t.test('the last error of a block is kept until the block comes', async t => {
  const errors = new FetchErrors()
  const { cid } = rawBlock()
  t.equal(errors.get(cid), undefined)
  errors.record(keyOf(cid), new CidfsError('TIMEOUT', 'first'))
  errors.record(keyOf(cid), new CidfsError('UNREACHABLE', 'second'))
  t.match(errors.get(cid), { error: { code: 'UNREACHABLE', message: 'second' }, at: Number })
  errors.clear(keyOf(cid))
  t.equal(errors.get(cid), undefined)
})

t.test('only a denial is repeated without asking', async t => {
  const errors = new FetchErrors()
  for (const [code, repeated] of [
    ['UNREACHABLE', true],
    ['BAD_BLOCK', true],
    ['TIMEOUT', false],
    ['INTERRUPTED', false],
  ] as const) {
    const key = keyOf(rawBlock().cid)
    errors.record(key, new CidfsError(code, code))
    t.equal(errors.denied(key) !== undefined, repeated, code)
  }
})

t.test('the memory is bounded', async t => {
  const errors = new FetchErrors()
  const first = rawBlock().cid
  errors.record(keyOf(first), new CidfsError('UNREACHABLE', 'x'))
  for (let i = 0; i < 5_000; i++) errors.record(`key ${i}`, new CidfsError('UNREACHABLE', 'x'))
  t.equal(errors.get(first), undefined)
})
