/**
 * A file that holds some of the disk's space back, for the day on which others have taken the rest.
 *
 * Invariant: while it is held, that much can be had at once by giving it up. What was accepted can then still be
 * published, and names can be removed, on a disk that is full to the last block: both need a little of the index.
 */
import * as fs from 'node:fs'
import { messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { native } from '../core/native.js'
import { isFull } from './packs.js'

const log = logger('store:reserve')

export class Reserve {
  readonly #path: string
  readonly sizeBytes: number
  #held = false
  #isPossible = true

  constructor(path: string, sizeBytes: number) {
    this.#path = path
    this.sizeBytes = sizeBytes
  }

  get held(): boolean {
    return this.#held
  }

  /** Not every file system gives space without having it written. */
  get isPossible(): boolean {
    return this.#isPossible
  }

  /** Takes the space if the disk has it. */
  take(): void {
    if (this.#held || !this.#isPossible) return
    let fd: number | undefined
    try {
      fd = fs.openSync(this.#path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600)
      native.fallocate(fd, 0, 0, this.sizeBytes)
      this.#held = true
    } catch (err) {
      log('no reserve: %s', messageOf(err))
      this.#isPossible = isFull((err as NodeJS.ErrnoException).code)
      this.#truncate()
    } finally {
      if (fd !== undefined) fs.closeSync(fd)
    }
  }

  /** Whether there was something to give up. */
  giveUp(): boolean {
    if (!this.#held) return false
    this.#held = false
    this.#truncate()
    log('the disk is full: the reserve of %d bytes is given up', this.sizeBytes)
    return true
  }

  #truncate(): void {
    try {
      fs.truncateSync(this.#path, 0)
    } catch (err) {
      log('%s stays as it is: %s', this.#path, messageOf(err))
    }
  }
}
