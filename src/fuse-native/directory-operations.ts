/**
 * Callbacks on directories as lists.
 *
 * Invariant: a listing is read to its end for each request, because libfuse takes it as a whole; the package has no
 * handles of directories.
 */
import type { MaybePromise } from '../core/maybe-promise.js'
import type { DirectoryEntry, DirectorySink, Fh, Ino } from '../fs/file-system.js'
import { answerVoid, type Host, onNode } from './host.js'
import type { FuseOperations, StatWords } from './package.js'
import { entryWords } from './stat-words.js'

export type DirectoryOperations = Pick<FuseOperations, 'readdir' | 'fsyncdir'>

export function directoryOperations(host: Host): DirectoryOperations {
  const { fs, requests } = host
  return {
    readdir(path, answer) {
      const done = (list: Listing) => answer(0, list.names, list.stats)
      const failed = answer as (errno: number) => void
      requests.run('READDIR', () => onNode(host, path, ino => readAll(host, ino)), done, failed)
    },
    fsyncdir: (path, dataOnly, _fd, answer) =>
      answerVoid(host, 'FSYNCDIR', answer, () =>
        onNode(host, path, ino =>
          opened(host, ino, fh => fs.fsyncdir(ino, fh, dataOnly !== 0, requests.context)),
        ),
      ),
  }
}

async function opened<T>({ fs, requests }: Host, ino: Ino, work: (fh: Fh) => MaybePromise<T>): Promise<T> {
  const { fh } = await fs.opendir(ino, 0, requests.context)
  try {
    return await work(fh)
  } finally {
    await fs.releasedir(ino, fh)
  }
}

interface Listing {
  names: string[]
  stats: StatWords[]
}

function readAll(host: Host, ino: Ino): Promise<Listing> {
  return opened(host, ino, async fh => {
    const list: Listing = { names: [], stats: [] }
    for (let offset = 0, before = -1; offset !== before; ) {
      before = offset
      const sink: DirectorySink = {
        add(entry) {
          addTo(list, entry)
          offset = entry.nextOffset
          return true
        },
        addPlus: () => false,
      }
      await host.fs.readdir(ino, fh, offset, false, sink, host.requests.context)
    }
    return list
  })
}

/** A name that is not UTF-8 is left out: the addon could not carry it, nor could it be looked up. */
function addTo(list: Listing, { name, ino, type }: DirectoryEntry): void {
  const text = Buffer.from(name.buffer, name.byteOffset, name.length).toString()
  if (text.includes('\ufffd')) return
  list.names.push(text)
  list.stats.push(entryWords(ino, type))
}
