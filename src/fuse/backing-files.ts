/**
 * Files that the kernel reads and writes by itself (FUSE passthrough), by inode.
 *
 * Invariant: all opens of an inode that the kernel holds at one time agree: none of them is passed through, or all
 * are, by one backing id. The kernel refuses to mix them (EIO at open), and takes two ids of one file for two files.
 * So the first open decides, and the last release ends it; the kernel leaves the mode of an inode before it sends
 * that release, so that what is decided next never meets what was.
 *
 * Reference: fs/fuse/iomode.c, fs/fuse/backing.c, Documentation/filesystems/fuse/fuse-passthrough.rst
 */
import { logger } from '../core/log.js'
import { NativeError } from '../core/native.js'
import type { Ino, Passthrough } from '../fs/file-system.js'
import type { Channel } from './channel.js'

const log = logger('fuse:passthrough')

/** No backing file. The kernel counts ids from 1. */
export const NO_BACKING = 0

const REFUSALS: Record<string, string> = {
  EPERM: 'not permitted: it needs CAP_SYS_ADMIN',
  ELOOP: 'not possible: the state directory lies on a stacked file system',
}

interface OpenInode {
  id: number
  opens: number
}

export class BackingFiles {
  readonly #channel: Pick<Channel, 'openBacking' | 'closeBacking'>
  readonly #inodes = new Map<Ino, OpenInode>()
  #allowed = false
  #refusal: string | undefined

  constructor(channel: Pick<Channel, 'openBacking' | 'closeBacking'>) {
    this.#channel = channel
  }

  /** FUSE_INIT agreed upon it. */
  allow(): void {
    this.#allowed = true
  }

  /** `on`, or why files are not passed through. */
  get state(): string {
    if (this.#refusal !== undefined)
      return REFUSALS[this.#refusal] ?? `refused by the kernel: ${this.#refusal}`
    return this.#allowed ? 'on' : 'not supported by the kernel'
  }

  /** Counts an open. @returns the backing id that its reply has to carry, or `NO_BACKING`. */
  opened(ino: Ino, offer: Passthrough | undefined): number {
    const inode = this.#inodes.get(ino)
    if (inode === undefined) {
      const id = this.#decide(offer)
      this.#inodes.set(ino, { id, opens: 1 })
      return id
    }
    inode.opens++
    offer?.offer(() => (inode.id === NO_BACKING ? 'refused' : 'taken'))
    return inode.id
  }

  /** An earlier daemon has opened it so, and the kernel still has it open. */
  resume(ino: Ino, id: number): void {
    const inode = this.#inodes.get(ino)
    if (inode === undefined) this.#inodes.set(ino, { id, opens: 1 })
    else inode.opens++
  }

  #decide(passthrough: Passthrough | undefined): number {
    let id = NO_BACKING
    passthrough?.offer(fd => {
      if (!this.#allowed) return 'unsupported'
      const result = this.#channel.openBacking(fd)
      if (result <= 0) return this.#refused(result)
      id = result
      return 'taken'
    })
    return id
  }

  /** Without the privilege, or on top of another stacked file system, it is served the ordinary way. */
  #refused(errno: number): 'refused' | 'unsupported' {
    const { code } = new NativeError(errno, 'ioctl')
    if (this.#refusal === undefined) log('the kernel takes no backing file: %s', code)
    this.#refusal = code
    if (code !== 'EPERM') return 'refused'
    this.#allowed = false
    return 'unsupported'
  }

  /** The kernel has let go of one open. Unknown: it was opened before this process took the connection over. */
  released(ino: Ino): void {
    const inode = this.#inodes.get(ino)
    if (inode === undefined || --inode.opens > 0) return
    this.#inodes.delete(ino)
    if (inode.id !== NO_BACKING) this.#channel.closeBacking(inode.id)
  }
}
