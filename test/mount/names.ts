/** What the tests of names share: waiting for them, and where they lead in a mount. */
import type { Mount } from '../support/mount.js'
import type { RecordServer } from '../support/name-servers.js'
import { until as untilSoon } from '../support/until.js'
import { askOne } from './ask.js'

/** Whatever is waited for takes several processes. */
export const until = <T>(what: string, condition: () => T | Promise<T>) => untilSoon(what, condition, 30_000)

/** Where a link in `ipns/` leads, or the name of the errno. */
export async function target(mount: Mount, name: string): Promise<string> {
  const { bytes, errno } = await askOne({ op: 'readlink', path: mount.path('ipns', name) }, 60_000)
  return bytes?.toString() ?? errno!
}

/** Options of a mount that asks this router and nobody else. */
export const withRouter = (router: RecordServer) => ['--router', router.url, '--dht', 'off']
