/**
 * Typed errors of the domain.
 *
 * Invariant: everything below `src/fs` throws a `CidfsError` for what it foresees; only `src/fs/errno.ts`
 * turns a code into an errno and only `src/cli` turns one into an exit code.
 * Why: a layer that knows errno or exit codes cannot be used by another front end.
 */

/** Every code the program uses. `src/fs/errno.ts` switches over it exhaustively. */
export type ErrorCode =
  // names and arguments
  | 'NOT_FOUND'
  | 'MALFORMED_CID'
  | 'EXISTS'
  | 'NOT_DIRECTORY'
  | 'IS_DIRECTORY'
  | 'NOT_EMPTY'
  | 'NAME_TOO_LONG'
  | 'FILE_TOO_LARGE'
  | 'INVALID'
  | 'CROSS_DEVICE'
  | 'NO_ATTRIBUTE'
  | 'NOT_SUPPORTED'
  | 'READ_ONLY'
  | 'PERMISSION'
  | 'BAD_HANDLE'
  | 'STALE'
  | 'BUSY'
  | 'RANGE'
  // content
  | 'UNREACHABLE'
  | 'TIMEOUT'
  | 'BAD_BLOCK'
  | 'MALFORMED_DAG'
  | 'UNSUPPORTED_CODEC'
  | 'UNSUPPORTED_HASH'
  | 'INTERRUPTED'
  // state and environment
  | 'NO_SPACE'
  | 'STORE_DAMAGED'
  | 'STATE_IN_USE'
  | 'STATE_VERSION'
  | 'BAD_CAR'
  | 'BAD_CONFIG'
  | 'BAD_MOUNTPOINT'
  | 'MISSING_TOOL'
  | 'NOT_RUNNING'
  | 'BACKEND'
  | 'IO'

/** Context of an error, in the manner of Node's own: what it was about and which call met it. */
export interface ErrorDetails {
  cid?: string
  path?: string
  syscall?: string
  cause?: unknown
}

export class CidfsError extends Error {
  readonly code: ErrorCode
  readonly cid: string | undefined
  readonly path: string | undefined
  readonly syscall: string | undefined

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.name = 'CidfsError'
    this.code = code
    this.cid = details.cid
    this.path = details.path
    this.syscall = details.syscall
  }
}

/** The code of a `CidfsError`, undefined for anything else. */
export function codeOf(err: unknown): ErrorCode | undefined {
  return err instanceof CidfsError ? err.code : undefined
}

/** A message fit for one line on standard error. */
export function messageOf(err: unknown): string {
  return err instanceof Error ? err.message : String(err)
}
