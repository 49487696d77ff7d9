/** What went wrong last with a node. */
import t from 'tap'
import { CidfsError } from '../../src/core/errors.js'
import { NodeErrors } from '../../src/fs/node-errors.js'

const INO = 4711

function fail(message: string): never {
  throw new CidfsError('UNREACHABLE', message)
}

t.test('an error is thrown on and remembered, at once or later', async t => {
  const errors = new NodeErrors()
  t.throws(() => errors.watch(INO, () => fail('one')), { code: 'UNREACHABLE' })
  t.equal(errors.get(INO), 'one')
  await t.rejects(Promise.resolve(errors.watch(INO, async () => fail('two'))), { code: 'UNREACHABLE' })
  t.equal(errors.get(INO), 'two')
  t.equal(errors.get(INO + 1), undefined)
})

t.test('a success that began after it takes it away, at once or later', async t => {
  const errors = new NodeErrors()
  for (const succeed of [() => 1, async () => 1]) {
    t.throws(() => errors.watch(INO, () => fail('one')))
    t.equal(await errors.watch(INO, succeed), 1)
    t.equal(errors.get(INO), undefined)
  }
})

t.test('a success that began before it does not hide it', async t => {
  const errors = new NodeErrors()
  let finish = (_: number): void => {}
  const slow = errors.watch(INO, () => new Promise<number>(resolve => (finish = resolve)))
  t.throws(() => errors.watch(INO, () => fail('one')))
  finish(1)
  t.equal(await slow, 1)
  t.equal(errors.get(INO), 'one')
})

t.test('only so many errors are kept', async t => {
  const errors = new NodeErrors()
  for (let ino = 1; ino <= 10_000; ino++) {
    await Promise.resolve(errors.watch(ino, async () => fail('x'))).catch(() => {})
  }
  t.equal(errors.get(1), undefined)
  t.equal(errors.get(10_000), 'x')
})
