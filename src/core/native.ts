/**
 * The addon of `native/`, loaded once.
 *
 * Invariant: this is the only module that knows where the compiled addon lies. Arguments are validated by the
 * TypeScript callers; the addon only does what JavaScript cannot. Failures throw `NativeError`, which carries
 * a negative `errno`, `code` and `syscall` like Node's own.
 */
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { getSystemErrorName } from 'node:util'
import { CidfsError, messageOf } from './errors.js'

const E = constants.errno

/** A system call made by the addon failed. */
export class NativeError extends Error {
  /** Negative, as libuv has it. */
  readonly errno: number
  readonly code: string
  readonly syscall: string

  constructor(errno: number, syscall: string) {
    const code = getSystemErrorName(errno)
    super(`${code}: ${syscall}`)
    this.name = 'NativeError'
    this.errno = errno
    this.code = code
    this.syscall = syscall
  }
}

declare const channelBrand: unique symbol
/** One open FUSE connection inside the addon. */
export type ChannelHandle = { readonly [channelBrand]: true }

/** What the addon exports. Numbers below zero are negative errno. */
export interface NativeBinding {
  flock(fd: number): number
  copyFileRange(inFd: number, inOffset: number, outFd: number, outOffset: number, length: number): number
  reflink(srcFd: number, dstFd: number): number
  fallocate(fd: number, mode: number, offset: number, length: number): number
  lseek(fd: number, offset: number, whence: number): number
  hasWriters(fd: number): number

  mount(source: string, dir: string, type: string, flags: number, options: string): number
  umount(dir: string, flags: number): Promise<number>
  socketPair(): [number, number] | number
  receiveFd(socket: number): number

  /** Sends a datagram of sd_notify(3), with the descriptor `fd` if that is not negative. */
  notify(address: Uint8Array, message: Uint8Array, fd: number): number
  /** 1 when poll(2) says that nothing will come of `fd` any more. */
  hasEnded(fd: number): number

  /**
   * Takes `fd` over, in success and afterwards. `input` receives requests, replies are taken from `output`.
   * `onReadable` is called while there is something to read, `onDone` for each job of `channelReplyRanges`
   * that was left to the pool, `onClosed` once, when no thread and no handle of the channel is left.
   */
  channelOpen(
    fd: number,
    input: Uint8Array,
    output: Uint8Array,
    onReadable: () => void,
    onDone: (job: number, result: number) => void,
    onClosed: () => void,
  ): ChannelHandle | number
  /** Whether `onReadable` is called at all. */
  channelPoll(channel: ChannelHandle, enabled: boolean): number
  /** `onReadable` is called when the connection has ended, and not for requests. */
  channelAwaitEnd(channel: ChannelHandle): number
  /** Another descriptor of the connection that `fd` is open on. */
  connectionClone(fd: number): number
  /** Bytes of the next request in `input`, 0 when there is none. */
  channelRead(channel: ChannelHandle): number
  /** Writes the first `length` bytes of `output`, then `payload`. */
  channelReply(channel: ChannelHandle, length: number, payload: Uint8Array | undefined): number
  /**
   * Writes the first 16 bytes of `output` and the bytes of `count` ranges, each (fd, offset, length) in `ranges`.
   * 1: answered; 0: left to the pool, `onDone` follows with `job`; a negative errno: not answered.
   */
  channelReplyRanges(channel: ChannelHandle, ranges: Float64Array, count: number, job: number): number
  /** Queues a complete notification for the notifying thread. */
  channelNotify(channel: ChannelHandle, message: Uint8Array): number
  /** FUSE_DEV_IOC_BACKING_OPEN: an id above 0 for the file `fd`. -EPERM without CAP_SYS_ADMIN. */
  channelBackingOpen(channel: ChannelHandle, fd: number): number
  /** FUSE_DEV_IOC_BACKING_CLOSE */
  channelBackingClose(channel: ChannelHandle, id: number): number
  /** Ends everything; `onClosed` follows. `impatient`: blocked threads are left behind. May be called again. */
  channelClose(channel: ChannelHandle, impatient: boolean): void
}

let loaded: NativeBinding | undefined

/**
 * The addon itself, for `src/fuse`; everybody else uses the file functions below.
 * @throws CidfsError `MISSING_TOOL` when it was not built or was built for another Node.
 */
export function addon(): NativeBinding {
  return (loaded ??= load())
}

function load(): NativeBinding {
  const file = join(packageRoot(), 'build', 'cidfs.node')
  if (!existsSync(file)) throw new CidfsError('MISSING_TOOL', `the addon is not built: run \`npm run build\``)
  try {
    return createRequire(import.meta.url)(file) as NativeBinding
  } catch (cause) {
    const message = `the addon does not load (${messageOf(cause)}): run \`npm run build\``
    throw new CidfsError('MISSING_TOOL', message, { path: file, cause })
  }
}

/**
 * The directory of this package's package.json, wherever the compiled files lie in it.
 * @throws CidfsError `MISSING_TOOL` when there is none.
 */
export function packageRoot(): string {
  let dir = dirname(fileURLToPath(import.meta.url))
  while (!isPackageRoot(dir)) {
    const parent = dirname(dir)
    if (parent === dir)
      throw new CidfsError('MISSING_TOOL', 'cidfs is not installed: its package.json is missing')
    dir = parent
  }
  return dir
}

function isPackageRoot(dir: string): boolean {
  const file = join(dir, 'package.json')
  if (!existsSync(file)) return false
  const { name } = JSON.parse(readFileSync(file, 'utf8')) as { name?: unknown }
  return name === 'cidfs'
}

/** `result`, unless it is a negative errno. */
export function checkResult(result: number, syscall: string): number {
  if (result < 0) throw new NativeError(result, syscall)
  return result
}

/** Whether an exclusive lock was taken, without waiting; it lasts until `fd` is closed. @throws NativeError. */
export function flock(fd: number): boolean {
  const result = addon().flock(fd)
  return result !== -E.EWOULDBLOCK && checkResult(result, 'flock') === 0
}

/** Bytes copied inside the kernel, possibly fewer than `length`, 0 at the end of the input. @throws NativeError. */
export function copyFileRange(
  inFd: number,
  inOffset: number,
  outFd: number,
  outOffset: number,
  length: number,
): number {
  return checkResult(addon().copyFileRange(inFd, inOffset, outFd, outOffset, length), 'copy_file_range')
}

const REFLINK_UNSUPPORTED = [E.EOPNOTSUPP, E.EXDEV, E.EINVAL, E.ENOTTY, E.ENOSYS]

/** Makes `dstFd` a copy that shares the extents of `srcFd` (FICLONE); false where the file system cannot. */
export function reflink(srcFd: number, dstFd: number): boolean {
  const result = addon().reflink(srcFd, dstFd)
  return !REFLINK_UNSUPPORTED.includes(-result) && checkResult(result, 'ioctl_ficlone') === 0
}

/** fallocate(2); `mode` is a combination of FALLOC_FL_*. @throws NativeError. */
export function fallocate(fd: number, mode: number, offset: number, length: number): void {
  checkResult(addon().fallocate(fd, mode, offset, length), 'fallocate')
}

export const SEEK_DATA = 3
export const SEEK_HOLE = 4

/** The offset of the next data or hole at or behind `offset` (it also moves the offset of `fd`). @throws NativeError. */
export function lseek(fd: number, offset: number, whence: number): number {
  return checkResult(addon().lseek(fd, offset, whence), 'lseek')
}

/** Whether any program may still write to the file that `fd` is open on for reading; true where nobody can tell. */
export function hasWriters(fd: number): boolean {
  return addon().hasWriters(fd) !== 0
}

/** The file functions under one name. */
export const native = { flock, copyFileRange, reflink, fallocate, lseek, hasWriters } as const
