/**
 * Callbacks on open files.
 *
 * Invariant: what belongs to a file goes by its handle; the path beside it is where libfuse believes it to be. The
 * package's buffers are libfuse's own memory, and gone with the answer.
 */
import { constants, read as readFile } from 'node:fs'
import type { FileRange } from '../core/blocks.js'
import { CidfsError } from '../core/errors.js'
import { type MaybePromise, then } from '../core/maybe-promise.js'
import type { Opened, ReadResult } from '../fs/file-system.js'
import { answerBytes, answerVoid, answerWith, type Host, inDirectory, plain } from './host.js'
import { keyOf, type Name } from './names.js'
import type { FuseOperations } from './package.js'
import { readWhole } from './unsized-files.js'

/** Of a file that is created: the package does not say how it is opened. The kernel lets nobody exceed that. */
const CREATE_FLAGS = constants.O_CREAT | constants.O_RDWR

export type FileOperations = Pick<
  FuseOperations,
  'open' | 'create' | 'read' | 'write' | 'flush' | 'fsync' | 'release'
>

export function fileOperations(host: Host): FileOperations {
  const { fs, files, requests } = host
  const ctx = requests.context
  return {
    open: (path, flags, answer) => answerWith(host, 'OPEN', answer, () => open(host, path, flags)),
    create: (path, mode, answer) => answerWith(host, 'CREATE', answer, () => create(host, path, mode)),
    read: (_path, fd, into, length, offset, answer) =>
      answerBytes(host, 'READ', answer, () => {
        const { name, fh, text } = files.of(fd)
        if (text !== undefined) return copyTo(into, text.subarray(offset, offset + length))
        return then(fs.read(name.ino, fh, offset, length, ctx), result => copyTo(into, result))
      }),
    write: (_path, fd, from, length, offset, answer) =>
      answerBytes(host, 'WRITE', answer, () => {
        const { name, fh, flags } = files.of(fd)
        // where to append is known to the kernel; what is written back from a mapping has its place
        return fs.write(name.ino, fh, offset, plain(from, length), flags & ~constants.O_APPEND, ctx)
      }),
    flush: (_path, fd, answer) =>
      answerVoid(host, 'FLUSH', answer, () => {
        const { name, fh, noFlush } = files.of(fd)
        return noFlush ? undefined : fs.flush(name.ino, fh, ctx)
      }),
    fsync: (_path, dataOnly, fd, answer) =>
      answerVoid(host, 'FSYNC', answer, () => {
        const { name, fh } = files.of(fd)
        return fs.fsync(name.ino, fh, dataOnly !== 0, ctx)
      }),
    release: (_path, fd, answer) => answerVoid(host, 'RELEASE', answer, () => release(host, fd)),
  }
}

function open(host: Host, path: string, flags: number): MaybePromise<number> {
  const { fs, names, requests, changed } = host
  return then(names.resolve(path, requests.context), name =>
    names.during(name, () =>
      then(fs.open(name.ino, flags, requests.context), opened => {
        const fd = add(host, name, opened, flags)
        if (changed.delete(name.ino)) return lookAgain(host, fd)
        return opened.directIo === true ? openDirect(host, fd) : fd
      }),
    ),
  )
}

/** Not to be cached: if its size is known it is all the same, else it has to be told first. */
async function openDirect(host: Host, fd: number): Promise<number> {
  const { fs, files, unsized, requests } = host
  const file = files.of(fd)
  const { ino } = file.name
  try {
    const { attributes } = await fs.getattr(ino, file.fh, requests.context)
    if (attributes.sizeBytes > 0) return fd
    file.text = unsized.current(ino) ?? (await readWhole(fs, ino, file.fh, requests.context))
  } catch (err) {
    await release(host, fd)
    throw err
  }
  return unsized.current(ino) === file.text || unsized.made(ino, file.text) ? fd : lookAgain(host, fd)
}

/**
 * Opening has shown that the kernel has been told a wrong size, and there are no notifications here. On ESTALE it
 * looks the path up once more, which tells it, and opens again.
 */
function lookAgain(host: Host, fd: number): MaybePromise<never> {
  return then(release(host, fd), () => {
    throw new CidfsError('STALE', 'its size is another one')
  })
}

function create(host: Host, path: string, mode: number): MaybePromise<number> {
  const { fs, names, requests } = host
  return inDirectory(host, path, (parent, name) =>
    then(fs.create(parent, name, mode, CREATE_FLAGS, requests.context), ({ entry, opened }) =>
      add(host, names.add(keyOf(parent, name), entry), opened, CREATE_FLAGS),
    ),
  )
}

/** The kernel does all reading and writing through us here, so an offer to let it is not taken. */
function add({ names, files }: Host, name: Name, { fh, noFlush = false }: Opened, flags: number): number {
  return files.add({ name: names.hold(name), fh, flags, noFlush })
}

export function release(host: Host, fd: number): MaybePromise<void> {
  const { fs, names, files } = host
  const file = files.take(fd)
  if (file === undefined) return
  const { ino } = file.name
  return names.during(file.name, () => {
    if (!files.isOpen(ino)) names.unhide(ino)
    return fs.release(ino, file.fh, file.flags)
  })
}

function copyTo(into: Buffer, result: ReadResult): MaybePromise<number> {
  if (!('ranges' in result)) {
    into.set(result)
    return result.length
  }
  return readRanges(into, result.ranges).finally(() => result.release())
}

/** All of them end before the answer: a late one would write into memory that is somebody else's. */
async function readRanges(into: Buffer, ranges: readonly FileRange[]): Promise<number> {
  const reads: Promise<void>[] = []
  let at = 0
  for (const range of ranges) {
    reads.push(readRange(into, at, range))
    at += range.length
  }
  const failed = (await Promise.allSettled(reads)).find(read => read.status === 'rejected')
  if (failed !== undefined) throw failed.reason
  return at
}

/** @throws Error of read(2), CidfsError `IO` when the file is shorter than the range. */
function readRange(into: Buffer, at: number, { fd, offset, length }: FileRange): Promise<void> {
  return new Promise((resolve, reject) => {
    const step = (done: number): void => {
      if (done === length) {
        resolve()
        return
      }
      readFile(fd, into, at + done, length - done, offset + done, (err, bytes) => {
        if (err !== null) reject(err)
        else if (bytes === 0) reject(new CidfsError('IO', 'a file of the store is too short'))
        else step(done + bytes)
      })
    }
    step(0)
  })
}
