/**
 * Mounting, unmounting, and cleaning up after a daemon that died.
 *
 * Invariant: a mount that is alive is never touched by a call that could wait for its daemon, which may be this
 * process. Root calls mount(2) and umount2(2) itself, everybody else asks fusermount3.
 *
 * Reference: mount(8) "fuse", Documentation/filesystems/fuse.rst
 */
import { accessSync, closeSync, constants, openSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { constants as os } from 'node:os'
import { CidfsError, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { addon, NativeError } from '../core/native.js'
import { fusermount, fuserunmount } from './fusermount.js'
import { runHelper } from './helper-program.js'
import { FS_TYPE, mountAt, resolveMountpoint } from './mount-table.js'

const log = logger('fuse:mount')

const DEVICE = '/dev/fuse'
/** What mount(8) shows as the device. */
export const SOURCE = 'cidfs'
const PROBE_TIMEOUT_MS = 2000
const MS_NOSUID = 2
const MS_NODEV = 4
const MNT_DETACH = 2
const UMOUNT_NOFOLLOW = 8

export interface MountOptions {
  /** Users other than the one who mounts may use it too. */
  allowOther?: boolean
}

function isRoot(): boolean {
  return process.geteuid?.() === 0
}

/**
 * Mounts on a directory; a dead mount of ours on it is removed first.
 * @returns the descriptor of the connection and the resolved path. No request was answered yet.
 * @throws CidfsError `BAD_MOUNTPOINT`, `MISSING_TOOL`, `PERMISSION`.
 */
export async function mount(
  dir: string,
  options: MountOptions = {},
): Promise<{ fd: number; mountpoint: string }> {
  const mountpoint = await prepareMountpoint(dir)
  const fd = isRoot() ? mountAsRoot(mountpoint, options) : await mountAsUser(mountpoint, options)
  return { fd, mountpoint }
}

/**
 * The resolved path of a directory on which can be mounted; a dead mount of ours is gone from it.
 * @throws CidfsError `BAD_MOUNTPOINT`, `MISSING_TOOL`, `PERMISSION`.
 */
export async function prepareMountpoint(dir: string): Promise<string> {
  const mountpoint = resolveMountpoint(dir)
  await clearStaleMount(mountpoint)
  checkMountpoint(mountpoint)
  checkDevice()
  return mountpoint
}

/** @throws CidfsError `BAD_MOUNTPOINT`. */
function checkMountpoint(dir: string): void {
  const refuse = (why: string) =>
    new CidfsError('BAD_MOUNTPOINT', `the mountpoint ${dir} ${why}`, { path: dir })
  const mounted = mountAt(dir)
  if (mounted?.type === FS_TYPE) throw refuse('is already mounted: cidfs unmount it first')
  if (mounted?.type.startsWith('fuse')) throw refuse(`is already mounted (${mounted.type})`)
  if (!statSync(dir).isDirectory()) throw refuse('is not a directory')
  if (listing(dir, refuse).length > 0) throw refuse('is not empty')
}

function listing(dir: string, refuse: (why: string) => CidfsError): string[] {
  try {
    return readdirSync(dir)
  } catch (err) {
    throw refuse(`cannot be listed: ${messageOf(err)}`)
  }
}

/** @throws CidfsError `MISSING_TOOL` that says what to do. */
export function checkDevice(): void {
  try {
    accessSync(DEVICE, constants.R_OK | constants.W_OK)
  } catch (cause) {
    throw deviceError(cause)
  }
}

function deviceError(cause: unknown): CidfsError {
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
  const forbidden = code === 'EACCES' || code === 'EPERM'
  const advice = forbidden
    ? `no permission for ${DEVICE}: chmod 666 ${DEVICE} as root, or give the container the device`
    : `${DEVICE} is missing or dead: modprobe fuse as root, or give the container --device ${DEVICE}`
  return new CidfsError('MISSING_TOOL', advice, { path: DEVICE, cause })
}

function openDevice(): number {
  try {
    return openSync(DEVICE, 'r+')
  } catch (cause) {
    throw deviceError(cause)
  }
}

function mountAsRoot(dir: string, { allowOther }: MountOptions): number {
  const fd = openDevice()
  const options = [`fd=${fd}`, 'rootmode=40000', 'user_id=0', 'group_id=0', 'default_permissions']
  if (allowOther) options.push('allow_other')
  const result = addon().mount(SOURCE, dir, FS_TYPE, MS_NOSUID | MS_NODEV, options.join(','))
  if (result === 0) return fd
  closeSync(fd)
  throw mountError(dir, new NativeError(result, 'mount'))
}

function mountError(dir: string, cause: NativeError): CidfsError {
  if (cause.code === 'EPERM') {
    return new CidfsError('PERMISSION', 'mounting is not permitted here: CAP_SYS_ADMIN is missing', { cause })
  }
  if (cause.code === 'ENODEV') {
    return new CidfsError('MISSING_TOOL', 'the kernel has no FUSE: modprobe fuse as root', { cause })
  }
  return new CidfsError('BAD_MOUNTPOINT', `cannot mount on ${dir}: ${cause.code}`, { path: dir, cause })
}

function mountAsUser(dir: string, { allowOther }: MountOptions): Promise<number> {
  const options = ['default_permissions', `fsname=${SOURCE}`, `subtype=${FS_TYPE.replace('fuse.', '')}`]
  if (allowOther) options.push('allow_other')
  return fusermount(dir, options)
}

/**
 * Unmounts a directory given by its resolved path. With `lazy` it vanishes from the tree at once and ends when its
 * last file is closed.
 * @throws CidfsError `BUSY` (never with `lazy`), `BAD_MOUNTPOINT` when nothing is mounted, `PERMISSION`.
 */
export async function unmount(mountpoint: string, { lazy = false } = {}): Promise<void> {
  if (!isRoot()) return fuserunmount(mountpoint, lazy)
  const result = await addon().umount(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0))
  if (result === 0) return
  const cause = new NativeError(result, 'umount')
  const details = { path: mountpoint, syscall: 'umount', cause }
  if (result === -os.errno.EBUSY)
    throw new CidfsError('BUSY', `cannot unmount ${mountpoint}: files are open`, details)
  if (result === -os.errno.EPERM) throw new CidfsError('PERMISSION', `may not unmount ${mountpoint}`, details)
  throw new CidfsError('BAD_MOUNTPOINT', `cannot unmount ${mountpoint}: ${cause.code}`, details)
}

/**
 * Removes mounts of ours on `dir` whose daemon is gone (also several, one above the other).
 * @returns whether there was one. False, and nothing is touched, when a live daemon or somebody else mounts there.
 * @throws CidfsError `MISSING_TOOL`, `PERMISSION` when it cannot be removed.
 */
export async function clearStaleMount(dir: string): Promise<boolean> {
  const mountpoint = resolveMountpoint(dir)
  let cleared = false
  while (mountAt(mountpoint)?.type === FS_TYPE && (await isDead(mountpoint))) {
    log('%s: removing a mount whose daemon is gone', mountpoint)
    await unmount(mountpoint, { lazy: true })
    cleared = true
  }
  return cleared
}

/**
 * Whether statfs(2), which always asks the daemon, says ENOTCONN at once. A child asks, because a daemon that
 * hangs would hold the asking thread for good; a child can be killed.
 */
async function isDead(mountpoint: string): Promise<boolean> {
  try {
    const { stderr } = await runHelper('stat', ['-f', '--', mountpoint], { timeoutMs: PROBE_TIMEOUT_MS })
    return /Transport endpoint is not connected/.test(stderr)
  } catch (cause) {
    throw new CidfsError('MISSING_TOOL', 'stat does not start: apt-get install coreutils', { cause })
  }
}

/**
 * Raises the kernel's read-ahead for a mount (it starts with 128 KiB), after FUSE_INIT.
 * @returns whether that was permitted.
 */
export function raiseReadAhead(mountpoint: string, kib: number): boolean {
  const entry = mountAt(mountpoint)
  if (entry?.type !== FS_TYPE) return false
  try {
    writeFileSync(`/sys/class/bdi/${entry.device}/read_ahead_kb`, String(kib))
    return true
  } catch (err) {
    log('read-ahead stays as it is: %s', messageOf(err))
    return false
  }
}
