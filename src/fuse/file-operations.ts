/**
 * Operations on open files, and those that open them.
 *
 * Invariant: with HANDLE_KILLPRIV_V2 the kernel leaves it to us to take suid and sgid off a file that is written
 * or truncated; the file system learns it as a `setattr` of nothing else, before the write and after the open.
 *
 * Reference: include/uapi/linux/fuse.h; numbers in the comments are byte offsets
 */
import { constants } from 'node:fs'
import { isPromise, type MaybePromise, then } from '../core/maybe-promise.js'
import type { Entry, Fh, Ino, Opened, ReadResult } from '../fs/file-system.js'
import { FSYNC_FDATASYNC, MAX_IO_BYTES, OPEN_KILL_SUIDGID, WRITE_KILL_SUIDGID } from './abi.js'
import { NO_BACKING } from './backing-files.js'
import { type Handler, type Host, voidHandler } from './operation.js'
import type { Arguments, Request } from './request.js'

/** A file as it was opened, and what its reply says of it. */
interface OpenedFile {
  ino: Ino
  opened: Opened
  /** The kernel's. */
  handle: Fh
  backingId: number
}

/** struct fuse_open_in: flags 0, open_flags 4. */
export const open: Handler<OpenedFile> = {
  run(host, args, request) {
    const flags = args.u32(0)
    const kill = (args.u32(4) & OPEN_KILL_SUIDGID) !== 0 && (flags & constants.O_TRUNC) !== 0
    const opened = host.fs.open(request.ino, flags, request)
    const killed = kill ? then(opened, value => killAfterOpen(host, request, value, flags)) : opened
    return then(killed, value => openedFile(host, request, request.ino, value, flags))
  },
  encode(reply, { opened, handle, backingId }) {
    reply.opened({ ...opened, fh: handle }, backingId)
    return undefined
  },
  undo: (host, { handle }) => releaseHandle(host, handle),
}

/** What an earlier daemon opened for the same request goes only now: the file stays open in between. */
function openedFile(host: Host, request: Request, ino: Ino, opened: Opened, flags: number): OpenedFile {
  const backingId = host.backing.opened(ino, opened.passthrough)
  const token = backingId === NO_BACKING ? 0 : (opened.passthrough?.token ?? 0)
  const handle = host.handles.opened({ ino, fh: opened.fh, flags, requestId: request.id, backingId, token })
  const before = request.repeated ? host.handles.repeated(request.id) : undefined
  if (before !== undefined) void releaseHandle(host, before)
  return { ino, opened, handle, backingId }
}

function releaseHandle(host: Host, handle: Fh): MaybePromise<void> {
  const file = host.handles.released(handle)
  if (file === undefined) return
  host.backing.released(file.ino)
  return host.fs.release(file.ino, file.fh, file.flags)
}

/** The file system's handle for the one at `at` of the arguments. */
function fileHandle(host: Host, args: Arguments, at: number): Fh {
  return host.handles.fh(args.u64(at))
}

function killAfterOpen(host: Host, request: Request, opened: Opened, flags: number): MaybePromise<Opened> {
  const failed = (err: unknown): MaybePromise<never> =>
    then(host.fs.release(request.ino, opened.fh, flags), () => {
      throw err
    })
  try {
    const killed = killSuidGid(host, request, opened.fh)
    return isPromise(killed) ? killed.then(() => opened, failed) : opened
  } catch (err) {
    return failed(err)
  }
}

function killSuidGid(host: Host, request: Request, fh: Fh): MaybePromise<unknown> {
  return host.fs.setattr(request.ino, { killSuidGid: true, fh }, request)
}

/** struct fuse_create_in: flags 0, mode 4, umask 8 (already applied by the kernel), open_flags 12. */
export const create: Handler<OpenedFile & { entry: Entry }> = {
  run(host, args, request) {
    const flags = args.u32(0)
    const created = host.fs.create(request.ino, args.name(16), args.u32(4), flags, request)
    return then(created, ({ entry, opened }) => ({
      entry,
      ...openedFile(host, request, entry.attributes.ino, opened, flags),
    }))
  },
  encode(reply, { entry, opened, handle, backingId }) {
    reply.entry(entry)
    reply.opened({ ...opened, fh: handle }, backingId)
    return undefined
  },
  undo: (host, { ino, handle }) => then(releaseHandle(host, handle), () => host.fs.forget(ino, 1)),
}

/** struct fuse_read_in: fh 0, offset 8, size 16. */
export const read: Handler<ReadResult> = {
  run(host, args, request) {
    const sizeBytes = Math.min(args.u32(16), MAX_IO_BYTES)
    const result = host.fs.read(request.ino, fileHandle(host, args, 0), args.u64(8), sizeBytes, request)
    return then(result, value => checkSize(value, sizeBytes))
  },
  encode: (_reply, result) => result,
  undo(_host, result) {
    if ('ranges' in result) result.release()
  },
}

/** The kernel takes more than it asked for as a broken connection. */
function checkSize(result: ReadResult, sizeBytes: number): ReadResult {
  if (!('ranges' in result)) return result.length > sizeBytes ? result.subarray(0, sizeBytes) : result
  let length = 0
  for (const range of result.ranges) length += range.length
  if (length <= sizeBytes) return result
  result.release()
  throw new Error(`a read of ${sizeBytes} bytes was answered with ranges of ${length}`)
}

/** struct fuse_write_in: fh 0, offset 8, size 16, write_flags 20, flags of the file 32. */
export const write: Handler<number> = {
  run(host, args, request) {
    const [fh, offset, flags] = [fileHandle(host, args, 0), args.u64(8), args.u32(32)]
    const data = args.slice(40, args.u32(16))
    const kill = (args.u32(20) & WRITE_KILL_SUIDGID) !== 0
    const killed = kill ? killSuidGid(host, request, fh) : undefined
    if (!isPromise(killed)) return host.fs.write(request.ino, fh, offset, data, flags, request)
    const copy = data.slice()
    return killed.then(() => host.fs.write(request.ino, fh, offset, copy, flags, request))
  },
  encode(reply, accepted) {
    reply.size(accepted)
    return undefined
  },
}

/** struct fuse_flush_in: fh 0. */
export const flush = voidHandler((host, args, request) =>
  host.fs.flush(request.ino, fileHandle(host, args, 0), request),
)

/** struct fuse_release_in: fh 0. */
export const release = voidHandler((host, args) => releaseHandle(host, args.u64(0)))

/** struct fuse_fsync_in: fh 0, flags 8. */
export const fsync = voidHandler((host, args, request) =>
  host.fs.fsync(request.ino, fileHandle(host, args, 0), (args.u32(8) & FSYNC_FDATASYNC) !== 0, request),
)

/** struct fuse_fallocate_in: fh 0, offset 8, length 16, mode 24. */
export const fallocate = voidHandler((host, args, request) =>
  host.fs.fallocate(request.ino, fileHandle(host, args, 0), args.u64(8), args.u64(16), args.u32(24), request),
)

/** struct fuse_lseek_in: fh 0, offset 8, whence 16. */
export const lseek: Handler<number> = {
  run: (host, args, request) =>
    host.fs.lseek(request.ino, fileHandle(host, args, 0), args.u64(8), args.u32(16), request),
  encode(reply, offset) {
    reply.u64(offset)
    return undefined
  },
}

/** struct fuse_copy_file_range_in: fh 0, offset 8; out: nodeid 16, fh 24, offset 32; length 40. */
const runCopyFileRange: Handler<number>['run'] = (host, args, request) =>
  host.fs.copyFileRange(
    request.ino,
    fileHandle(host, args, 0),
    args.u64(8),
    args.u64(16),
    fileHandle(host, args, 24),
    args.u64(32),
    args.u64(40),
    request,
  )

export const copyFileRange: Handler<number> = {
  run: runCopyFileRange,
  encode(reply, copied) {
    reply.size(copied)
    return undefined
  },
}

/** 7.45: the same with a 64-bit result. */
export const copyFileRange64: Handler<number> = {
  run: runCopyFileRange,
  encode(reply, copied) {
    reply.u64(copied)
    return undefined
  },
}
