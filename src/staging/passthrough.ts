/**
 * Working objects that the kernel reads and writes by itself.
 *
 * Invariant: all opens of a file stay on the object that its first open was given until the last is closed. So only
 * a file that has one when its first open, a writer, comes is offered, and such an object is never sealed: published
 * while somebody still reads it, the file gets a copy of it for an object, and the next writer goes on with the
 * original (`revive`).
 * Why stamps: nobody tells of such a write. Size and time of the object do, whenever they are asked for.
 */
import { native } from '../core/native.js'
import { type StagingNode, type Timestamp, withoutSuid } from './node.js'
import { type OpenContent, sameStamp, stampOf } from './open-content.js'
import { SharedFd } from './shared-fd.js'

/** Whether the kernel may serve the file that `fd` is open on. */
export type Attempt = (fd: number) => 'taken' | 'refused' | 'unsupported'

/** What is needed of the owner of working objects. */
export interface WorkingObjects {
  file(content: OpenContent): SharedFd
  /** From here on the object is the content. */
  adopt(content: OpenContent, container: number, sizeBytes: number): void
  changed(content: OpenContent, sizeBytes: number, at: Timestamp): void
  saveSoon(content: OpenContent): void
  drop(container: number): void
  path(container: number): string
  /** The kernel has stopped writing to the object by itself. */
  written(container: number): void
  /** Whether there is so much space that nobody has to be asked before each write. */
  mayBeWrittenUnseen(): boolean
}

export class Passthrough {
  readonly #objects: WorkingObjects
  /** Objects of an earlier daemon, and whether its mount goes on. */
  readonly #inherited = new Map<number, boolean>()
  #supported = true

  constructor(objects: WorkingObjects) {
    this.#objects = objects
  }

  /** False: the kernel has said that it serves no files by itself. */
  get isSupported(): boolean {
    return this.#supported
  }

  /** As `Contents.offer`, of a file that has just been opened. */
  offer(content: OpenContent, attempt: Attempt): boolean {
    if (!this.#canBeOffered(content)) return false
    const { fd } = content.passthrough === undefined ? this.#objects.file(content) : content.file!
    const answer = attempt(fd)
    if (answer === 'taken') content.passthrough ??= stampOf(fd)
    if (answer === 'unsupported') this.#supported = false
    return true
  }

  #canBeOffered({ node, readers, writers, copying, passthrough }: OpenContent): boolean {
    if (passthrough !== undefined) return true
    const first = writers === 1 && readers === 0 && node.mode === withoutSuid(node.mode)
    if (!this.#supported || !first || node.object === undefined || copying !== undefined) return false
    return this.#objects.mayBeWrittenUnseen()
  }

  /** Whether a file is passed through; if so, its node is brought up to date. */
  learn(content: OpenContent): boolean {
    if (content.passthrough === undefined) return false
    if (content.node.object === undefined) return true
    const stamp = stampOf(this.#objects.file(content).fd)
    if (!sameStamp(stamp, content.passthrough)) this.#written(content, stamp)
    content.passthrough = stamp
    return true
  }

  /** The kernel leaves it to us to take the set-user-ID bit off, and does not say who wrote: it goes in any case. */
  #written(content: OpenContent, stamp: { sizeBytes: number; mtime: Timestamp }): void {
    content.node.mode = withoutSuid(content.node.mode)
    this.#objects.changed(content, stamp.sizeBytes, stamp.mtime)
  }

  /**
   * An open was given back. Times may be too coarse to show each change: whoever hashed the content while it was
   * written is told that it has become another one in any case.
   */
  closed(content: OpenContent, lastWriter: boolean): void {
    if (content.passthrough === undefined) return
    if (lastWriter) {
      this.#objects.written(content.container)
      content.node.generation++
      this.#objects.saveSoon(content)
    }
    if (content.readers + content.writers > 0) return
    content.passthrough = undefined
    if (content.node.object !== undefined) return
    content.file?.release()
    content.file = undefined
    this.#objects.drop(content.container)
  }

  /** The kernel's opens are on an object that was published as a copy: it is the working object again. */
  revive(content: OpenContent): void {
    if (content.passthrough === undefined || content.node.object !== undefined) return
    this.#objects.adopt(content, content.container, content.node.sizeBytes)
  }

  /** An earlier daemon may have given the object to the kernel; `isMounted`: its mount goes on. */
  inherit(object: number, isMounted: boolean): void {
    this.#inherited.set(object, isMounted)
  }

  /**
   * Whether programs that have outlived an earlier daemon may still write to the node's working object. Without its
   * mount nobody can come to it who has not got it.
   */
  mayBeInherited({ object }: StagingNode): boolean {
    if (object === undefined) return false
    const isMounted = this.#inherited.get(object)
    if (isMounted === undefined) return false
    if (isMounted || this.#hasWriters(object)) return true
    this.#inherited.delete(object)
    return false
  }

  #hasWriters(object: number): boolean {
    const file = new SharedFd(this.#objects.path(object), 'r')
    try {
      return native.hasWriters(file.fd)
    } finally {
      file.release()
    }
  }
}
