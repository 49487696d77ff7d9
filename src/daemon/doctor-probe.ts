/**
 * Mounts for a moment, to see whether that works and what the kernel offers.
 *
 * Invariant: an empty file system on a temporary directory of its own, gone when the function returns, also after a
 * failure. Nobody looks into it, so nothing can hang on it.
 */
import { closeSync, mkdtempSync, openSync, rmdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CidfsError, codeOf, type ErrorCode, messageOf } from '../core/errors.js'
import type { Attributes, Entry, FileSystem, Ino, NegativeEntry, StatFs } from '../fs/file-system.js'
import type { Session } from '../fs/session.js'
import { plainAttributes, ReadOnlyTree, S_IFDIR } from '../fs/tree.js'
import type { Negotiated } from '../fuse/init.js'
import { FuseSession } from '../fuse/session.js'
import type { Config } from './config.js'
import type { Transport } from './config-options.js'
import { nearestDirectory } from './doctor-state.js'

export type Probe =
  | { works: true; negotiated?: Negotiated | undefined; passthrough?: string }
  | { works: false; code: ErrorCode | undefined; why: string }

const UNMOUNT = { lazyAfterMs: 1000 }

/** Mounts and unmounts with this transport. Never fails. */
export async function probeMount(transport: Transport, config: Config): Promise<Probe> {
  let dir: string | undefined
  try {
    dir = temporaryDirectory()
    return transport === 'native' ? await probeNative(dir, config) : await probeFuseNative(dir, config)
  } catch (err) {
    return { works: false, code: codeOf(err), why: messageOf(err) }
  } finally {
    if (dir !== undefined) removeEmpty(dir)
  }
}

/** @throws CidfsError `PERMISSION` that says what to do. */
function temporaryDirectory(): string {
  try {
    return mkdtempSync(join(tmpdir(), 'cidfs-doctor-'))
  } catch (cause) {
    const message = `${tmpdir()} cannot be written, so nothing was tried: set TMPDIR to a directory of this user`
    throw new CidfsError('PERMISSION', message, { cause })
  }
}

async function probeNative(dir: string, { allowOther, stateDir }: Config): Promise<Probe> {
  const session = await FuseSession.mount(dir, new EmptyFileSystem(), { allowOther })
  try {
    return { works: true, negotiated: session.negotiated, passthrough: tryPassthrough(session, stateDir) }
  } finally {
    await end(session)
  }
}

async function end(session: Session): Promise<void> {
  await session.unmount(UNMOUNT).finally(() => session.close())
  await session.closed
}

/** Offers the kernel a file of the disk that the state lies on. */
function tryPassthrough(session: FuseSession, stateDir: string): string {
  const file = join(nearestDirectory(stateDir), `.cidfs-doctor-${process.pid}`)
  const probeIno = 2
  try {
    const fd = openSync(file, 'wx+', 0o600)
    session.backing.opened(probeIno, { offer: attempt => void attempt(fd) })
    session.backing.released(probeIno)
    closeSync(fd)
    return session.backing.state
  } catch (err) {
    return `not tried: ${messageOf(err)}`
  } finally {
    rmSync(file, { force: true })
  }
}

async function probeFuseNative(dir: string, { allowOther }: Config): Promise<Probe> {
  const { FuseNativeSession } = await import('../fuse-native/session.js')
  await end(await FuseNativeSession.mount(dir, new EmptyFileSystem(), { allowOther }))
  return { works: true }
}

function removeEmpty(dir: string): void {
  try {
    rmdirSync(dir)
  } catch {
    // still mounted: whatever is wrong is in the report
  }
}

class EmptyFileSystem extends ReadOnlyTree implements FileSystem {
  start(): void {}

  statfs(): StatFs {
    const none = { blocks: 0, blocksFree: 0, blocksAvailable: 0, files: 0, filesFree: 0 }
    return { ...none, blockSizeBytes: 4096, nameMaxBytes: 255 }
  }

  override lookup(): Entry | NegativeEntry {
    return { attributes: undefined, entryTtlMs: 0 }
  }

  override getattr(ino: Ino): { attributes: Attributes; ttlMs: number } {
    return { attributes: plainAttributes(ino, S_IFDIR | 0o555, 0), ttlMs: 0 }
  }

  override readdir(): void {}
}
