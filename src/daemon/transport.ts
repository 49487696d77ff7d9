/** Which transport serves a mount: the only place that knows both. */
import type { FileSystem } from '../fs/file-system.js'
import type { Session } from '../fs/session.js'
import { FuseSession, type Succession } from '../fuse/session.js'
import type { Config } from './config.js'

/**
 * Mounts `fs` as the configuration asks for; resolves when the mount answers.
 * @throws CidfsError `BAD_MOUNTPOINT`, `MISSING_TOOL`, `PERMISSION`, `NOT_SUPPORTED`.
 */
export async function mountSession(
  config: Config,
  fs: FileSystem,
  succession: Succession | undefined,
): Promise<Session> {
  const { mountpoint, allowOther } = config
  if (config.transport === 'native') {
    return await FuseSession.mount(mountpoint, fs, {
      allowOther,
      passthrough: config.passthrough === 'auto',
      succession,
    })
  }
  const { FuseNativeSession } = await import('../fuse-native/session.js') // an optional dependency
  return await FuseNativeSession.mount(mountpoint, fs, { allowOther })
}
