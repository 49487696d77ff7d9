/**
 * What is mounted where, from /proc/self/mountinfo.
 *
 * Invariant: nothing here touches a mount: a stat(2) of one whose daemon hangs, or is this very process, would
 * never return. The table of the kernel answers without asking any file system.
 *
 * Reference: proc_pid_mountinfo(5)
 */
import { lstatSync, readFileSync, readlinkSync, realpathSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { CidfsError, messageOf } from '../core/errors.js'

/** The type under which we mount; `mount -t fuse.cidfs` lists ours. */
export const FS_TYPE = 'fuse.cidfs'

export interface MountEntry {
  mountId: number
  /** `major:minor`, the name under /sys/class/bdi. */
  device: string
  mountpoint: string
  type: string
  source: string
}

/** All mounts of this mount namespace; of several on one directory, the last is the visible one. */
export function mountTable(): MountEntry[] {
  return parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'))
}

export function parseMountInfo(text: string): MountEntry[] {
  const lines = text.split('\n').filter(line => line !== '')
  return lines.map(parseLine)
}

/** `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`; the fields before the dash vary in number. */
function parseLine(line: string): MountEntry {
  const [before = '', after = ''] = line.split(' - ', 2)
  const [mountId, , device = '', , mountpoint = ''] = before.split(' ')
  const [type = '', source = ''] = after.split(' ')
  return {
    mountId: Number(mountId),
    device,
    mountpoint: unescapeOctal(mountpoint),
    type,
    source: unescapeOctal(source),
  }
}

/** Space, tab, newline and backslash are octal; the path is bytes, and UTF-8 for us. */
function unescapeOctal(field: string): string {
  return field.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  )
}

/** The visible mount on exactly this directory, an absolute path without symbolic links. */
export function mountAt(mountpoint: string, table = mountTable()): MountEntry | undefined {
  return table.findLast(entry => entry.mountpoint === mountpoint)
}

const MAX_SYMLINKS = 40

/**
 * The absolute path of a directory, symbolic links resolved, without looking at what is mounted on it.
 * @throws CidfsError `BAD_MOUNTPOINT` when a part of the path is missing or cannot be reached.
 */
export function resolveMountpoint(dir: string): string {
  const table = mountTable()
  let path = resolve(dir)
  try {
    for (let i = 0; i < MAX_SYMLINKS; i++) {
      if (path === '/') return path
      path = join(realpathSync(dirname(path)), basename(path))
      if (mountAt(path, table) !== undefined || !lstatSync(path).isSymbolicLink()) return path
      path = resolve(dirname(path), readlinkSync(path))
    }
  } catch (cause) {
    throw new CidfsError('BAD_MOUNTPOINT', describe(dir, cause), { path: dir, cause })
  }
  throw new CidfsError('BAD_MOUNTPOINT', `${dir}: too many symbolic links`, { path: dir })
}

function describe(dir: string, cause: unknown): string {
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
  if (code === 'ENOENT') return `the mountpoint ${dir} does not exist: mkdir -p ${dir}`
  if (code === 'ENOTDIR') return `the mountpoint ${dir} is not a directory`
  return `the mountpoint ${dir} cannot be reached: ${messageOf(cause)}`
}
