/**
 * A mounted file system: from mount to the end of its connection.
 *
 * Invariant: after `closed` nothing of the session is left: no descriptor, no thread, nothing that keeps the event
 * loop alive; the signals of requests that were still waiting are aborted. The session never asks its own mount
 * anything; the kernel's mount table tells it what it needs to know.
 *
 * The kernel does not send the last FORGETs of a mount, and may not send the last RELEASEs. What was open when it
 * unmounted is released before `closed`; that nothing is looked up any more goes without saying.
 */
import { closeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { CidfsError } from '../core/errors.js'
import { logger } from '../core/log.js'
import { addon, checkResult } from '../core/native.js'
import type { FileSystem } from '../fs/file-system.js'
import type { OperationCount, Session, SessionReport } from '../fs/session.js'
import { INIT2, OP } from './abi.js'
import { BackingFiles } from './backing-files.js'
import { Channel } from './channel.js'
import { Dispatcher } from './dispatcher.js'
import type { HandleLog, LoggedHandle } from './handle-log.js'
import type { Negotiated } from './init.js'
import { clearStaleMount, type MountOptions, mount, raiseReadAhead, unmount } from './mount.js'
import { FS_TYPE, type MountEntry, mountAt } from './mount-table.js'
import { NotificationQueue } from './notification-queue.js'
import { OpenHandles } from './open-handles.js'
import type { Host } from './operation.js'
import { Reply } from './reply.js'
import { Arguments } from './request.js'
import { Statistics } from './statistics.js'
import { BUSY_RETRY_MS, CLOSE_TIMEOUT_MS, comesWithin, drained, unmountWithin } from './unmounting.js'

const log = logger('fuse:session')

/** Requests answered before the event loop gets its turn. */
const REQUESTS_PER_TURN = 32
const INIT_TIMEOUT_MS = 10_000
const DEFAULT_READ_AHEAD_KIB = 1024

/** What lets another daemon go on with the connection. */
export interface Succession {
  handles: HandleLog
  /**
   * The kernel can send again what was in flight (6.9). Where not, the daemon reads through a descriptor of its own:
   * with that its requests end, and the connection does not, so nobody waits for a daemon that is dead.
   */
  resend: boolean
}

export interface SessionOptions {
  /** Absent: the mount ends with this process. */
  succession?: Succession | undefined
  /** Whether the kernel may read and write files by itself, where it can; true by default. */
  passthrough?: boolean
  /** Told what a handler threw that is neither a CidfsError nor has an errno; it is logged in any case. */
  onUnforeseen?(err: unknown, operation: string): void
}

export interface SessionMountOptions extends SessionOptions, MountOptions {
  /** 1024 by default; applied where sysfs permits it. */
  readAheadKib?: number
}

export class FuseSession implements Host, Session {
  readonly fs: FileSystem
  readonly handles: OpenHandles
  readonly backing: BackingFiles
  /** Resolves when the connection has ended and everything of it is freed. */
  readonly closed: Promise<void>
  readonly #channel: Channel
  readonly #dispatcher: Dispatcher
  readonly #notifications: NotificationQueue
  readonly #statistics = new Statistics()
  readonly #options: SessionOptions
  #resolveClosed!: () => void
  #open = true
  #unmounted = false
  #negotiated: Negotiated | undefined
  #initFailure: unknown
  #mount: MountEntry | undefined
  /** The descriptor that another daemon can go on with, until `handOut`. */
  #lasting: number | undefined

  /**
   * Takes over the descriptor of a connection; use `mount` or `adopt`.
   * @throws NativeError when it cannot be polled.
   */
  private constructor(fd: number, fs: FileSystem, options: SessionOptions, negotiated?: Negotiated) {
    const [args, reply] = [new Arguments(), new Reply()]
    this.fs = fs
    this.handles = new OpenHandles(options.succession?.handles)
    this.#options = options
    this.#negotiated = negotiated
    this.closed = new Promise(resolve => (this.#resolveClosed = resolve))
    this.#lasting = fd
    this.#channel = new Channel(ownDescriptor(fd, options.succession), args, reply, {
      onReadable: () => this.#onReadable(),
      onJobFailed: errno => this.#onJobFailed(errno),
      onClosed: () => void this.#onClosed(),
    })
    this.backing = new BackingFiles(this.#channel)
    this.#notifications = new NotificationQueue(this.#channel)
    this.#dispatcher = new Dispatcher({
      ...{ host: this, channel: this.#channel, args, reply, statistics: this.#statistics },
      onUnforeseen: (err, operation) => this.#onUnforeseen(err, operation),
      onFailed: (opcode, err) => this.#onFailed(opcode, err),
    })
  }

  /**
   * Mounts `fs` on an empty directory; resolves when the mount answers.
   * @throws CidfsError `BAD_MOUNTPOINT`, `MISSING_TOOL`, `PERMISSION`, `NOT_SUPPORTED` (kernel too old).
   */
  static async mount(dir: string, fs: FileSystem, options: SessionMountOptions = {}): Promise<FuseSession> {
    const { fd, mountpoint } = await mount(dir, options)
    const session = new FuseSession(fd, fs, options)
    session.#start(mountpoint)
    try {
      await session.#waitForInit()
    } catch (err) {
      session.close()
      await unmount(mountpoint, { lazy: true })
      throw err
    }
    raiseReadAhead(mountpoint, options.readAheadKib ?? DEFAULT_READ_AHEAD_KIB)
    return session
  }

  /**
   * Goes on with a connection that another process has negotiated and left. What that one did not answer is sent
   * again where the kernel can (6.9). Before the first request is read: one that is being handled would come twice.
   */
  static adopt(
    fd: number,
    mountpoint: string,
    fs: FileSystem,
    negotiated: Negotiated,
    options: SessionOptions = {},
  ): FuseSession {
    const session = new FuseSession(fd, fs, options, negotiated)
    const { succession } = options
    if (session.passthrough) session.initialize(negotiated)
    for (const handle of succession?.handles.inherited ?? []) session.#reopen(handle)
    if ((succession?.resend ?? true) && negotiated.flags2 & INIT2.HAS_RESEND) session.#notifications.resend()
    session.#start(mountpoint)
    return session
  }

  #reopen({ handle, ...file }: LoggedHandle): void {
    let fh = 0
    try {
      fh = this.fs.reopen?.(file.ino, file.flags, file.backingId === 0 ? undefined : file.token) ?? 0
    } catch (err) {
      log('inode %d, open since an earlier daemon: %O', file.ino, err)
    }
    this.handles.resume(handle, { ...file, fh })
    this.backing.resume(file.ino, file.backingId)
  }

  /** Gives the descriptor with which another daemon can go on to `keep`, which has to copy it. Once. */
  handOut(keep: (fd: number) => void): void {
    if (this.#lasting === undefined) return
    keep(this.#lasting)
    this.#closeLasting()
  }

  /** The channel closes its own. */
  #closeLasting(): void {
    if (this.#lasting !== undefined && this.#lasting !== this.#channel.fd) closeSync(this.#lasting)
    this.#lasting = undefined
  }

  /** By which another process can go on, as long as this one is not closed. */
  get descriptor(): number {
    return this.#channel.fd
  }

  /** Reads no further requests: they wait in the kernel. */
  pause(): void {
    this.#channel.pause()
  }

  /** As before `pause`. */
  proceed(): void {
    this.#channel.start()
  }

  /**
   * Leaves the connection to another process: what is not answered is not answered any more, and what is open stays
   * open. Resolves when nothing of it is left here.
   */
  leave(): Promise<void> {
    this.handles.close()
    this.close()
    return this.closed
  }

  /** What INIT agreed upon, for `adopt` in another process. */
  get negotiated(): Negotiated | undefined {
    return this.#negotiated
  }

  /** Requests that were read and are not answered. */
  get inFlight(): number {
    return this.#dispatcher.pending + this.#channel.jobs
  }

  /** A line for each request that is being handled, for the log. */
  describeInFlight(): string {
    return this.#dispatcher.describe()
  }

  /** What the status report says of the connection. */
  report(): SessionReport {
    const passthrough = this.passthrough ? this.backing.state : 'off'
    return { operations: this.stats(), inFlight: this.inFlight, passthrough }
  }

  /** Requests and errors by name of the operation. */
  stats(): Record<string, OperationCount> {
    return this.#statistics.snapshot()
  }

  /** Waits until nothing is in flight. @returns false when that took longer than `ms`. */
  drain(ms: number): Promise<boolean> {
    return drained(() => this.inFlight, ms)
  }

  /**
   * Unmounts. While files are open it tries again for `lazyAfterMs`, then detaches the mount: it is gone from the
   * tree, and served until the last file is closed (`closed` tells).
   * @throws CidfsError `PERMISSION`, `MISSING_TOOL`.
   */
  async unmount({ lazyAfterMs = 2000 } = {}): Promise<{ lazy: boolean }> {
    let lazy = false
    if (this.#mount !== undefined) {
      if (this.#open) lazy = await unmountWithin(this.#mount, lazyAfterMs)
      else await clearStaleMount(this.#mount.mountpoint)
    }
    return { lazy: !(await comesWithin(this.closed, lazy ? BUSY_RETRY_MS : CLOSE_TIMEOUT_MS)) }
  }

  /** Ends the connection without unmounting. Unless another process holds it too, the mount is dead from then on. */
  close(): void {
    if (!this.#open) return
    this.#open = false
    this.#closeLasting()
    this.#dispatcher.interruptAll()
    this.#channel.close(false)
    const timer = setTimeout(() => this.#channel.close(true), CLOSE_TIMEOUT_MS)
    void this.closed.then(() => clearTimeout(timer))
  }

  get passthrough(): boolean {
    return this.#options.passthrough ?? true
  }

  initialize(negotiated: Negotiated): void {
    this.#negotiated = negotiated
    if (negotiated.flags2 & INIT2.PASSTHROUGH) this.backing.allow()
  }

  interrupt(uniqueLow: number, uniqueHigh: number): void {
    this.#dispatcher.interrupt(uniqueLow, uniqueHigh)
  }

  #start(mountpoint: string): void {
    const entry = mountAt(mountpoint)
    if (entry?.type === FS_TYPE) this.#mount = entry
    this.fs.start(this.#notifications)
    this.#channel.start()
  }

  /** The kernel takes the answer to INIT before anything else happens, so the mount answers as soon as it is sent. */
  async #waitForInit(): Promise<void> {
    for (const end = performance.now() + INIT_TIMEOUT_MS; this.#negotiated === undefined; await sleep(1)) {
      if (this.#initFailure !== undefined) throw this.#initFailure
      if (!this.#open || performance.now() > end) {
        throw new CidfsError('IO', 'the kernel ended the FUSE connection before it began')
      }
    }
  }

  #onReadable(): void {
    for (let i = 0; i < REQUESTS_PER_TURN; i++) {
      const length = this.#channel.read()
      if (length < 0) this.#disconnected(length)
      if (length <= 0 || !this.#dispatcher.dispatch(length)) return
    }
  }

  /** ENODEV: unmounted, or aborted through sysfs. Anything else cannot be repaired either. */
  #disconnected(errno: number): void {
    log('the connection has ended: errno %d', errno)
    this.#unmounted = true
    this.close()
  }

  /** After `close` by choice the handles live on in the kernel, and in whoever inherits the connection. */
  async #onClosed(): Promise<void> {
    if (this.#unmounted) await this.handles.releaseAll(this.fs, err => this.#onUnforeseen(err, 'RELEASE'))
    this.handles.close()
    this.#resolveClosed()
  }

  #onUnforeseen(err: unknown, operation: string): void {
    log('%s: %O', operation, err)
    this.#options.onUnforeseen?.(err, operation)
  }

  #onFailed(opcode: number, err: unknown): void {
    if (opcode === OP.INIT) this.#initFailure = err
  }

  #onJobFailed(errno: number): void {
    this.#statistics.error(OP.READ)
    log('a read of the store failed with errno %d; answered with EIO', errno)
  }
}

/** What to read from, so that it ends with this process. */
function ownDescriptor(fd: number, succession: Succession | undefined): number {
  if (succession === undefined || succession.resend) return fd
  return checkResult(addon().connectionClone(fd), 'clone of /dev/fuse')
}
