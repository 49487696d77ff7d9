/**
 * The opcode table: for each opcode its name, the least its arguments measure, and what handles it.
 *
 * Invariant: every opcode the kernel may send is here or is answered with ENOSYS, which the kernel remembers and
 * then does without: ACCESS (default_permissions), BMAP, locks (kept by the kernel itself), IOCTL, POLL, STATX,
 * TMPFILE, SYNCFS. OPEN is never among them: the kernel would keep that in mind for all files.
 */
import type { StatFs } from '../fs/file-system.js'
import { OP } from './abi.js'
import * as directory from './directory-operations.js'
import * as file from './file-operations.js'
import { initOut, type Negotiated, negotiate } from './init.js'
import * as node from './node-operations.js'
import { type Handler, type Operation, voidHandler } from './operation.js'
import * as xattr from './xattr-operations.js'

const init: Handler<Negotiated> = {
  run(host, args) {
    const negotiated = negotiate(args, host.passthrough)
    host.initialize(negotiated)
    return negotiated
  },
  encode(reply, negotiated) {
    reply.struct(initOut(negotiated))
    return undefined
  },
}

/** struct fuse_interrupt_in: unique 0. */
const interrupt = voidHandler((host, args) => host.interrupt(args.u32(0), args.u32(4)))

const statfs: Handler<StatFs> = {
  run: (host, _args, request) => host.fs.statfs(request.ino, request),
  encode(reply, value) {
    reply.statfs(value)
    return undefined
  },
}

/** Only block devices get DESTROY; that the connection ends is learnt from reading it. */
const destroy = voidHandler(() => {})

type Row = readonly [opcode: number, minimumBytes: number, handler: Handler<unknown>]

const ROWS: Row[] = [
  [OP.LOOKUP, 1, node.lookup],
  [OP.FORGET, 8, node.forget],
  [OP.GETATTR, 16, node.getattr],
  [OP.SETATTR, 88, node.setattr],
  [OP.READLINK, 0, node.readlink],
  [OP.SYMLINK, 2, node.symlink],
  [OP.MKNOD, 17, node.mknod],
  [OP.MKDIR, 9, node.mkdir],
  [OP.UNLINK, 1, node.unlink],
  [OP.RMDIR, 1, node.rmdir],
  [OP.RENAME, 10, node.rename],
  [OP.LINK, 9, node.link],
  [OP.OPEN, 8, file.open],
  [OP.READ, 40, file.read],
  [OP.WRITE, 40, file.write],
  [OP.STATFS, 0, statfs],
  [OP.RELEASE, 24, file.release],
  [OP.FSYNC, 16, file.fsync],
  [OP.SETXATTR, 9, xattr.setxattr],
  [OP.GETXATTR, 9, xattr.getxattr],
  [OP.LISTXATTR, 8, xattr.listxattr],
  [OP.REMOVEXATTR, 1, xattr.removexattr],
  [OP.FLUSH, 24, file.flush],
  [OP.INIT, 16, init],
  [OP.OPENDIR, 8, directory.opendir],
  [OP.READDIR, 40, directory.readdir],
  [OP.RELEASEDIR, 24, directory.releasedir],
  [OP.FSYNCDIR, 16, directory.fsyncdir],
  [OP.CREATE, 17, file.create],
  [OP.INTERRUPT, 8, interrupt],
  [OP.DESTROY, 0, destroy],
  [OP.BATCH_FORGET, 8, node.batchForget],
  [OP.FALLOCATE, 32, file.fallocate],
  [OP.READDIRPLUS, 40, directory.readdirplus],
  [OP.RENAME2, 18, node.rename2],
  [OP.LSEEK, 24, file.lseek],
  [OP.COPY_FILE_RANGE, 56, file.copyFileRange],
  [OP.COPY_FILE_RANGE_64, 56, file.copyFileRange64],
]

const ONE_WAY: ReadonlySet<number> = new Set([OP.FORGET, OP.BATCH_FORGET, OP.INTERRUPT])

const NAMES = new Map<number, string>(Object.entries(OP).map(([name, opcode]) => [opcode, name]))

/** For counters and logs, also of opcodes that are refused. */
export function operationName(opcode: number): string {
  return NAMES.get(opcode) ?? `OPCODE_${opcode}`
}

/** Indexed by opcode; undefined is answered with ENOSYS. */
export const OPERATIONS: readonly (Operation | undefined)[] = buildTable()

function buildTable(): (Operation | undefined)[] {
  const table: (Operation | undefined)[] = []
  for (const [opcode, minimumBytes, handler] of ROWS) {
    table[opcode] = { name: operationName(opcode), minimumBytes, oneWay: ONE_WAY.has(opcode), ...handler }
  }
  return table
}
