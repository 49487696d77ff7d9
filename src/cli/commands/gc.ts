/** `cidfs gc [dir]`: frees what is neither pinned nor staged. The daemon does it, beside its other work. */
import { Command } from 'commander'
import { CidfsError } from '../../core/errors.js'
import { ControlClient } from '../control-client.js'
import { daemonOf } from '../find-daemon.js'
import { count, formatBytes, note, print, printJson, startProgress } from '../output.js'

export function gcCommand(): Command {
  return new Command('gc')
    .description('remove what is neither pinned nor staged; prints the bytes freed')
    .argument('[dir]', 'a mountpoint, or a path in it')
    .option('--state <DIR>', 'state directory of the daemon')
    .option('--json', 'print the result as JSON')
    .action(async (dir: string | undefined, { state, json }: { state?: string; json?: boolean }) => {
      const target = await daemonOf(dir, state)
      if (!('daemon' in target)) {
        throw new CidfsError('NOT_RUNNING', 'no cidfs daemon runs; start one with: cidfs mount <dir>')
      }
      const bar = startProgress('bytes')
      const report = await new ControlClient(target.daemon)
        .gc(({ freedBytes }) => bar.update(freedBytes, undefined, 'freed'))
        .finally(() => bar.stop())
      if (json === true) return printJson(report)
      print(`${formatBytes(report.freedBytes)} freed`)
      note(`${count(report.objects, 'object')} and ${count(report.packs, 'pack')} removed`)
    })
}
