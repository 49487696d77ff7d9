/**
 * The handles that the kernel holds.
 *
 * Invariant: what was opened is released exactly once, and a handle never names two opens, not even those of two
 * daemons: a RELEASE that comes again finds nothing left to do. The kernel sends RELEASE behind the back of close(2)
 * and drops the ones it has not sent when the last file of a detached mount is closed, so at the end of a connection
 * the session releases what is left here.
 * Files are numbered here, and where another daemon may take over they are written down (`HandleLog`). Directories
 * keep the file system's own handles; one of 0 stands for nothing and is not counted.
 */
import type { Fh, FileSystem, Ino } from '../fs/file-system.js'
import type { HandleLog, LoggedHandle } from './handle-log.js'

export interface OpenFile extends Omit<LoggedHandle, 'handle'> {
  /** The file system's own. */
  fh: Fh
}

interface OpenDirectory {
  ino: Ino
  /** A file system may give the same number to several opens. */
  count: number
}

export class OpenHandles {
  readonly #log: HandleLog | undefined
  readonly #files = new Map<Fh, OpenFile>()
  readonly #directories = new Map<Fh, OpenDirectory>()
  /** Opens of an earlier daemon, by their requests. */
  readonly #inherited = new Map<number, Fh>()
  #next: Fh = 1

  constructor(log?: HandleLog) {
    this.#log = log
  }

  /** The kernel still has what an earlier daemon opened. */
  resume(handle: Fh, file: OpenFile): void {
    this.#files.set(handle, file)
    this.#inherited.set(file.requestId, handle)
  }

  /** Counts an open, before the kernel hears of it; returns the handle for the kernel. */
  opened(file: OpenFile): Fh {
    const handle = this.#log?.opened(file) ?? this.#next++
    this.#files.set(handle, file)
    return handle
  }

  /** The file system's handle for one of the kernel's; 0 when it is not known. */
  fh(handle: Fh): Fh {
    return this.#files.get(handle)?.fh ?? 0
  }

  /** What the handle named; undefined: it was released before. */
  released(handle: Fh): OpenFile | undefined {
    const file = this.#files.get(handle)
    if (file === undefined) return undefined
    this.#log?.released(handle)
    this.#files.delete(handle)
    this.#inherited.delete(file.requestId)
    return file
  }

  /** The handle that an earlier daemon made for a request, whose answer has not arrived. */
  repeated(requestId: number): Fh | undefined {
    return this.#inherited.get(requestId)
  }

  directoryOpened(ino: Ino, fh: Fh): void {
    if (fh === 0) return
    const directory = this.#directories.get(fh)
    if (directory === undefined) this.#directories.set(fh, { ino, count: 1 })
    else directory.count++
  }

  directoryReleased(fh: Fh): void {
    const directory = this.#directories.get(fh)
    if (directory !== undefined && --directory.count === 0) this.#directories.delete(fh)
  }

  /** Releases all that is left. Errors go nowhere, like those of any release; `failed` is told. */
  async releaseAll(fs: FileSystem, failed: (err: unknown) => void): Promise<void> {
    const releases: Promise<void>[] = []
    for (const handle of [...this.#files.keys()]) {
      const { ino, fh, flags } = this.released(handle)!
      releases.push(attempt(() => fs.release(ino, fh, flags)).catch(failed))
    }
    for (const [fh, { ino, count }] of this.#directories) {
      for (let i = 0; i < count; i++) releases.push(attempt(() => fs.releasedir(ino, fh)).catch(failed))
    }
    this.#directories.clear()
    await Promise.all(releases)
  }

  /** Nothing is written down any more. */
  close(): void {
    this.#log?.close()
  }
}

async function attempt(release: () => void | Promise<void>): Promise<void> {
  await release()
}
