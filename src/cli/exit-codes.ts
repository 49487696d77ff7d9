/**
 * What the commands' exit codes mean. `cidfs --help` prints this table.
 *
 * Invariant: codes are part of the interface: they keep their meaning, new ones are added at the end.
 */
import { CommanderError } from 'commander'
import { codeOf, type ErrorCode } from '../core/errors.js'

export const EXIT = {
  OK: 0,
  FAILED: 1,
  USAGE: 2,
  NOT_RUNNING: 3,
  ENVIRONMENT: 4,
  STATE: 5,
  UNAVAILABLE: 6,
  BAD_DATA: 7,
  INTERRUPTED: 130,
} as const

export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

/** For the help text. */
export const EXIT_CODE_TABLE: readonly [ExitCode, string][] = [
  [EXIT.OK, 'done'],
  [EXIT.FAILED, 'failed, or the answer is no'],
  [EXIT.USAGE, 'wrong command line, configuration, mountpoint or CID'],
  [EXIT.NOT_RUNNING, 'no daemon serves that, nothing is mounted there'],
  [EXIT.ENVIRONMENT, 'this machine lacks something (FUSE, a tool, a permission, space)'],
  [EXIT.STATE, 'the state directory is in use, or of a newer version'],
  [EXIT.UNAVAILABLE, 'content could not be reached in time'],
  [EXIT.BAD_DATA, 'data is damaged or not what it should be (a CAR, a block, the store)'],
  [EXIT.INTERRUPTED, 'interrupted'],
]

const EXIT_OF: Record<ErrorCode, ExitCode> = {
  NOT_FOUND: EXIT.FAILED,
  MALFORMED_CID: EXIT.USAGE,
  EXISTS: EXIT.FAILED,
  NOT_DIRECTORY: EXIT.FAILED,
  IS_DIRECTORY: EXIT.FAILED,
  NOT_EMPTY: EXIT.FAILED,
  NAME_TOO_LONG: EXIT.FAILED,
  FILE_TOO_LARGE: EXIT.FAILED,
  INVALID: EXIT.USAGE,
  CROSS_DEVICE: EXIT.FAILED,
  NO_ATTRIBUTE: EXIT.FAILED,
  NOT_SUPPORTED: EXIT.FAILED,
  READ_ONLY: EXIT.FAILED,
  PERMISSION: EXIT.ENVIRONMENT,
  BAD_HANDLE: EXIT.FAILED,
  STALE: EXIT.FAILED,
  BUSY: EXIT.FAILED,
  RANGE: EXIT.FAILED,
  UNREACHABLE: EXIT.UNAVAILABLE,
  TIMEOUT: EXIT.UNAVAILABLE,
  BAD_BLOCK: EXIT.BAD_DATA,
  MALFORMED_DAG: EXIT.BAD_DATA,
  UNSUPPORTED_CODEC: EXIT.FAILED,
  UNSUPPORTED_HASH: EXIT.FAILED,
  INTERRUPTED: EXIT.INTERRUPTED,
  NO_SPACE: EXIT.ENVIRONMENT,
  STORE_DAMAGED: EXIT.BAD_DATA,
  STATE_IN_USE: EXIT.STATE,
  STATE_VERSION: EXIT.STATE,
  BAD_CAR: EXIT.BAD_DATA,
  BAD_CONFIG: EXIT.USAGE,
  BAD_MOUNTPOINT: EXIT.USAGE,
  MISSING_TOOL: EXIT.ENVIRONMENT,
  NOT_RUNNING: EXIT.NOT_RUNNING,
  BACKEND: EXIT.FAILED,
  IO: EXIT.FAILED,
}

/** The exit code that an error asks for. */
export function exitCodeOf(err: unknown): ExitCode {
  if (err instanceof CommanderError) return err.exitCode === 0 ? EXIT.OK : EXIT.USAGE
  const code = codeOf(err)
  return code === undefined ? EXIT.FAILED : EXIT_OF[code]
}
