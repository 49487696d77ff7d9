/**
 * Extended attributes.
 *
 * Invariant: what the kernel and `ls` ask of every file in passing is answered here and costs the file system
 * nothing. EOPNOTSUPP, not ENODATA, is the answer that `ls` remembers for the whole mount; no file here carries
 * capabilities, which `write` asks for.
 *
 * Reference: struct fuse_getxattr_in, struct fuse_setxattr_in (8 bytes without FUSE_SETXATTR_EXT); getxattr(2):
 * a size of 0 asks how much there is, ERANGE says that it is more
 */
import { CidfsError, type ErrorCode } from '../core/errors.js'
import { then } from '../core/maybe-promise.js'
import { type Handler, voidHandler } from './operation.js'

/** Made once: the kernel asks before the first write to every file, and a stack trace costs more than the answer. */
const ANSWERED_HERE = new Map<string, CidfsError>([
  answer('security.selinux', 'NOT_SUPPORTED'),
  answer('security.capability', 'NO_ATTRIBUTE'),
  answer('system.posix_acl_access', 'NOT_SUPPORTED'),
  answer('system.posix_acl_default', 'NOT_SUPPORTED'),
])

function answer(name: string, code: ErrorCode): [string, CidfsError] {
  return [name, new CidfsError(code, `no attribute ${name}`)]
}

function refuseForeign(name: string): void {
  const error = ANSWERED_HERE.get(name)
  if (error !== undefined) throw error
}

/** A number is the size, for who asked for that only. */
type Value = Uint8Array | number

function sized(value: Uint8Array, sizeBytes: number): Value {
  if (sizeBytes === 0) return value.length
  if (value.length > sizeBytes) throw new CidfsError('RANGE', 'the attribute is larger than the buffer')
  return value
}

function valueHandler(run: Handler<Value>['run']): Handler<Value> {
  return {
    run,
    encode(reply, value) {
      if (typeof value !== 'number') return value
      reply.size(value)
      return undefined
    },
  }
}

/** struct fuse_getxattr_in: size 0. */
export const getxattr = valueHandler((host, args, request) => {
  const [sizeBytes, name] = [args.u32(0), args.text(8)]
  refuseForeign(name)
  return then(host.fs.getxattr(request.ino, name, request), value => sized(value, sizeBytes))
})

/** Names, each with a NUL behind it. */
export const listxattr = valueHandler((host, args, request) => {
  const sizeBytes = args.u32(0)
  return then(host.fs.listxattr(request.ino, request), names =>
    sized(Buffer.from(names.map(name => `${name}\0`).join('')), sizeBytes),
  )
})

/** struct fuse_setxattr_in: size 0, flags 4, then name and value. */
export const setxattr = voidHandler((host, args, request) => {
  const nameLength = args.name(8).length
  const name = args.text(8)
  if (ANSWERED_HERE.has(name)) throw new CidfsError('NOT_SUPPORTED', `no attribute ${name}`)
  const value = args.slice(8 + nameLength + 1, args.u32(0))
  return host.fs.setxattr(request.ino, name, value, args.u32(4), request)
})

export const removexattr = voidHandler((host, args, request) => {
  const name = args.text(0)
  refuseForeign(name)
  return host.fs.removexattr(request.ino, name, request)
})
