/**
 * Mounting and unmounting as an ordinary user, through the set-user-id helper fusermount3.
 *
 * Invariant: the helper runs with a time limit and the C locale, and no descriptor of the exchange is left open.
 * On mount it opens /dev/fuse, calls mount(2) and sends the descriptor back over a socket; on unmount it checks
 * that the mount belongs to the caller.
 *
 * Reference: fusermount3(1); the variable _FUSE_COMMFD of libfuse
 */
import { closeSync } from 'node:fs'
import { CidfsError, messageOf } from '../core/errors.js'
import { addon, checkResult, NativeError } from '../core/native.js'
import { runHelper } from './helper-program.js'

const COMMAND = 'fusermount3'
const TIMEOUT_MS = 30_000
/** Where the child finds the socket. */
const SOCKET_FD = 3

/** Runs the helper with `socket`, if any, as descriptor 3. @throws CidfsError `MISSING_TOOL`. */
async function run(args: string[], socket?: number): Promise<{ status: number | null; message: string }> {
  const env = { _FUSE_COMMFD: String(SOCKET_FD) }
  const descriptor = socket === undefined ? {} : { descriptor: socket }
  try {
    const { status, stderr } = await runHelper(COMMAND, args, { timeoutMs: TIMEOUT_MS, env, ...descriptor })
    return { status, message: firstLine(stderr) }
  } catch (cause) {
    throw missing(cause)
  }
}

function missing(cause: unknown): CidfsError {
  const absent = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT'
  const why = absent ? 'is not installed' : `does not start (${messageOf(cause)})`
  const advice = 'mounting as an ordinary user needs it: apt-get install fuse3'
  return new CidfsError('MISSING_TOOL', `${COMMAND} ${why}; ${advice}`, { cause })
}

function firstLine(text: string): string {
  const [line = ''] = text.trim().split('\n')
  return line.replace(/^\S*fusermount3?: /, '') || 'no reason given'
}

/** That the helper can be started. @throws CidfsError `MISSING_TOOL` that says what to do. */
export async function checkFusermount(): Promise<void> {
  await run(['--version'])
}

/**
 * Mounts on `dir` with mount options of fusermount3(1); returns the descriptor of /dev/fuse.
 * @throws CidfsError `MISSING_TOOL`, `BAD_MOUNTPOINT` with the helper's own words.
 */
export async function fusermount(dir: string, options: string[]): Promise<number> {
  const pair = addon().socketPair()
  if (typeof pair === 'number') throw new NativeError(pair, 'socketpair')
  const [ours, theirs] = pair
  try {
    const { status, message } = await run(['-o', options.join(','), '--', dir], theirs)
    if (status !== 0) {
      throw new CidfsError('BAD_MOUNTPOINT', `${COMMAND} refuses to mount on ${dir}: ${message}`, {
        path: dir,
      })
    }
    return checkResult(addon().receiveFd(ours), 'recvmsg')
  } finally {
    closeSync(ours)
    closeSync(theirs)
  }
}

/**
 * Unmounts; with `lazy` also while files are open.
 * @throws CidfsError `BUSY`, `MISSING_TOOL`, `PERMISSION` with the helper's own words.
 */
export async function fuserunmount(dir: string, lazy: boolean): Promise<void> {
  const { status, message } = await run(['-u', ...(lazy ? ['-z'] : []), '--', dir])
  if (status === 0) return
  const [code, why] = /busy/i.test(message)
    ? (['BUSY', 'files are open'] as const)
    : (['PERMISSION', message] as const)
  throw new CidfsError(code, `cannot unmount ${dir}: ${why}`, { path: dir, syscall: 'umount' })
}
