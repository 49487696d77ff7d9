/** `cidfs prefetch <cid>`: everything under a CID, fetched now, pinned by nobody. */
import { Command } from 'commander'
import { ControlClient } from '../control-client.js'
import { EXIT } from '../exit-codes.js'
import { requireDaemon } from '../find-daemon.js'
import { count, note, oneLine, printJson, startProgress } from '../output.js'

export function prefetchCommand(): Command {
  return new Command('prefetch')
    .description('fetch a whole DAG, so that reading it needs no network; 6 if something is missing')
    .argument('<cid>', 'a CID, or a path to one: ipfs/<cid>/…')
    .option('--state <DIR>', 'state directory of the daemon')
    .option('--json', 'print the result as JSON')
    .action(async (cid: string, { state, json }: { state?: string; json?: boolean }) => {
      const client = new ControlClient(await requireDaemon(state))
      const bar = startProgress('blocks')
      const result = await client
        .prefetch(cid, ({ done, known }) => bar.update(done, known, 'held'))
        .finally(() => bar.stop())
      if (json === true) printJson(result)
      else note(`${count(result.blocks, 'block')} held`)
      if (result.missed === 0) return
      note(`${count(result.missed, 'block')} could not be had: ${oneLine(result.error ?? '')}`)
      process.exitCode = EXIT.UNAVAILABLE
    })
}
