/**
 * The files that are open, by the small numbers that the package can carry as handles.
 *
 * Invariant: every open is released once: when the kernel says so, or at the end of the connection, which libfuse
 * reaches without telling. A handle keeps its node looked up.
 */
import { CidfsError } from '../core/errors.js'
import type { Fh, Ino } from '../fs/file-system.js'
import type { Name } from './names.js'

/** The addon reads them as int32, and takes 0 for none. */
const MAX_HANDLE = 2 ** 31 - 1

export interface OpenFile {
  /** Held. */
  name: Name
  fh: Fh
  /** Of open(2). */
  flags: number
  /** Nothing happens at close(2). */
  noFlush: boolean
  /** All of a file of unknown size. */
  text?: Uint8Array
}

export class OpenFiles {
  readonly #files = new Map<number, OpenFile>()
  /** How often each node is open. */
  readonly #opens = new Map<Ino, number>()
  #last = 0

  add(file: OpenFile): number {
    do this.#last = (this.#last % MAX_HANDLE) + 1
    while (this.#files.has(this.#last))
    this.#files.set(this.#last, file)
    this.#opens.set(file.name.ino, (this.#opens.get(file.name.ino) ?? 0) + 1)
    return this.#last
  }

  get(handle: number): OpenFile | undefined {
    return this.#files.get(handle)
  }

  /** @throws CidfsError `BAD_HANDLE`. */
  of(handle: number): OpenFile {
    const file = this.#files.get(handle)
    if (file === undefined) throw new CidfsError('BAD_HANDLE', `no open file ${handle}`)
    return file
  }

  take(handle: number): OpenFile | undefined {
    const file = this.#files.get(handle)
    if (file === undefined) return undefined
    this.#files.delete(handle)
    const left = (this.#opens.get(file.name.ino) ?? 1) - 1
    if (left > 0) this.#opens.set(file.name.ino, left)
    else this.#opens.delete(file.name.ino)
    return file
  }

  handles(): number[] {
    return [...this.#files.keys()]
  }

  isOpen(ino: Ino): boolean {
    return this.#opens.has(ino)
  }
}
