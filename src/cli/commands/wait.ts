/** `cidfs wait <path>…`: returns when everything under the paths is pinned, or has failed. */
import { Command } from 'commander'
import { ControlClient } from '../control-client.js'
import { EXIT } from '../exit-codes.js'
import { daemonOfPaths } from '../find-daemon.js'
import { count, note, oneLine, printJson, startProgress } from '../output.js'

export function waitCommand(): Command {
  return new Command('wait')
    .description('until everything under the paths is pinned; 1 if something failed')
    .argument('<path...>', 'paths in one mount')
    .option('--json', 'print the result as JSON')
    .action(async (given: string[], flags: { json?: boolean }) => {
      const { daemon, paths } = await daemonOfPaths(given)
      const bar = startProgress('files')
      const result = await new ControlClient(daemon)
        .wait(paths, ({ pinned, failed, total }) =>
          bar.update(pinned, total, failed > 0 ? `${failed} failed` : 'pinned'),
        )
        .finally(() => bar.stop())
      if (flags.json === true) printJson(result)
      for (const { path, error } of result.failed) note(`${path}: ${oneLine(error)}`)
      if (result.failed.length === 0) return
      note(`${count(result.failed.length, 'file')} could not be published, ${result.pinned} pinned`)
      process.exitCode = EXIT.FAILED
    })
}
