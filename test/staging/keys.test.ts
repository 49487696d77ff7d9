import t from 'tap'
import { childKey, entryKey, inoKey, keyIno, parentEnd, parentStart } from '../../src/staging/keys.js'

const INOS = [0, 1, 16, 255, 256, 65_535, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 40, 2 ** 52, 2 ** 53 - 1]

t.test('an id survives its key', async t => {
  for (const ino of INOS) t.equal(keyIno(inoKey(ino)), ino, `${ino}`)
})

t.test('the order of keys is the order of ids', async t => {
  for (let i = 1; i < INOS.length; i++) {
    t.equal(Buffer.compare(inoKey(INOS[i - 1]!), inoKey(INOS[i]!)), -1, `${INOS[i - 1]} before ${INOS[i]}`)
  }
})

t.test('a child key holds both ids, and lies within the range of its parent', async t => {
  for (const parent of INOS.slice(0, -1)) {
    const key = childKey(parent, 77)
    t.equal(keyIno(key), parent)
    t.equal(keyIno(key, 7), 77)
    t.equal(Buffer.compare(parentStart(parent), key), -1)
    t.equal(Buffer.compare(key, parentEnd(parent)), -1)
    t.equal(Buffer.compare(childKey(parent + 1, 0), parentEnd(parent)), 0, 'the next directory is behind')
  }
})

t.test('an entry key holds the name as bytes', async t => {
  const name = Buffer.from([0xff, 0x00, 0x2f, 0x61])
  t.same(entryKey(16, name).subarray(7), name)
  t.equal(keyIno(entryKey(2 ** 40, name)), 2 ** 40)
})
