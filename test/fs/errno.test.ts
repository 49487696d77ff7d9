/** Domain errors as the kernel hears of them. */
import { statfs } from 'node:fs/promises'
import { constants } from 'node:os'
import t from 'tap'
import { CidfsError, type ErrorCode } from '../../src/core/errors.js'
import { errnoOf } from '../../src/fs/errno.js'

/** The compiler sees to it that none is missing. */
const EXPECTED: Record<ErrorCode, keyof typeof constants.errno> = {
  NOT_FOUND: 'ENOENT',
  MALFORMED_CID: 'ENOENT',
  EXISTS: 'EEXIST',
  NOT_DIRECTORY: 'ENOTDIR',
  IS_DIRECTORY: 'EISDIR',
  NOT_EMPTY: 'ENOTEMPTY',
  NAME_TOO_LONG: 'ENAMETOOLONG',
  FILE_TOO_LARGE: 'EFBIG',
  INVALID: 'EINVAL',
  CROSS_DEVICE: 'EXDEV',
  NO_ATTRIBUTE: 'ENODATA',
  NOT_SUPPORTED: 'EOPNOTSUPP',
  READ_ONLY: 'EROFS',
  PERMISSION: 'EPERM',
  BAD_HANDLE: 'EBADF',
  STALE: 'ESTALE',
  BUSY: 'EBUSY',
  RANGE: 'ERANGE',
  UNREACHABLE: 'EIO',
  TIMEOUT: 'EIO',
  BAD_BLOCK: 'EIO',
  MALFORMED_DAG: 'EIO',
  UNSUPPORTED_CODEC: 'EOPNOTSUPP',
  UNSUPPORTED_HASH: 'EOPNOTSUPP',
  INTERRUPTED: 'EINTR',
  NO_SPACE: 'ENOSPC',
  STORE_DAMAGED: 'EIO',
  STATE_IN_USE: 'EBUSY',
  STATE_VERSION: 'EIO',
  BAD_CAR: 'EINVAL',
  BAD_CONFIG: 'EINVAL',
  BAD_MOUNTPOINT: 'EINVAL',
  MISSING_TOOL: 'EIO',
  NOT_RUNNING: 'EIO',
  BACKEND: 'EIO',
  IO: 'EIO',
}

t.test('every code has its errno', async t => {
  for (const [code, name] of Object.entries(EXPECTED)) {
    t.equal(errnoOf(new CidfsError(code as ErrorCode, 'x')), constants.errno[name], `${code}: ${name}`)
  }
})

t.test('no code is answered with ENOSYS, which the kernel would remember', async t => {
  for (const code of Object.keys(EXPECTED)) {
    t.not(errnoOf(new CidfsError(code as ErrorCode, 'x')), constants.errno.ENOSYS, code)
  }
})

t.test("Node's own errors keep theirs", async t => {
  const missing = await statfs('/nowhere/at/all').catch((err: unknown) => err)
  t.equal(errnoOf(missing), constants.errno.ENOENT)
  t.equal(errnoOf(Object.assign(new Error('x'), { errno: -28 })), constants.errno.ENOSPC)
})

t.test('an abort is EINTR, and what nobody foresaw is EIO', async t => {
  t.equal(errnoOf(AbortSignal.abort().reason), constants.errno.EINTR)
  for (const thrown of [new TypeError('bug'), 'text', undefined, null, 42]) {
    t.equal(errnoOf(thrown), constants.errno.EIO, String(thrown))
  }
})
