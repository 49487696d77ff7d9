/**
 * Operations on open directories.
 *
 * Invariant: entries of READDIRPLUS count as looked up exactly when the kernel gets the reply.
 *
 * Reference: struct fuse_open_in, struct fuse_read_in; numbers in the comments are byte offsets
 */
import { then } from '../core/maybe-promise.js'
import type { Opened } from '../fs/file-system.js'
import { FSYNC_FDATASYNC } from './abi.js'
import { PackedDirectory } from './directory-sink.js'
import { type Handler, voidHandler } from './operation.js'

/** struct fuse_open_in: flags 0. */
export const opendir: Handler<Opened> = {
  run(host, args, request) {
    const flags = args.u32(0)
    return host.fs.opendir(request.ino, flags, request)
  },
  encode(reply, opened) {
    reply.opened(opened)
    return undefined
  },
  delivered(host, opened, request) {
    host.handles.directoryOpened(request.ino, opened.fh)
  },
  undo: (host, opened, request) => host.fs.releasedir(request.ino, opened.fh),
}

/** struct fuse_read_in: fh 0, cookie 8, size 16. */
function readdirHandler(plus: boolean): Handler<PackedDirectory> {
  return {
    run(host, args, request) {
      const sink = new PackedDirectory(args.u32(16))
      const done = host.fs.readdir(request.ino, args.u64(0), args.u64(8), plus, sink, request)
      return then(done, () => sink)
    },
    encode: (_reply, sink) => sink.packed(),
    undo(host, sink) {
      for (const ino of sink.lookedUp) host.fs.forget(ino, 1)
    },
  }
}

export const readdir = readdirHandler(false)
export const readdirplus = readdirHandler(true)

/** struct fuse_release_in: fh 0. */
export const releasedir = voidHandler((host, args, request) => {
  const fh = args.u64(0)
  host.handles.directoryReleased(fh)
  return host.fs.releasedir(request.ino, fh)
})

/** struct fuse_fsync_in: fh 0, flags 8. */
export const fsyncdir = voidHandler((host, args, request) =>
  host.fs.fsyncdir(request.ino, args.u64(0), (args.u32(8) & FSYNC_FDATASYNC) !== 0, request),
)
