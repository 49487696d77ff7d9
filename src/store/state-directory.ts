/**
 * The state directory on disk: where things lie in it, which version it has, and who may use it.
 *
 *     version        {"version":1}
 *     lock           flock'ed while open, holds the pid
 *     index.lmdb     everything that is looked up; index.lmdb-lock is LMDB's own
 *     index.safe     the last state of the index that surely is on disk (see index-snapshot.ts)
 *     reserve        holds space back for a full disk (see reserve.ts)
 *     packs/<id>.car
 *     objects/<2 hex>/<id>
 *     nursery         small staged files that are not published yet
 *
 * Invariant: nothing is written before the version is known to be ours, nor below the lock file before the
 * lock is held. Why flock and not the pid: the kernel gives the lock back however the holder dies.
 */
import * as fs from 'node:fs'
import { join } from 'node:path'
import { CidfsError, messageOf } from '../core/errors.js'
import { native } from '../core/native.js'

export const STATE_VERSION = 1

export class StateDirectory {
  readonly path: string
  readonly #lockFd: number

  private constructor(path: string, lockFd: number) {
    this.path = path
    this.#lockFd = lockFd
  }

  /**
   * Creates the directory (mode 0700) where it is missing and locks it.
   * @throws CidfsError `STATE_VERSION`, `STATE_IN_USE`, `STORE_DAMAGED`, `IO`.
   */
  static open(path: string): StateDirectory {
    try {
      const version = readVersion(path)
      fs.mkdirSync(path, { recursive: true, mode: 0o700 })
      const lockFd = lock(path)
      try {
        if (version === undefined) writeVersion(path)
        fs.mkdirSync(join(path, 'packs'), { recursive: true, mode: 0o700 })
        fs.mkdirSync(join(path, 'objects'), { recursive: true, mode: 0o700 })
      } catch (err) {
        fs.closeSync(lockFd)
        throw err
      }
      return new StateDirectory(path, lockFd)
    } catch (cause) {
      if (cause instanceof CidfsError) throw cause
      throw new CidfsError('IO', `cannot use state directory ${path}: ${messageOf(cause)}`, { cause, path })
    }
  }

  get indexPath(): string {
    return join(this.path, 'index.lmdb')
  }

  get snapshotPath(): string {
    return join(this.path, 'index.safe')
  }

  get packsPath(): string {
    return join(this.path, 'packs')
  }

  get objectsPath(): string {
    return join(this.path, 'objects')
  }

  packPath(id: number): string {
    return join(this.path, 'packs', `${id}.car`)
  }

  /** 256 folders, so that none of them grows to millions of names. */
  objectPath(id: number): string {
    return join(this.path, 'objects', (id % 256).toString(16).padStart(2, '0'), `${id}`)
  }

  /** Gives the lock back. */
  close(): void {
    fs.closeSync(this.#lockFd)
  }
}

/** The version of an existing directory that this program can use; undefined for a new one. */
function readVersion(path: string): number | undefined {
  const text = readIfExists(join(path, 'version'))
  if (text === undefined) {
    if (!fs.existsSync(join(path, 'index.lmdb'))) return undefined
    throw new CidfsError('STORE_DAMAGED', `${path} has an index but no file 'version'; restore that file`, {
      path,
    })
  }
  const version = parseVersion(text)
  if (version === STATE_VERSION) return version
  if (version === undefined) {
    throw new CidfsError('STORE_DAMAGED', `${join(path, 'version')} does not tell a version; restore it`, {
      path,
    })
  }
  const advice =
    version > STATE_VERSION ? 'use a newer cidfs or another state directory' : 'use another state directory'
  throw new CidfsError(
    'STATE_VERSION',
    `${path} has state version ${version}, this cidfs knows version ${STATE_VERSION}: ${advice}`,
    { path },
  )
}

function parseVersion(text: string): number | undefined {
  try {
    const parsed: unknown = JSON.parse(text)
    const version = (parsed as { version?: unknown } | null)?.version
    return Number.isSafeInteger(version) ? (version as number) : undefined
  } catch {
    return undefined
  }
}

function readIfExists(path: string): string | undefined {
  try {
    return fs.readFileSync(path, 'utf8')
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw err
  }
}

/** Whole or not at all, and on disk before anything else is. */
function writeVersion(path: string): void {
  const temporary = join(path, 'version.new')
  fs.writeFileSync(temporary, `${JSON.stringify({ version: STATE_VERSION })}\n`, { mode: 0o600, flush: true })
  fs.renameSync(temporary, join(path, 'version'))
  syncDirectorySync(path)
}

/** Makes the names in a directory durable. */
export function syncDirectorySync(path: string): void {
  const fd = fs.openSync(path, 'r')
  try {
    fs.fsyncSync(fd)
  } finally {
    fs.closeSync(fd)
  }
}

/**
 * Whether a process has died, and only threads of it are left that wait in the kernel: they run no code of ours any
 * more, but keep what was open, the lock too, until another daemon answers what they wait for.
 */
function isDead(pid: string): boolean {
  const stat = readIfExists(`/proc/${pid}/stat`) ?? ''
  return stat.slice(stat.lastIndexOf(')')).startsWith(') Z')
}

function lock(path: string): number {
  const lockPath = join(path, 'lock')
  const fd = fs.openSync(lockPath, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600)
  try {
    if (!native.flock(fd)) {
      const holder = readIfExists(lockPath)?.trim() || 'unknown'
      if (!isDead(holder))
        throw new CidfsError('STATE_IN_USE', `state directory ${path} is in use by process ${holder}`, {
          path,
        })
      fs.rmSync(lockPath)
      const next = lock(path)
      fs.closeSync(fd)
      return next
    }
    fs.ftruncateSync(fd)
    fs.writeSync(fd, `${process.pid}\n`, 0)
    return fd
  } catch (err) {
    fs.closeSync(fd)
    throw err
  }
}
