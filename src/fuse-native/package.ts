/**
 * The package `fuse-native`, as far as it is used here, and what to do where it is missing.
 *
 * Invariant: it is loaded when somebody asks for it and not before, so an installation without it, or without the
 * library of the system that its addon is linked to, lacks nothing else.
 */
import { createRequire } from 'node:module'
import { CidfsError, messageOf } from '../core/errors.js'

/** `errno` is negative, or the number of bytes of a read or write. */
export type Answer<T extends unknown[] = []> = (errno: number, ...values: T) => void

/** Attributes as the package packs them: `struct stat` in 18 words. */
export type StatWords = Uint32Array

/** The callbacks that the package calls, each for one operation of libfuse's path-based interface. */
export interface FuseOperations {
  statfs(path: string, answer: Answer<[Record<string, number>]>): void
  getattr(path: string, answer: Answer<[StatWords]>): void
  fgetattr(path: string, fd: number, answer: Answer<[StatWords]>): void
  flush(path: string, fd: number, answer: Answer): void
  fsync(path: string, dataOnly: number, fd: number, answer: Answer): void
  fsyncdir(path: string, dataOnly: number, fd: number, answer: Answer): void
  readdir(path: string, answer: Answer<[names: string[], stats: StatWords[]]>): void
  truncate(path: string, size: number, answer: Answer): void
  ftruncate(path: string, fd: number, size: number, answer: Answer): void
  utimens(path: string, atimeMs: number, mtimeMs: number, answer: Answer): void
  readlink(path: string, answer: Answer<[string]>): void
  chown(path: string, uid: number, gid: number, answer: Answer): void
  chmod(path: string, mode: number, answer: Answer): void
  mknod(path: string, mode: number, dev: number, answer: Answer): void
  setxattr(path: string, name: string, value: Buffer, position: number, flags: number, answer: Answer): void
  getxattr(path: string, name: string, position: number, answer: Answer<[Buffer]>): void
  listxattr(path: string, answer: Answer<[string[]]>): void
  removexattr(path: string, name: string, answer: Answer): void
  open(path: string, flags: number, answer: Answer<[fd: number]>): void
  read(path: string, fd: number, into: Buffer, length: number, offset: number, answer: Answer): void
  write(path: string, fd: number, from: Buffer, length: number, offset: number, answer: Answer): void
  release(path: string, fd: number, answer: Answer): void
  create(path: string, mode: number, answer: Answer<[fd: number]>): void
  unlink(path: string, answer: Answer): void
  rename(from: string, to: string, answer: Answer): void
  link(from: string, to: string, answer: Answer): void
  symlink(target: string, path: string, answer: Answer): void
  mkdir(path: string, mode: number, answer: Answer): void
  rmdir(path: string, answer: Answer): void
}

/** An answer on its way to the addon. */
export type Signal = (errno: number, ...values: unknown[]) => void

/** The parts of the package's class that are called or corrected. */
export interface Fuse {
  ops: Partial<FuseOperations>
  open(done: (err: Error | null) => void): void
  close(done: (err: Error | null) => void): void
  _fuseOptions(): string
  _makeHandlerArray(): (NativeHandler | undefined)[]
}

/** Called by the addon: its record of the libfuse thread that waits, the operation, its arguments. */
export type NativeHandler = (thread: Buffer, opcode: number, ...args: unknown[]) => void

export interface FuseClass {
  new (mountpoint: string, ops: FuseOperations, options: { timeout: false }): Fuse
  unmount(mountpoint: string, done: (err: Error | null) => void): void
}

/**
 * Loads the package.
 * @throws CidfsError `MISSING_TOOL` whose message says in one line what to install.
 */
export function loadPackage(): FuseClass {
  try {
    return createRequire(import.meta.url)('fuse-native') as FuseClass
  } catch (cause) {
    throw new CidfsError('MISSING_TOOL', `--transport fuse-native ${adviceOn(cause)}`, { cause })
  }
}

function adviceOn(cause: unknown): string {
  const message = messageOf(cause)
  if (/cannot find (module|package) .fuse-native/i.test(message)) {
    return 'needs the package of that name: npm install --include=optional (or use --transport native)'
  }
  if (/libfuse\.so\.2/.test(message)) {
    return 'needs libfuse.so.2: apt-get install libfuse2 (or use --transport native)'
  }
  if (/no native build was found/i.test(message)) {
    return `has no binary for ${process.platform} ${process.arch}: use --transport native`
  }
  return `does not load (${message.split('\n')[0]}): use --transport native`
}
