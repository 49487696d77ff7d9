/**
 * `/dev/fuse` for tests that mount as an ordinary user.
 *
 * Its mode is set and left: 0666 is what udev gives it on every desktop, and test files that run side by side
 * must not take it away from one another. Another mode is tried in a mount namespace of its own.
 */
import { chmod, stat } from 'node:fs/promises'

const FOR_ALL = 0o666

/** fusermount3 opens the device with the rights of its caller. Needs root where it is not open already. */
export async function openDeviceToAll(): Promise<void> {
  if (((await stat('/dev/fuse')).mode & 0o777) !== FOR_ALL) await chmod('/dev/fuse', FOR_ALL)
}

/** The arguments of `unshare` that run `command` with a `/dev/fuse` only root can open, made in `dir`. */
export function withShutDevice(dir: string, command: string[]): string[] {
  const script = 'mknod -m 600 "$0/fuse" c 10 229 && mount --bind "$0/fuse" /dev/fuse && exec "$@"'
  return ['--mount', 'sh', '-c', script, dir, ...command]
}
