/**
 * `cidfs upgrade <dir>`: a daemon of this version takes over from the one that serves a mount.
 *
 * Invariant: the mount is never without a daemon that is there or about to be: programs that use it wait for a
 * moment, and none of their calls fails. A version that does not start changes nothing.
 */
import { Command } from 'commander'
import { CidfsError } from '../../core/errors.js'
import { VERSION } from '../../daemon/version.js'
import { ControlClient } from '../control-client.js'
import { daemonAt } from '../find-daemon.js'
import { print, printJson } from '../output.js'

export function upgradeCommand(): Command {
  return new Command('upgrade')
    .description('let this version of cidfs take over a mount from the one that serves it')
    .argument('<dir>', 'the mountpoint')
    .option('--json', 'print the result as JSON')
    .action(async (dir: string, flags: { json?: boolean }) => {
      const daemon = await daemonAt(dir)
      if (daemon === undefined)
        throw new CidfsError('NOT_RUNNING', `no cidfs daemon serves ${dir}`, { path: dir })
      const program = [process.execPath, ...process.execArgv, process.argv[1]!]
      const { pid, previous } = await new ControlClient(daemon).upgrade({ program })
      const { mountpoint } = daemon
      if (flags.json === true) printJson({ mountpoint, pid, version: VERSION, previous })
      else
        print(
          `${mountpoint} is served by cidfs ${VERSION} (pid ${pid}); before it was ${previous.version} (pid ${previous.pid})`,
        )
    })
}
