/**
 * The only place that knows errno.
 *
 * Invariant: every `ErrorCode` has exactly one errno (the switch is exhaustive: a new code does not compile
 * without one). Node's own errors keep theirs.
 */
import { constants } from 'node:os'
import { CidfsError, type ErrorCode } from '../core/errors.js'

const E = constants.errno

/** Positive errno for anything thrown. Unforeseen errors are EIO. */
export function errnoOf(err: unknown): number {
  if (err instanceof CidfsError) return errnoOfCode(err.code)
  if (err instanceof Error && 'errno' in err && typeof err.errno === 'number') return Math.abs(err.errno)
  if (err instanceof Error && err.name === 'AbortError') return E.EINTR
  return E.EIO
}

function errnoOfCode(code: ErrorCode): number {
  switch (code) {
    case 'NOT_FOUND':
    case 'MALFORMED_CID':
      return E.ENOENT
    case 'EXISTS':
      return E.EEXIST
    case 'NOT_DIRECTORY':
      return E.ENOTDIR
    case 'IS_DIRECTORY':
      return E.EISDIR
    case 'NOT_EMPTY':
      return E.ENOTEMPTY
    case 'NAME_TOO_LONG':
      return E.ENAMETOOLONG
    case 'FILE_TOO_LARGE':
      return E.EFBIG
    case 'INVALID':
    case 'BAD_CAR':
    case 'BAD_CONFIG':
    case 'BAD_MOUNTPOINT':
      return E.EINVAL
    case 'CROSS_DEVICE':
      return E.EXDEV
    case 'NO_ATTRIBUTE':
      return E.ENODATA
    case 'NOT_SUPPORTED':
    case 'UNSUPPORTED_CODEC':
    case 'UNSUPPORTED_HASH':
      return E.EOPNOTSUPP
    case 'READ_ONLY':
      return E.EROFS
    case 'PERMISSION':
      return E.EPERM
    case 'BAD_HANDLE':
      return E.EBADF
    case 'STALE':
      return E.ESTALE
    case 'BUSY':
    case 'STATE_IN_USE':
      return E.EBUSY
    case 'RANGE':
      return E.ERANGE
    case 'INTERRUPTED':
      return E.EINTR
    case 'NO_SPACE':
      return E.ENOSPC
    case 'UNREACHABLE':
    case 'TIMEOUT':
    case 'BAD_BLOCK':
    case 'MALFORMED_DAG':
    case 'STORE_DAMAGED':
    case 'STATE_VERSION':
    case 'MISSING_TOOL':
    case 'NOT_RUNNING':
    case 'BACKEND':
    case 'IO':
      return E.EIO
  }
}
