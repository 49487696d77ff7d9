/**
 * A descriptor with several users, closed when the last one has gone.
 *
 * Why: the transport's threads may still read from a file that has been replaced in the meantime; a descriptor
 * closed under them could by then be another file's.
 */
import * as fs from 'node:fs'

export class SharedFd {
  readonly fd: number
  #users = 1

  /** Opens `path`; the caller is the first user. */
  constructor(path: string, flags: string | number, mode?: number) {
    this.fd = fs.openSync(path, flags, mode)
  }

  retain(): this {
    this.#users++
    return this
  }

  release(): void {
    if (--this.#users === 0) fs.closeSync(this.fd)
  }
}
