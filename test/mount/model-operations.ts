/**
 * What the model test does: operations of model.py with their arguments, and sequences that once failed.
 *
 * Few names, few descriptors and sizes around the boundaries of pages, of small files and of chunks, so that
 * operations meet each other.
 */
import { constants } from 'node:fs'
import fc from 'fast-check'
import { isNative } from '../support/transport.js'

/** Name of a method of model.py, then its arguments. */
export type Operation = readonly [string, ...(string | number)[]]

const { O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY } = constants

const FALLOC_KEEP_SIZE = 1
const FALLOC_PUNCH_HOLE = 2
const FALLOC_ZERO_RANGE = 0x10
const SEEK_END = 2

const name = fc.constantFrom('a', 'b', 'd', 'e')
const path = fc
  .tuple(fc.constantFrom('', '', '', 'd/', 'd/', 'e/', 'd/e/', 'e/d/', 'a/'), name)
  .map(parts => parts.join(''))
const slot = fc.integer({ min: 0, max: 2 })
const seed = fc.integer({ min: 0, max: 255 })
const size = fc.oneof(
  { arbitrary: fc.integer({ min: 0, max: 300 }), weight: 4 },
  { arbitrary: fc.constantFrom(4095, 4096, 4097, 65_535, 65_536, 65_537, 200_000), weight: 3 },
  { arbitrary: fc.constantFrom(1_048_575, 1_048_577, 1_500_000), weight: 1 },
)
/** Without the set-user-ID bit: where the kernel writes by itself, it goes whoever writes. */
const mode = fc.constantFrom(0o644, 0o600, 0o755, 0o000, 0o1777)
const oldTime = fc.integer({ min: 1, max: 1_400_000_000 })
const openFlags = fc
  .tuple(
    fc.constantFrom(O_RDONLY, O_WRONLY, O_RDWR, O_RDWR),
    fc.constantFrom(0, 0, O_APPEND),
    fc.constantFrom(0, O_CREAT, O_CREAT, O_CREAT | O_EXCL),
    fc.constantFrom(0, 0, O_TRUNC, O_NOFOLLOW, O_DIRECTORY),
  )
  // both at once is EINVAL or not, by the version of the kernel
  .map(([access, append, create, other]) => access | append | (other === O_DIRECTORY ? 0 : create) | other)
const fallocateMode = fc.constantFrom(
  0,
  FALLOC_KEEP_SIZE,
  FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE,
  FALLOC_ZERO_RANGE,
)

type Argument = fc.Arbitrary<string | number>

const of = (weight: number, operation: string, ...args: Argument[]) => ({
  arbitrary: fc.tuple(fc.constant(operation), ...args) as unknown as fc.Arbitrary<Operation>,
  weight,
})

/** Only where the transport has it. */
const native = <T>(operation: T): T[] => (isNative ? [operation] : [])

/** null: nothing, to which every operation shrinks. */
export const operations: fc.Arbitrary<Operation | null> = fc.option(
  fc.oneof(
    of(2, 'create', path, mode),
    of(6, 'write', path, fc.constantFrom('O_APPEND', 'O_TRUNC', 'O_EXCL', 'O_SYNC'), seed, size),
    of(4, 'read', path),
    of(3, 'truncate', path, size),
    of(6, 'rename', path, path),
    ...native(of(2, 'rename2', path, path, fc.constantFrom(1, 2))),
    of(4, 'unlink', path),
    of(5, 'mkdir', path, fc.constantFrom(0o755, 0o700, 0o2755)),
    of(3, 'rmdir', path),
    of(2, 'symlink', fc.constantFrom('a', 'b', '../a', 'nowhere', 'd/a'), path),
    of(1, 'readlink', path),
    of(2, 'chmod', path, mode),
    of(2, 'utimens', path, oldTime),
    of(1, 'lutimens', path, oldTime),
    of(2, 'stat', path),
    of(2, 'lstat', path),
    of(2, 'list', path),
    of(3, 'publish', path),
    of(10, 'open', slot, path, openFlags, mode),
    of(2, 'close_slot', slot),
    of(1, 'openat', slot, name, fc.constant(O_CREAT | O_RDWR), mode),
    of(4, 'pwrite', slot, size, seed, size),
    of(3, 'put', slot, seed, size),
    of(2, 'get', slot, size),
    of(3, 'pread', slot, size, size),
    of(1, 'seek', slot, size, fc.constantFrom(0, 1, SEEK_END)),
    of(3, 'ftruncate', slot, size),
    ...native(of(2, 'fallocate', slot, fallocateMode, size, size)),
    of(2, 'mapped', slot, size, seed, size),
    of(1, 'fsync', slot),
    of(2, 'fstat', slot),
    of(1, 'fchmod', slot, mode),
  ),
  { nil: null, freq: 1000 },
)

/** By what was wrong. */
export const REGRESSIONS: Record<string, Operation[]> = {
  'a file is written, published and appended to': [
    ['write', 'a', 'O_TRUNC', 1, 200_000],
    ['publish', 'a'],
    ['write', 'a', 'O_APPEND', 2, 300],
    ['read', 'a'],
  ],
  'a folder that is removed while open has no links': [
    ['open', 0, 'd/e', O_RDONLY, 0o644],
    ['rmdir', 'd/e'],
    ['fstat', 0],
    ['openat', 0, 'x', O_CREAT | O_RDWR, 0o644],
  ],
}
