/**
 * A file system mounted through the package `fuse-native` and the libfuse 2 of the system.
 *
 * Invariant: as `FuseSession`: after `closed` no descriptor, no thread and nothing that keeps the event loop alive is
 * left, and what was open is released. What the package keeps for good (closures, a few hundred bytes for each thread
 * that libfuse ever started) refers to nothing of the file system. No call of ours touches the mount.
 */
import { writeFileSync } from 'node:fs'
import { CidfsError, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { FileSystem, Ino, Notifier } from '../fs/file-system.js'
import type { Session, SessionReport } from '../fs/session.js'
import { checkFusermount } from '../fuse/fusermount.js'
import {
  clearStaleMount,
  type MountOptions,
  prepareMountpoint,
  raiseReadAhead,
  SOURCE,
  unmount,
} from '../fuse/mount.js'
import { FS_TYPE, type MountEntry, mountAt } from '../fuse/mount-table.js'
import { BUSY_RETRY_MS, CLOSE_TIMEOUT_MS, comesWithin, drained, unmountWithin } from '../fuse/unmounting.js'
import { attributeOperations, xattrOperations } from './attribute-operations.js'
import { Connection, fuseDescriptors } from './connection.js'
import { loadFuse } from './corrected-fuse.js'
import { directoryOperations } from './directory-operations.js'
import { fileOperations, release } from './file-operations.js'
import type { Host } from './host.js'
import { nameOperations } from './name-operations.js'
import { Names } from './names.js'
import { OpenFiles } from './open-files.js'
import type { Fuse, FuseOperations } from './package.js'
import { Requests } from './requests.js'
import { TOLD_MS, UnsizedFiles } from './unsized-files.js'

const log = logger('fuse-native:session')

const INIT_TIMEOUT_MS = 10_000
const READ_AHEAD_KIB = 1024
const NOT_HERE = 'not possible with fuse-native'

/** For all of a mount: libfuse has none for each file. */
const OPTIONS = [
  'default_permissions',
  'big_writes', // 128 KiB at most
  'use_ino',
  'atomic_o_trunc',
  'sync_read', // in order, as read-ahead over the network wants them
  `attr_timeout=${TOLD_MS / 1000}`,
  `fsname=${SOURCE}`,
  `subtype=${FS_TYPE.replace('fuse.', '')}`,
]

export class FuseNativeSession implements Session {
  readonly closed: Promise<void>
  readonly #host: Host
  readonly #fuse: Fuse
  readonly #connection: Connection
  readonly #mount: MountEntry
  #open = true
  #abandoned = false
  #resolveClosed!: () => void

  private constructor(host: Host, fuse: Fuse, connection: Connection, mount: MountEntry) {
    this.#host = host
    this.#fuse = fuse
    this.#connection = connection
    this.#mount = mount
    this.closed = new Promise(resolve => {
      this.#resolveClosed = resolve
    })
    void connection.ended.then(() => this.#finish())
  }

  /**
   * Mounts `fs` on an empty directory; resolves when the mount answers.
   * @throws CidfsError `BAD_MOUNTPOINT`, `MISSING_TOOL` (also: the package, libfuse), `PERMISSION`.
   */
  static async mount(dir: string, fs: FileSystem, options: MountOptions = {}): Promise<FuseNativeSession> {
    const Fuse = loadFuse([...OPTIONS, ...(options.allowOther ? ['allow_other'] : [])])
    const mountpoint = await prepareMountpoint(dir)
    if (process.geteuid?.() !== 0) await checkFusermount() // libfuse mounts with its own, and we unmount with this
    const host = hostOf(fs)
    const fuse = new Fuse(mountpoint, operationsOf(host), { timeout: false })
    fs.start(notifier(host.changed))
    try {
      const { fd, entry } = await inTurn(() => open(fuse, mountpoint))
      raiseReadAhead(mountpoint, READ_AHEAD_KIB)
      return new FuseNativeSession(host, fuse, new Connection(fd), entry)
    } catch (err) {
      await undo(fuse, mountpoint)
      throw err
    }
  }

  report(): SessionReport {
    const { requests } = this.#host
    return { operations: requests.counts(), inFlight: requests.inFlight, passthrough: NOT_HERE }
  }

  drain(ms: number): Promise<boolean> {
    return drained(() => this.#host.requests.inFlight, ms)
  }

  async unmount({ lazyAfterMs = 2000 } = {}): Promise<{ lazy: boolean }> {
    let lazy = false
    if (this.#open) lazy = await unmountWithin(this.#mount, lazyAfterMs)
    else await clearStaleMount(this.#mount.mountpoint)
    return { lazy: !(await comesWithin(this.closed, lazy ? BUSY_RETRY_MS : CLOSE_TIMEOUT_MS)) }
  }

  /** Where sysfs lets us, the kernel ends the connection; else it ends with this process, like libfuse's threads. */
  close(): void {
    if (!this.#open || abortConnection(this.#mount)) return
    log('the connection of %s cannot be aborted', this.#mount.mountpoint)
    this.#abandoned = true
    this.#connection.stopWatching()
  }

  async #finish(): Promise<void> {
    this.#open = false
    const { requests, files } = this.#host
    requests.abort()
    if (!this.#abandoned) await this.#connection.freed()
    await Promise.allSettled(files.handles().map(async fd => release(this.#host, fd)))
    closePackage(this.#fuse)
    if (!this.#abandoned) this.#fuse.ops = {} // what the package keeps leads to nothing any more
    this.#resolveClosed()
  }
}

/** Lets the event loop end. The package's own unmounting is ours (corrected-fuse.ts). */
function closePackage(fuse: Fuse): void {
  fuse.close(err => {
    if (err != null) log('closing: %s', messageOf(err))
  })
}

/** A mount that is there now is ours: there was none before. */
async function undo(fuse: Fuse, mountpoint: string): Promise<void> {
  if (mountAt(mountpoint)?.type === FS_TYPE) await unmount(mountpoint, { lazy: true })
  closePackage(fuse)
}

function abortConnection({ device }: MountEntry): boolean {
  try {
    writeFileSync(`/sys/fs/fuse/connections/${device.split(':')[1]}/abort`, '1')
    return true
  } catch {
    return false
  }
}

function hostOf(fs: FileSystem): Host {
  return {
    fs,
    requests: new Requests(),
    names: new Names(fs),
    files: new OpenFiles(),
    changed: new Set(),
    unsized: new UnsizedFiles(),
  }
}

function operationsOf(host: Host): FuseOperations {
  return {
    ...attributeOperations(host),
    ...xattrOperations(host),
    ...nameOperations(host),
    ...directoryOperations(host),
    ...fileOperations(host),
  }
}

/** There are no notifications; what an open finds out is told by `lookAgain`. */
function notifier(changed: Set<Ino>): Notifier {
  return {
    invalidateInode(ino, offset) {
      if (offset < 0) changed.add(ino)
    },
    invalidateEntry() {},
  }
}

let turn: Promise<unknown> = Promise.resolve()

/** One at a time: the descriptor that libfuse opens is known by its not having been there before. */
function inTurn<T>(work: () => Promise<T>): Promise<T> {
  const result = turn.then(work)
  turn = result.catch(() => {})
  return result
}

async function open(fuse: Fuse, mountpoint: string): Promise<{ fd: number; entry: MountEntry }> {
  const before = fuseDescriptors()
  await opened(fuse, mountpoint)
  const fd = [...fuseDescriptors()].find(candidate => !before.has(candidate))
  const entry = mountAt(mountpoint)
  if (fd !== undefined && entry?.type === FS_TYPE) return { fd, entry }
  throw new CidfsError('IO', 'the kernel ended the FUSE connection before it began')
}

/** libfuse does not tell why; the native transport does. */
function opened(fuse: Fuse, mountpoint: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (why: string) => {
      const message = `libfuse cannot mount on ${mountpoint} (${why}): --transport native says more`
      reject(new CidfsError('BAD_MOUNTPOINT', message, { path: mountpoint }))
    }
    const timer = setTimeout(fail, INIT_TIMEOUT_MS, 'the kernel does not answer')
    fuse.open(err => {
      clearTimeout(timer)
      if (err === null) resolve()
      else fail(err.message)
    })
  })
}
