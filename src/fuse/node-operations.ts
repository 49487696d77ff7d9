/**
 * Operations on nodes and names: lookup, attributes, creating, removing, renaming.
 *
 * Invariant: names are passed on as bytes, as they came. Counting lookups is the file system's business; here it
 * is only told when the kernel did not get an entry.
 *
 * Reference: include/uapi/linux/fuse.h; numbers in the comments are byte offsets
 */
import type { AttributeChanges, Attributes } from '../fs/file-system.js'
import { FATTR, GETATTR_FH } from './abi.js'
import { entryHandler, type Handler, type Host, voidHandler } from './operation.js'
import { time } from './reply.js'
import type { Arguments } from './request.js'

export const lookup = entryHandler((host, args, request) =>
  host.fs.lookup(request.ino, args.name(0), request),
)

export const forget = voidHandler((host, args, request) => host.fs.forget(request.ino, args.u64(0)))

/** struct fuse_batch_forget_in: count, padding, then pairs of nodeid and nlookup. */
export const batchForget = voidHandler((host, args) => {
  const count = Math.min(args.u32(0), (args.length - 8) >> 4)
  for (let at = 8; at < 8 + 16 * count; at += 16) host.fs.forget(args.u64(at), args.u64(at + 8))
})

type AttributesReply = { attributes: Attributes; ttlMs: number }

function attributesHandler(run: Handler<AttributesReply>['run']): Handler<AttributesReply> {
  return {
    run,
    encode(reply, { attributes, ttlMs }) {
      reply.attributes(attributes, ttlMs)
      return undefined
    },
  }
}

/** struct fuse_getattr_in: flags 0, fh 8. */
export const getattr = attributesHandler((host, args, request) => {
  const fh = args.u32(0) & GETATTR_FH ? host.handles.fh(args.u64(8)) : undefined
  return host.fs.getattr(request.ino, fh, request)
})

export const setattr = attributesHandler((host, args, request) =>
  host.fs.setattr(request.ino, attributeChanges(host, args), request),
)

/** struct fuse_setattr_in. */
function attributeChanges(host: Host, args: Arguments): AttributeChanges {
  const valid = args.u32(0)
  const changes: AttributeChanges = {}
  if (valid & FATTR.MODE) changes.mode = args.u32(68)
  if (valid & FATTR.UID) changes.uid = args.u32(76)
  if (valid & FATTR.GID) changes.gid = args.u32(80)
  if (valid & FATTR.SIZE) changes.sizeBytes = args.u64(16)
  if (valid & FATTR.FH) changes.fh = host.handles.fh(args.u64(8))
  if (valid & FATTR.KILL_SUIDGID) changes.killSuidGid = true
  if (valid & FATTR.ATIME) changes.atime = valid & FATTR.ATIME_NOW ? 'now' : time(args.i64(32), args.u32(56))
  if (valid & FATTR.MTIME) changes.mtime = valid & FATTR.MTIME_NOW ? 'now' : time(args.i64(40), args.u32(60))
  if (valid & FATTR.CTIME) changes.ctime = time(args.i64(48), args.u32(64))
  return changes
}

export const readlink: Handler<Uint8Array> = {
  run: (host, _args, request) => host.fs.readlink(request.ino, request),
  encode: (_reply, target) => target,
}

/** The new name, then the target. */
export const symlink = entryHandler((host, args, request) => {
  const name = args.name(0)
  const target = args.string(name.length + 1)
  return host.fs.symlink(request.ino, name, target, request)
})

/** struct fuse_mknod_in: mode 0, rdev 4, umask 8 (already applied by the kernel). */
export const mknod = entryHandler((host, args, request) =>
  host.fs.mknod(request.ino, args.name(16), args.u32(0), args.u32(4), request),
)

/** struct fuse_mkdir_in: mode 0, umask 4. */
export const mkdir = entryHandler((host, args, request) =>
  host.fs.mkdir(request.ino, args.name(8), args.u32(0), request),
)

/** struct fuse_link_in: the node that gets another name 0. The header names the directory. */
export const link = entryHandler((host, args, request) =>
  host.fs.link(args.u64(0), request.ino, args.name(8), request),
)

export const unlink = voidHandler((host, args, request) => host.fs.unlink(request.ino, args.name(0), request))

export const rmdir = voidHandler((host, args, request) => host.fs.rmdir(request.ino, args.name(0), request))

/** struct fuse_rename_in: new directory 0. */
export const rename = voidHandler((host, args, request) => {
  const [from, to] = args.names(8)
  return host.fs.rename(request.ino, from, args.u64(0), to, 0, request)
})

/** struct fuse_rename2_in: new directory 0, flags 8. */
export const rename2 = voidHandler((host, args, request) => {
  const [from, to] = args.names(16)
  return host.fs.rename(request.ino, from, args.u64(0), to, args.u32(8), request)
})
