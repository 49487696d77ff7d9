/** `cidfs doctor`: whether this machine can do what `cidfs mount` with the same options needs, and what to do. */
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { loadConfig } from '../../daemon/config.js'
import { OPTIONS } from '../../daemon/config-options.js'
import type { DoctorCheck, DoctorReport } from '../../daemon/doctor-check.js'
import { EXIT } from '../exit-codes.js'
import { oneLine, print, printJson } from '../output.js'
import { rawOptions, toCommanderOption } from './mount.js'

/** Longer names, of sources mostly, do not move all others. */
const MAX_WIDTH = 24
const MARKS = { ok: 'ok   ', warn: 'warn ', fail: 'FAIL ' } as const

export function doctorCommand(): Command {
  const command = new Command('doctor')
    .description('try what mounting needs on this machine, and say what to do; 4 if something is missing')
    .argument('[dir]', 'the mountpoint that is meant')
    .option('--json', 'print the report as JSON')
  for (const option of OPTIONS) command.addOption(toCommanderOption(option))
  return command.action(async (dir: string | undefined) => {
    const config = await loadConfig(dir ?? join(tmpdir(), 'cidfs'), rawOptions(command))
    const { examine } = await import('../../daemon/doctor.js') // it mounts, so it needs everything
    const report = await examine(config)
    if (command.opts<{ json?: boolean }>().json === true) printJson(report)
    else for (const line of describe(report)) print(line)
    if (report.state === 'fail') process.exitCode = EXIT.ENVIRONMENT
  })
}

function describe({ checks }: DoctorReport): string[] {
  const width = Math.min(MAX_WIDTH, Math.max(...checks.map(({ name }) => name.length)))
  return checks.flatMap(check => describeCheck(check, width))
}

function describeCheck({ name, state, found, advice }: DoctorCheck, width: number): string[] {
  const line = `${MARKS[state]} ${name.padEnd(width)}  ${oneLine(found)}`
  return advice === null ? [line] : [line, `${' '.repeat(width + 8)}to do: ${oneLine(advice)}`]
}
