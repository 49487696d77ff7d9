/** Attributes in the form of the package. */
import t from 'tap'
import type { Attributes } from '../../src/fs/file-system.js'
import { foldIno, statfsWords, statWords } from '../../src/fuse-native/stat-words.js'

const none = { seconds: 0, nanoseconds: 0 }
const attributes: Attributes = {
  ...{ ino: 7, sizeBytes: 0, blocks: 0, atime: none, mtime: none, ctime: none },
  ...{ mode: 0o100644, nlink: 1, uid: 0, gid: 0, rdev: 0, blksize: 4096 },
}
const at = (words: Uint32Array, index: number) => words[index]! + words[index + 1]! * 2 ** 32

t.test('inode numbers are folded to 32 bits, the same one always, and never to 0', async t => {
  t.equal(foldIno(1), 1)
  t.equal(foldIno(123_456), 123_456)
  t.equal(foldIno(2 ** 32 + 1), 2 ** 32 - 1, 'what would be 0')
  const inos = Array.from({ length: 10_000 }, (_, i) => 2 ** 52 + i * 449_999_983)
  const folded = inos.map(foldIno)
  t.ok(folded.every(ino => Number.isInteger(ino) && ino > 0 && ino < 2 ** 32))
  t.ok(new Set(folded).size > 9_990, 'hardly ever twice')
})

t.test('sizes have 64 bits, and no links are 0 links', async t => {
  const words = statWords({ ...attributes, sizeBytes: 5 * 2 ** 40 + 3, blocks: 10 * 2 ** 31, nlink: 0 })
  t.equal(at(words, 3), 5 * 2 ** 40 + 3)
  t.equal(at(words, 10), 10 * 2 ** 31)
  t.equal(words[6], 0)
})

t.test('times are milliseconds from 1970 on', async t => {
  const words = statWords({
    ...attributes,
    atime: { seconds: 1_600_000_000, nanoseconds: 123_999_999 },
    mtime: { seconds: -5, nanoseconds: 0 },
    ctime: { seconds: 2 ** 33, nanoseconds: 0 },
  })
  t.equal(at(words, 12), 1_600_000_000_123)
  t.equal(at(words, 14), 0)
  t.equal(at(words, 16), 2 ** 33 * 1000)
})

t.test('a disk that has too many blocks for 32 bits has larger ones', async t => {
  const disk = {
    blocks: 2 ** 34,
    blocksFree: 2 ** 33,
    blocksAvailable: 2 ** 33,
    files: 2 ** 40,
    filesFree: 5,
    blockSizeBytes: 4096,
    nameMaxBytes: 255,
  }
  const words = statfsWords(disk)
  for (const value of Object.values(words)) t.ok(value < 2 ** 32)
  t.equal(words.blocks! * words.frsize!, disk.blocks * disk.blockSizeBytes)
  t.equal(words.bavail! * words.frsize!, disk.blocksAvailable * disk.blockSizeBytes)
  t.equal(words.ffree, 5)
})
