/** `cidfs exists <cid>`: who has it. Exit code 0 when somebody else has, 1 when nobody was found. */
import { Command, InvalidArgumentError } from 'commander'
import { readDuration } from '../../daemon/config-options.js'
import { EXISTS_TIMEOUT_MS, type ExistsReport } from '../../daemon/control-protocol.js'
import { ControlClient } from '../control-client.js'
import { EXIT } from '../exit-codes.js'
import { requireDaemon } from '../find-daemon.js'
import { count, print, printJson } from '../output.js'

interface Flags {
  timeout: number
  state?: string
  json?: boolean
}

export function existsCommand(): Command {
  return new Command('exists')
    .description('who has a block: this machine, neighbours, gateways, providers; 1 if nobody else was found')
    .argument('<cid>', 'a CID')
    .option('--timeout <TIME>', 'how long to ask (default: 10s)', duration, EXISTS_TIMEOUT_MS)
    .option('--state <DIR>', 'state directory of the daemon')
    .option('--json', 'print the answers as JSON')
    .action(async (cid: string, { timeout, state, json }: Flags) => {
      const report = await new ControlClient(await requireDaemon(state)).exists(cid, timeout)
      if (json === true) printJson(report)
      else for (const line of describe(report)) print(line)
      if (report.copies === 0) process.exitCode = EXIT.FAILED
    })
}

function duration(text: string): number {
  try {
    return readDuration(text)
  } catch (err) {
    throw new InvalidArgumentError(err instanceof Error ? err.message : String(err))
  }
}

function describe({ held, servers, neighbours, providers, copies, error }: ExistsReport): string[] {
  const percent = held.percent === null ? '' : ` (${held.percent}%)`
  const here = held.state === 'part' ? `part of it${percent}` : held.state === 'whole' ? 'yes' : 'no'
  const known = `${providers.peers.length}${providers.more ? ' or more' : ''}`
  return [
    `held here    ${here}`,
    ...neighbours.map(({ peer, has }) => `neighbour    ${has.padEnd(7)} ${peer}`),
    ...servers.map(server => {
      const why = server.error === null ? '' : ` (${server.error})`
      return `${server.kind.padEnd(12)} ${server.has.padEnd(7)} ${server.name.replace(/^kubo /, '')}${why}`
    }),
    `providers    ${known}${providers.error === null ? '' : ` (${providers.error})`}`,
    `${count(copies, 'copy').replace(/copys$/, 'copies')} found elsewhere${error === null ? '' : ` (${error})`}`,
  ]
}
