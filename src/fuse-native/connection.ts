/**
 * The connection that libfuse has to the kernel, seen from outside.
 *
 * Invariant: its end is learnt from the kernel, whoever unmounts, and `ended` resolves when nothing of libfuse's is
 * left: the package tells neither. While libfuse reads, nothing here touches its descriptor: a second one of the same
 * connection is watched, which has flags of its own.
 *
 * Reference: FUSE_DEV_IOC_CLONE; fuse_loop_mt of libfuse 2.9 joins its threads, then closes the descriptor
 */
import { readdirSync, readlinkSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { logger } from '../core/log.js'
import { addon, type ChannelHandle, checkResult, NativeError } from '../core/native.js'

const log = logger('fuse-native:connection')

const DEVICE = '/dev/fuse'
const POLL_MS = 5
/** From the end of the connection to the end of libfuse's threads, once nothing keeps them. */
const CLOSE_TIMEOUT_MS = 5000

/** This process's descriptors of `/dev/fuse`. */
export function fuseDescriptors(): Set<number> {
  const all = readdirSync('/proc/self/fd').map(Number)
  return new Set(all.filter(isFuse))
}

function isFuse(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === DEVICE
  } catch {
    return false
  }
}

export class Connection {
  /** Resolves when the connection has ended. */
  readonly ended: Promise<void>
  readonly #fd: number
  #watch: ChannelHandle | undefined
  #resolveEnded!: () => void

  /** `fd` is libfuse's. @throws NativeError when it cannot be watched. */
  constructor(fd: number) {
    this.#fd = fd
    this.ended = new Promise(resolve => {
      this.#resolveEnded = resolve
    })
    const clone = checkResult(addon().connectionClone(fd), 'ioctl')
    const unused = [new Uint8Array(1), new Uint8Array(1)] as const
    const watch = addon().channelOpen(
      clone,
      ...unused,
      () => this.#end(),
      () => {},
      () => this.#resolveEnded(),
    )
    if (typeof watch === 'number') throw new NativeError(watch, 'uv_poll_init')
    this.#watch = watch
    checkResult(addon().channelAwaitEnd(watch), 'uv_poll_start')
  }

  /** Also when it has not: then nobody watches any more. */
  #end(): void {
    if (this.#watch !== undefined) addon().channelClose(this.#watch, true)
    this.#watch = undefined
  }

  stopWatching(): void {
    this.#end()
  }

  /** Waits until libfuse has closed its descriptor, which it does when its threads have ended. */
  async freed(): Promise<void> {
    for (const end = performance.now() + CLOSE_TIMEOUT_MS; isFuse(this.#fd); await sleep(POLL_MS)) {
      if (performance.now() < end) continue
      log('libfuse has not closed descriptor %d', this.#fd)
      return
    }
  }
}
