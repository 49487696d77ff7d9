/** Disks that are soon full. They need root, as every mount of a file system does. */
import { statfs, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { run, runOk } from './run.js'
import { atEnd, type Owner, tempDir } from './temp.js'

const MIB = 1024 * 1024

/** Where an empty file system of `sizeMib` is mounted until the test ends. */
export async function smallDisk(t: Owner, sizeMib: number, type: 'tmpfs' | 'ext4' | 'ext2'): Promise<string> {
  const temp = await tempDir(t, 'cidfs-disk-')
  const dir = join(temp, 'disk')
  await runOk('mkdir', [dir])
  if (type === 'tmpfs') await runOk('mount', ['-t', 'tmpfs', '-o', `size=${sizeMib}m`, 'tmpfs', dir])
  else await mountImage(join(temp, 'image'), sizeMib, type, dir)
  // what has just been closed may be busy for a moment
  atEnd(t, async () => {
    const { status } = await run('umount', [dir])
    if (status !== 0) await runOk('umount', ['-l', dir])
  })
  return dir
}

async function mountImage(image: string, sizeMib: number, type: string, dir: string): Promise<void> {
  await runOk('touch', [image])
  await truncate(image, sizeMib * MIB)
  await runOk(`mkfs.${type}`, ['-q', '-m', '0', image])
  await runOk('mount', ['-o', 'loop', image, dir])
}

/** Bytes that nobody has taken. */
export async function freeBytes(dir: string): Promise<number> {
  const { bavail, bsize } = await statfs(dir)
  return bavail * bsize
}

/** Bytes that the files below a directory take on their disk. */
export async function diskUse(dir: string): Promise<number> {
  const { stdout } = await runOk('du', ['-s', '--block-size=1', dir])
  return Number(stdout.split('\t')[0])
}
