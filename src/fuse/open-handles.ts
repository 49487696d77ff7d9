/**
 * The handles that the kernel holds.
 *
 * Invariant: what was opened is released exactly once. The kernel sends RELEASE behind the back of close(2) and
 * drops the ones it has not sent when the last file of a detached mount is closed, so at the end of a connection
 * the session releases what is left here. A handle of 0 stands for nothing and is not counted.
 */
import type { Fh, FileSystem, Ino } from '../fs/file-system.js'

interface OpenHandle {
  ino: Ino
  flags: number
  /** A file system may give the same number to several opens. */
  count: number
}

export class OpenHandles {
  readonly #files = new Map<Fh, OpenHandle>()
  readonly #directories = new Map<Fh, OpenHandle>()

  opened(kind: 'file' | 'directory', ino: Ino, fh: Fh, flags: number): void {
    if (fh === 0) return
    const handles = this.#of(kind)
    const handle = handles.get(fh)
    if (handle === undefined) handles.set(fh, { ino, flags, count: 1 })
    else handle.count++
  }

  released(kind: 'file' | 'directory', fh: Fh): void {
    const handles = this.#of(kind)
    const handle = handles.get(fh)
    if (handle !== undefined && --handle.count === 0) handles.delete(fh)
  }

  #of(kind: 'file' | 'directory'): Map<Fh, OpenHandle> {
    return kind === 'file' ? this.#files : this.#directories
  }

  /** Releases all that is left. Errors go nowhere, like those of any release; `failed` is told. */
  async releaseAll(fs: FileSystem, failed: (err: unknown) => void): Promise<void> {
    const releases: Promise<void>[] = []
    for (const [fh, handle] of take(this.#files)) {
      releases.push(attempt(() => fs.release(handle.ino, fh, handle.flags)).catch(failed))
    }
    for (const [fh, handle] of take(this.#directories)) {
      releases.push(attempt(() => fs.releasedir(handle.ino, fh)).catch(failed))
    }
    await Promise.all(releases)
  }
}

/** Everything in the map, as often as it was opened. The map is empty afterwards. */
function take(handles: Map<Fh, OpenHandle>): [Fh, OpenHandle][] {
  const all = [...handles].flatMap(entry => Array<[Fh, OpenHandle]>(entry[1].count).fill(entry))
  handles.clear()
  return all
}

async function attempt(release: () => void | Promise<void>): Promise<void> {
  await release()
}
