/**
 * The class of the package with what is wrong in it put right, as far as that can be done from outside.
 *
 * Invariant: whatever the file system says reaches the kernel as it was said, or not at all. Each method says what
 * the package (2.2.6, with libfuse 2.9) does instead. What cannot be repaired is the table of transports in
 * docs/SEMANTICS.md.
 */
import { constants } from 'node:os'
import {
  type Answer,
  type Fuse,
  type FuseClass,
  loadPackage,
  type NativeHandler,
  type Signal,
} from './package.js'

const { ERANGE } = constants.errno
const OP_UTIMENS = 12
/** Where the addon's record of a thread (fuse_thread_locals_t) has the two times, on 64-bit machines. */
const ATIME_AT = 104
const MTIME_AT = 112

/** The class, loaded and corrected. @throws CidfsError `MISSING_TOOL`. */
export function loadFuse(mountOptions: readonly string[]): FuseClass {
  const Package = loadPackage()
  // Its own runs `fusermount -uz` in a shell, always lazily. We have unmounted when `close` is called.
  Package.unmount = (_mountpoint, done) => done(null)
  return correct(Package, mountOptions)
}

interface Operations {
  getattr(path: string, answer: Answer<[Uint32Array]>): void
  fgetattr(path: string, fd: number, answer: Answer<[Uint32Array]>): void
  readdir(path: string, answer: Answer<[string[], Uint32Array[]]>): void
  getxattr(path: string, name: string, position: number, answer: Answer<[Buffer]>): void
  listxattr(path: string, answer: Answer<[string[]]>): void
}

function correct(Package: FuseClass, mountOptions: readonly string[]): FuseClass {
  return class extends Package {
    declare ops: Operations & Fuse['ops']

    /** Knows no `big_writes` (without it each write is of 4 KiB), `use_ino`, `atomic_o_trunc`. */
    override _fuseOptions(): string {
      return `-o${mountOptions.join(',')}`
    }

    /** Its addon passes the access time twice. The other one is in the record of the thread. */
    override _makeHandlerArray(): (NativeHandler | undefined)[] {
      return super._makeHandlerArray().map(handler => {
        return (
          handler &&
          ((thread, opcode, ...args) => {
            handler(thread, opcode, ...(opcode === OP_UTIMENS ? withBothTimes(thread, args) : args))
          })
        )
      })
    }

    /** Would go through an object that cannot say 0 links. */
    _op_getattr(signal: Signal, path: string): void {
      this.ops.getattr(path, (errno, words) => (errno === 0 ? signal(0, words) : signal(errno)))
    }

    /** Forgets which handle is meant: the file may have no name any more. */
    _op_fgetattr(signal: Signal, path: string, fd: number): void {
      this.ops.fgetattr(path, fd, (errno, words) => (errno === 0 ? signal(0, words) : signal(errno)))
    }

    _op_readdir(signal: Signal, path: string): void {
      this.ops.readdir(path, (errno, names, stats) => (errno === 0 ? signal(0, names, stats) : signal(errno)))
    }

    /** Says the true length where the value did not fit, and libfuse sends that many bytes of its memory. */
    _op_getxattr(signal: Signal, path: string, name: string, into: Buffer, position: number): void {
      this.ops.getxattr(path, name, position, (errno, value) => {
        if (errno !== 0) signal(errno, into.buffer)
        else signal(fill(into, value), into.buffer)
      })
    }

    /** The same. */
    _op_listxattr(signal: Signal, path: string, into: Buffer): void {
      this.ops.listxattr(path, (errno, names) => {
        if (errno !== 0) signal(errno, into.buffer)
        else signal(fill(into, Buffer.from(names.map(name => `${name}\0`).join(''))), into.buffer)
      })
    }
  }
}

/** An empty buffer asks for the length. */
function fill(into: Buffer, value: Buffer): number {
  if (into.length === 0) return value.length
  if (value.length > into.length) return -ERANGE
  return value.copy(into)
}

/** Milliseconds, as pairs of words that add up; nothing is changed where the record is not what it should be. */
function withBothTimes(thread: Buffer, args: unknown[]): unknown[] {
  const [path, low, high] = args as [string, number, number]
  if (thread.length < MTIME_AT + 8) return args
  const atime = thread.readBigInt64LE(ATIME_AT)
  if (BigInt.asUintN(64, atime) !== (BigInt(high) << 32n) + BigInt(low)) return args
  return [path, Number(atime), 0, Number(thread.readBigInt64LE(MTIME_AT)), 0]
}
