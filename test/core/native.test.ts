import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import {
  addon,
  copyFileRange,
  fallocate,
  flock,
  lseek,
  NativeError,
  packageRoot,
  reflink,
  SEEK_DATA,
  SEEK_HOLE,
} from '../../src/core/native.js'

const base = mkdtempSync(join(tmpdir(), 'cidfs-native-'))
t.teardown(() => rmSync(base, { recursive: true }))

function temporaryFile(t: { teardown(fn: () => void): void }, name: string, content = ''): number {
  writeFileSync(join(base, name), content)
  const fd = openSync(join(base, name), 'r+')
  t.teardown(() => closeSync(fd))
  return fd
}

t.test('the package is found from wherever it was compiled to', async t => {
  t.equal(JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')).name, 'cidfs')
})

t.test('a lock is exclusive until its descriptor is closed', async t => {
  writeFileSync(join(base, 'lock'), '')
  const [one, two] = [openSync(join(base, 'lock'), 'r'), openSync(join(base, 'lock'), 'r')]
  t.equal(flock(one), true)
  t.equal(flock(two), false)
  closeSync(one)
  t.equal(flock(two), true)
  closeSync(two)
})

t.test('ranges are copied between files, up to the end of the input', async t => {
  const from = temporaryFile(t, 'from', '0123456789')
  const to = temporaryFile(t, 'to', 'abc')
  t.equal(copyFileRange(from, 7, to, 2, 1000), 3)
  t.equal(readFileSync(join(base, 'to'), 'utf8'), 'ab789')
  t.equal(copyFileRange(from, 10, to, 0, 1000), 0)
})

t.test('a reflink is a copy, or is refused without an error', async t => {
  const from = temporaryFile(t, 'clone-from', 'content')
  const to = temporaryFile(t, 'clone-to')
  const cloned = reflink(from, to)
  t.equal(readFileSync(join(base, 'clone-to'), 'utf8'), cloned ? 'content' : '')
})

t.test('space is allocated, data and holes are found, beyond 4 GiB too', async t => {
  const fd = temporaryFile(t, 'sparse')
  fallocate(fd, 0, 0, 8192)
  t.equal(fstatSync(fd).size, 8192)
  const far = 5 * 2 ** 30
  writeSync(fd, 'x', far)
  t.equal(lseek(fd, 65_536, SEEK_DATA), far)
  t.equal(lseek(fd, far, SEEK_HOLE), far + 1)
})

t.test('failures say what failed', async t => {
  const fd = temporaryFile(t, 'empty')
  const expected = { name: 'NativeError', code: 'ENXIO', syscall: 'lseek', message: 'ENXIO: lseek' }
  t.throws(() => lseek(fd, 5, SEEK_DATA), expected)
  t.throws(() => flock(9999), { code: 'EBADF' })
  t.throws(() => reflink(9999, fd), { code: 'EBADF' })
  t.throws(() => fallocate(fd, 0, 0, -1), NativeError)
})

t.test('wrong arguments are exceptions, not crashes', async t => {
  const binding = addon() as unknown as Record<string, (...args: unknown[]) => unknown>
  for (const [name, call] of Object.entries(binding)) {
    if (name === 'socketPair') continue
    t.throws(() => call(), `${name} without arguments`)
    t.throws(() => call({}, {}, {}, {}, {}, {}), `${name} with objects`)
  }
  t.equal(binding.mount!('cidfs', join(base, 'none'), 'fuse.cidfs', 0, ''), -2)
  t.throws(() => binding.mount!('cidfs', 'x'.repeat(5000), 'fuse.cidfs', 0, ''), { name: 'RangeError' })
})
