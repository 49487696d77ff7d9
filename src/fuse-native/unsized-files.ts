/**
 * Files whose size is not known before they are read (those of `.cidfs/`, as in /proc).
 *
 * Invariant: the kernel is told the size of what it will read before it reads. With other transports such files
 * bypass the page cache for each open; libfuse could do that for all files of a mount or for none, and a size of 0
 * would make them empty. So the text is made when the file is opened; if the kernel believes in another size, the
 * open answers ESTALE, on which the kernel looks the path up again, learns the size, and opens once more.
 * What was made is shared as long as the kernel goes by what it was told.
 */
import { CidfsError } from '../core/errors.js'
import type { Context, FileSystem, Ino, ReadResult } from '../fs/file-system.js'

/** libfuse's attr_timeout. */
export const TOLD_MS = 1000
const MAX_BYTES = 16 * 1024 * 1024
const READ_BYTES = 128 * 1024
const MAX_FILES = 100

interface Text {
  bytes: Uint8Array
  madeMs: number
  /** The kernel has been told its size. */
  told: boolean
}

export class UnsizedFiles {
  /** Oldest first. */
  readonly #texts = new Map<Ino, Text>()

  /** The size to tell of a file that says 0. */
  tell(ino: Ino): number {
    const text = this.#texts.get(ino)
    if (text === undefined) return 0
    text.told = true
    return text.bytes.length
  }

  /** A text that the kernel may be reading in another open. */
  current(ino: Ino): Uint8Array | undefined {
    const text = this.#texts.get(ino)
    return text?.told && performance.now() - text.madeMs < TOLD_MS ? text.bytes : undefined
  }

  /** @returns whether the kernel goes by this size already. */
  made(ino: Ino, bytes: Uint8Array): boolean {
    const before = this.#texts.get(ino)
    const told = before?.told === true && before.bytes.length === bytes.length
    this.#texts.delete(ino)
    this.#texts.set(ino, { bytes, madeMs: performance.now(), told })
    const [oldest] = this.#texts.keys()
    if (this.#texts.size > MAX_FILES) this.#texts.delete(oldest!)
    return told
  }
}

/** All of an open file. @throws CidfsError `FILE_TOO_LARGE`, and what reads throw. */
export async function readWhole(fs: FileSystem, ino: Ino, fh: number, ctx: Context): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  for (let offset = 0; offset <= MAX_BYTES; ) {
    const part = bytesOf(await fs.read(ino, fh, offset, READ_BYTES, ctx))
    if (part.length === 0) return Buffer.concat(parts)
    parts.push(part)
    offset += part.length
  }
  throw new CidfsError('FILE_TOO_LARGE', 'a file of unknown size is larger than 16 MiB')
}

function bytesOf(result: ReadResult): Uint8Array {
  if (!('ranges' in result)) return result
  result.release()
  throw new CidfsError('NOT_SUPPORTED', 'a file of unknown size that lies on the disk')
}
