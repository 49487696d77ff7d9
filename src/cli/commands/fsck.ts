/**
 * `cidfs fsck [dir]`: are the blocks what their CIDs say, and the books of `staging/` in order.
 *
 * Through the daemon when one runs: one process writes a store. Without one it is opened here.
 */
import { Command } from 'commander'
import type { FsckProgress, FsckReport } from '../../daemon/control-protocol.js'
import { ControlClient } from '../control-client.js'
import { EXIT } from '../exit-codes.js'
import { daemonOf } from '../find-daemon.js'
import { count, formatBytes, note, print, printJson, startProgress } from '../output.js'

interface Flags {
  state?: string
  repair?: boolean
  json?: boolean
}

export function fsckCommand(): Command {
  return new Command('fsck')
    .description('verify every block held, staging/ and the pins; 7 if something is damaged')
    .argument('[dir]', 'a mountpoint, or a path in it')
    .option('--state <DIR>', 'state directory of the daemon, or to open when none runs')
    .option('--repair', 'forget bad blocks, so that they are fetched again when they are read')
    .option('--json', 'print the report as JSON')
    .action(async (dir: string | undefined, flags: Flags) => {
      const report = await check(dir, flags)
      if (flags.json === true) printJson(report)
      else for (const line of describe(report)) print(line)
      if (report.damaged) process.exitCode = EXIT.BAD_DATA
    })
}

async function check(dir: string | undefined, { state, repair = false }: Flags): Promise<FsckReport> {
  const target = await daemonOf(dir, state)
  const bar = startProgress('blocks')
  const onProgress = ({ phase, done, total }: FsckProgress) => bar.update(done, total ?? undefined, phase)
  try {
    if ('daemon' in target) return await new ControlClient(target.daemon).fsck({ repair }, onProgress)
    const { fsckOffline } = await import('../offline-store.js') // LMDB and all
    return await fsckOffline(target.stateDir, repair, onProgress)
  } finally {
    bar.stop()
  }
}

function describe(report: FsckReport): string[] {
  const { blocks, bytes, bad, badBlocks, repaired, faults, faultCount, nodes, leftovers, partialPins } =
    report
  const lines = bad.map(
    ({ cid, reason, container, offset }) => `block ${cid}: ${reason}, in container ${container} at ${offset}`,
  )
  for (const { path, problem } of faults) lines.push(`${path}: ${problem}`)
  const unlisted = badBlocks - bad.length + faultCount - faults.length
  if (unlisted > 0) lines.push(`and ${unlisted} more`)
  lines.push(`${count(blocks, 'block')} (${formatBytes(bytes)}) and ${count(nodes, 'staged node')} checked`)
  lines.push(report.damaged ? `${count(badBlocks, 'bad block')}, ${count(faultCount, 'fault')}` : 'no damage')
  if (repaired > 0) lines.push(`${count(repaired, 'block')} forgotten: fetched again when they are read`)
  if (leftovers > 0) lines.push(`${count(leftovers, 'object')} left over: the next start removes them`)
  if (partialPins > 0) lines.push(`${count(partialPins, 'pin')} held in part`)
  if (report.damaged && repaired < badBlocks)
    note('--repair forgets bad blocks, so that they are fetched again')
  return lines
}
