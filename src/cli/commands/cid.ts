/** `cidfs cid <path>`: the CID of a staged file or directory. */
import { Command } from 'commander'
import { CidfsError } from '../../core/errors.js'
import type { PathCid } from '../../daemon/control-protocol.js'
import { ControlClient } from '../control-client.js'
import { daemonOfPaths } from '../find-daemon.js'
import { print, printJson } from '../output.js'

export function cidCommand(): Command {
  return new Command('cid')
    .description('the CID of a staged file or directory')
    .argument('<path>', 'a path in a mount')
    .option('--json', 'print the CID and the state as JSON')
    .action(async (path: string, flags: { json?: boolean }) => {
      const { daemon, paths } = await daemonOfPaths([path])
      const answer = await new ControlClient(daemon).cidOf(paths[0]!)
      if (flags.json === true) printJson({ path, ...answer })
      else print(cidOrThrow(path, answer))
      if (answer.cid === null) process.exitCode = 1
    })
}

function cidOrThrow(path: string, { cid, state, error }: PathCid): string {
  if (cid !== null) return cid
  if (state === 'local')
    throw new CidfsError('BUSY', `${path} has a name that is not published (--local-names)`, { path })
  const hint =
    state === 'failed' ? `publishing failed: ${error}` : `it is ${state}; cidfs wait ${path} waits for it`
  throw new CidfsError('BUSY', `${path} has no CID yet: ${hint}`, { path })
}
