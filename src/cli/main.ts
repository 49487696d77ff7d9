#!/usr/bin/env node
/**
 * The command line.
 *
 * Invariant: whatever goes wrong ends as one line on standard error and a code of `exit-codes.ts`.
 */
import { Command, CommanderError } from 'commander'
import { VERSION } from '../daemon/version.js'
import { cidCommand } from './commands/cid.js'
import { doctorCommand } from './commands/doctor.js'
import { existsCommand } from './commands/exists.js'
import { exportCommand } from './commands/export.js'
import { fsckCommand } from './commands/fsck.js'
import { gcCommand } from './commands/gc.js'
import { importCommand } from './commands/import.js'
import { ipnsCommand } from './commands/ipns.js'
import { mountCommand } from './commands/mount.js'
import { pinCommand } from './commands/pin.js'
import { prefetchCommand } from './commands/prefetch.js'
import { statusCommand } from './commands/status.js'
import { unmountCommand } from './commands/unmount.js'
import { upgradeCommand } from './commands/upgrade.js'
import { waitCommand } from './commands/wait.js'
import { EXIT, EXIT_CODE_TABLE, exitCodeOf } from './exit-codes.js'
import { note, oneLine, printError } from './output.js'

/** A start that failed half-way may leave something that keeps the process alive. */
const EXIT_GRACE_MS = 2000

function program(): Command {
  const cidfs = new Command('cidfs')
    .description('IPFS as files: reads any CID, verified, and publishes what you drop into a folder')
    .version(VERSION)
    .addHelpText('after', `\nExit codes:\n${EXIT_CODE_TABLE.map(describeCode).join('\n')}`)
  const commands = [
    mountCommand,
    unmountCommand,
    upgradeCommand,
    statusCommand,
    cidCommand,
    waitCommand,
    pinCommand,
    prefetchCommand,
    existsCommand,
    ipnsCommand,
    importCommand,
    exportCommand,
    gcCommand,
    fsckCommand,
    doctorCommand,
  ]
  for (const command of commands) cidfs.addCommand(command())
  for (const command of withSubcommands(cidfs)) {
    command
      .exitOverride()
      .configureOutput({ outputError: text => note(oneLine(text.replace(/^error: /, ''))) })
  }
  return cidfs
}

function withSubcommands(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withSubcommands)]
}

function describeCode([code, meaning]: (typeof EXIT_CODE_TABLE)[number]): string {
  return `  ${String(code).padEnd(4)} ${meaning}`
}

async function main(): Promise<void> {
  // A reader that has seen enough (`| head -1`) is no failure.
  process.stdout.on('error', err =>
    process.exit((err as NodeJS.ErrnoException).code === 'EPIPE' ? EXIT.OK : EXIT.FAILED),
  )
  try {
    await program().parseAsync()
  } catch (err) {
    if (!(err instanceof CommanderError)) printError(err)
    process.exitCode = exitCodeOf(err)
    setTimeout(() => process.exit(), EXIT_GRACE_MS).unref()
  }
}

await main()
