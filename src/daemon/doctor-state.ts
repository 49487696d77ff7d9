/**
 * Checks of the state directory and its disk.
 *
 * Invariant: a state directory that does not exist is not made: what is tried is tried in the nearest directory above
 * it, with files that are removed at once.
 */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  openSync,
  rmSync,
  statfsSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { messageOf } from '../core/errors.js'
import { reflink } from '../core/native.js'
import type { Config } from './config.js'
import { type DoctorCheck, fine, trouble } from './doctor-check.js'
import { findByState } from './registry.js'

const GIB = 2 ** 30
/** Less free space than this is worth a warning. */
const FEW_BYTES = GIB

/** f_type of statfs(2), for those that people have. */
const FILE_SYSTEMS: Record<number, string> = {
  61267: 'ext4',
  1481003842: 'xfs',
  2435016766: 'btrfs',
  801189825: 'zfs',
  3393526350: 'bcachefs',
  4076150800: 'f2fs',
  16914836: 'tmpfs',
  2035054128: 'overlayfs',
  26985: 'nfs',
  4283649346: 'cifs',
  1702057286: 'fuse',
  538032816: 'exfat',
  19780: 'vfat',
}
/** They lose what was synced, or have no locks and mappings to rely on. */
const UNFIT: Record<string, string> = {
  tmpfs: 'its content is gone after a restart of the machine',
  nfs: 'the index needs a local disk',
  cifs: 'the index needs a local disk',
  vfat: 'it has no permissions and no large files',
}

/** The directory, or the nearest one above it that exists. */
export function nearestDirectory(dir: string): string {
  for (let at = dir; ; at = dirname(at)) if (existsSync(at) || at === dirname(at)) return at
}

export async function stateChecks(config: Config): Promise<DoctorCheck[]> {
  const dir = nearestDirectory(config.stateDir)
  try {
    return [await directoryCheck(config.stateDir, dir), diskCheck(config, dir), reflinkCheck(dir)]
  } catch (err) {
    return [trouble('state directory', 'fail', messageOf(err), 'choose another one with --state')]
  }
}

async function directoryCheck(stateDir: string, dir: string): Promise<DoctorCheck> {
  const name = 'state directory'
  try {
    accessSync(dir, constants.W_OK | constants.X_OK)
  } catch {
    return trouble(
      name,
      'fail',
      `${dir} cannot be written`,
      'chown it to this user, or choose another --state',
    )
  }
  const daemon = await findByState(stateDir)
  if (daemon !== undefined) return fine(name, `${stateDir}, in use by pid ${daemon.pid}`)
  return fine(name, dir === stateDir ? stateDir : `${stateDir} does not exist yet and can be made`)
}

function diskCheck({ stateDir }: Config, dir: string): DoctorCheck {
  const { type, bavail, bsize, blocks } = statfsSync(dir)
  const fsType = FILE_SYSTEMS[type] ?? `type 0x${type.toString(16)}`
  const [freeBytes, totalBytes] = [bavail * bsize, blocks * bsize]
  const found = `${gib(freeBytes)} of ${gib(totalBytes)} GiB free on ${fsType}`
  const details = { fileSystem: fsType, freeBytes, totalBytes, stateDir }
  const advice =
    UNFIT[fsType] ?? (freeBytes < FEW_BYTES ? 'free some space, or choose another --state' : null)
  return { name: 'disk', state: advice === null ? 'ok' : 'warn', found, advice, details }
}

function gib(bytes: number): string {
  return (bytes / GIB).toFixed(1)
}

/** Without it the first write to a published file copies it. */
function reflinkCheck(dir: string): DoctorCheck {
  const [from, to] = ['a', 'b'].map(part => join(dir, `.cidfs-doctor-${process.pid}-${part}`))
  try {
    const [source, target] = [openSync(from!, 'wx+', 0o600), openSync(to!, 'wx+', 0o600)]
    writeSync(source, Buffer.alloc(4096, 1))
    const shared = reflink(source, target)
    closeSync(source)
    closeSync(target)
    if (shared) return fine('reflink', 'copies share their extents', { reflink: true })
    return fine('reflink', 'not here: changing a published file copies it first', { reflink: false })
  } catch (err) {
    return trouble('reflink', 'warn', `not tried: ${messageOf(err)}`, null)
  } finally {
    for (const file of [from!, to!]) rmSync(file, { force: true })
  }
}
