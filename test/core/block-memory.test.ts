import t from 'tap'
import { blockMemory, isReusable, reuse } from '../../src/core/block-memory.js'

const MIB = 2 ** 20

t.test('memory that was given back is used again, once, for a block of the same length', async t => {
  const bytes = blockMemory(MIB)
  t.equal(bytes.buffer.byteLength, MIB)
  reuse(bytes.buffer)
  t.not(blockMemory(MIB + 1).buffer, bytes.buffer)
  t.equal(blockMemory(MIB).buffer, bytes.buffer)
  t.not(blockMemory(MIB).buffer, bytes.buffer)
})

t.test('only some of it is kept, what came last', async t => {
  const given = Array.from({ length: 64 }, () => new ArrayBuffer(MIB))
  for (const buffer of given) reuse(buffer)
  const taken = Array.from({ length: 64 }, () => blockMemory(MIB).buffer)
  const kept = taken.filter(buffer => given.includes(buffer))
  t.ok(kept.length > 0 && kept.length <= 16, `${kept.length} were kept`)
  t.equal(kept[0], given.at(-1))
})

t.test('small blocks, and those that share their memory, are not worth passing on', async t => {
  t.equal(isReusable(new Uint8Array(MIB)), true)
  t.equal(isReusable(new Uint8Array(1000)), false)
  t.equal(isReusable(new Uint8Array(MIB).subarray(1)), false)
  t.equal(isReusable(new Uint8Array(new SharedArrayBuffer(MIB))), false)
})
