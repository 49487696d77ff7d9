/**
 * Reads blocks that the server sends, from the files that they lie in.
 *
 * Invariant: few descriptors, and none for longer than a moment after its last use, so that a file that the store
 * has removed frees its space. A file that has gone, or is shorter than it should be, has no block.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { HeldBlock } from './supply.js'

const log = logger('bitswap:files')

const MAX_OPEN = 32
const IDLE_MS = 1_000

interface OpenFile {
  handle: Promise<FileHandle>
  users: number
  timer: NodeJS.Timeout | undefined
}

export class ServedFiles {
  readonly #open = new Map<string, OpenFile>()

  /** The bytes, or undefined when they are not there any more. */
  async read({ path, offset, length }: HeldBlock): Promise<Uint8Array | undefined> {
    const file = this.#acquire(path)
    try {
      const bytes = Buffer.allocUnsafeSlow(length)
      const { bytesRead } = await (await file.handle).read(bytes, 0, length, offset)
      return bytesRead === length ? bytes : undefined
    } catch (err) {
      log('%s: %s', path, messageOf(err))
      return undefined
    } finally {
      this.#release(path, file)
    }
  }

  async close(): Promise<void> {
    const files = [...this.#open.entries()]
    await Promise.all(files.map(([path, file]) => this.#close(path, file)))
  }

  #acquire(path: string): OpenFile {
    const known = this.#open.get(path)
    const file = known ?? { handle: open(path, 'r'), users: 0, timer: undefined }
    clearTimeout(file.timer)
    file.users++
    if (known === undefined) this.#open.set(path, file)
    return file
  }

  #release(path: string, file: OpenFile): void {
    if (--file.users > 0) return
    if (this.#open.get(path) !== file || this.#open.size > MAX_OPEN) void this.#close(path, file)
    else file.timer = setTimeout(() => void this.#close(path, file), IDLE_MS)
  }

  /** Not while somebody reads from it: the last of them closes it then. */
  async #close(path: string, file: OpenFile): Promise<void> {
    clearTimeout(file.timer)
    if (this.#open.get(path) === file) this.#open.delete(path)
    if (file.users > 0) return
    const handle = await file.handle.catch(() => undefined) // one that could not be opened
    await handle?.close()
  }
}
