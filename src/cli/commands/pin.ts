/**
 * `cidfs pin add|rm|ls`: what has to stay, and how far it has come.
 *
 * What is added is an entry of `pins/` in the mount, and goes on being fetched when the command ends before.
 */
import { Command } from 'commander'
import type { PinProgress, PinRemoval, PinReport } from '../../daemon/control-protocol.js'
import { ControlClient } from '../control-client.js'
import { EXIT } from '../exit-codes.js'
import { requireDaemon } from '../find-daemon.js'
import { note, oneLine, print, printJson, startProgress } from '../output.js'

interface Flags {
  state?: string
  json?: boolean
}

interface AddFlags extends Flags {
  name?: string
  wait: boolean
}

const STATE = ['--state <DIR>', 'state directory of the daemon'] as const

export function pinCommand(): Command {
  const pin = new Command('pin').description('pins of this daemon: add, rm, ls')
  pin
    .command('add')
    .description('pin a DAG and fetch all of it; prints its CID')
    .argument('<cid>', 'a CID, or a path to one: ipfs/<cid>/…')
    .option('--name <NAME>', 'its entry in pins/ (default: the CID)')
    .option('--no-wait', 'return at once; it is fetched in the background')
    .option(...STATE)
    .option('--json', 'print the pin as JSON')
    .action(add)
  pin
    .command('rm')
    .description('unpin; prints what was unpinned')
    .argument('<cid|name>', 'a name in pins/, or a CID: all pins of it by name or import')
    .option(...STATE)
    .option('--json', 'print what was unpinned as JSON')
    .action(remove)
  pin
    .command('ls')
    .description('every pin: state, percent held here, CID, who holds it')
    .option(...STATE)
    .option('--json', 'print as JSON')
    .action(list)
  return pin
}

async function add(cid: string, { name, wait, state, json }: AddFlags): Promise<void> {
  const client = new ControlClient(await requireDaemon(state))
  const bar = startProgress('blocks')
  const onProgress = (progress: PinProgress) => bar.update(progress.done, progress.known, progress.state)
  const report = await client.addPin({ cid, name: name ?? null, wait }, onProgress).finally(() => bar.stop())
  if (json === true) printJson(report)
  else print(report.cid)
  if (!wait || report.state === 'pinned') return
  note(`${report.owner} is not complete yet: ${oneLine(report.error ?? report.state)}`)
  note('it stays pinned, and is tried again in the background')
  process.exitCode = EXIT.UNAVAILABLE
}

async function remove(pin: string, { state, json }: Flags): Promise<void> {
  const removal: PinRemoval = await new ControlClient(await requireDaemon(state)).removePin(pin)
  if (json === true) return printJson(removal)
  for (const owner of removal.removed) print(owner)
}

async function list({ state, json }: Flags): Promise<void> {
  const reports = await new ControlClient(await requireDaemon(state)).pins()
  if (json === true) return printJson(reports)
  for (const report of reports) print(describe(report))
}

function describe({ state, percent, cid, owner, tries, error }: PinReport): string {
  const held = percent === null ? '   ?' : `${percent}%`.padStart(4)
  const trouble = error === null ? '' : `  (tried ${tries} times: ${oneLine(error)})`
  return `${state.padEnd(8)} ${held}  ${cid}  ${owner}${trouble}`
}
