/**
 * `cidfs mount <dir>`: in the foreground it is the daemon; otherwise it starts one and waits until it answers.
 *
 * Invariant: the command succeeds only when the mount answers, and a failed start is told by this process,
 * once. Parent and daemon share an IPC channel just for that; the daemon outlives it.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, open } from 'node:fs/promises'
import { join } from 'node:path'
import { Command, Option } from 'commander'
import { CidfsError } from '../../core/errors.js'
import { type Config, loadConfig, type RawOptions } from '../../daemon/config.js'
import { OPTIONS } from '../../daemon/config-options.js'
import { VERSION } from '../../daemon/version.js'
import type { StartMessage } from '../foreground.js'
import { print, printJson } from '../output.js'
import { welcome } from '../welcome.js'

/** Opening a large store after a crash takes a while; longer than this is a fault. */
const START_TIMEOUT_MS = 120_000

interface MountFlags {
  foreground?: boolean
  json?: boolean
}

export function mountCommand(): Command {
  const command = new Command('mount')
    .description('start the daemon, return once the mount answers')
    .argument('<dir>', 'an empty directory')
    .option('--foreground', 'stay; Ctrl-C unmounts')
    .option('--json', 'print what is mounted as JSON')
  for (const option of OPTIONS) command.addOption(toCommanderOption(option))
  return command.action(async (dir: string) => {
    const flags = command.opts<MountFlags>()
    const config = await loadConfig(dir, rawOptions(command))
    if (flags.foreground === true) await stay(config, flags)
    else report(config, await startInBackground(config), flags)
  })
}

function toCommanderOption({ name, argument, repeatable, help }: (typeof OPTIONS)[number]): Option {
  const option = new Option(argument === undefined ? `--${name}` : `--${name} <${argument}>`, help)
  if (repeatable === true) {
    option.argParser((value: string, previous: string[] | undefined) => [...(previous ?? []), value])
  }
  return option
}

/** Commander's camelCase back to option names; only what was written on the command line. */
function rawOptions(command: Command): RawOptions {
  const names = new Map(command.options.map(option => [option.attributeName(), option.long!.slice(2)]))
  const known = new Set(OPTIONS.map(option => option.name))
  const entries = Object.entries(command.opts()).map(
    ([key, value]) => [names.get(key) ?? key, value] as const,
  )
  return Object.fromEntries(entries.filter(([name]) => known.has(name)))
}

/** Loaded only here: the other commands need nothing of the daemon. */
async function stay(config: Config, flags: MountFlags): Promise<void> {
  const { runForeground } = await import('../foreground.js')
  await runForeground(config, () => reportOwn(config, flags))
}

/** What started us in the background tells the user; our output is the log. */
function reportOwn(config: Config, flags: MountFlags): void {
  if (process.send === undefined) report(config, { pid: process.pid }, flags)
  else print(`${new Date().toISOString()} cidfs ${VERSION} (pid ${process.pid}) serves ${config.mountpoint}`)
}

function report(config: Config, { pid }: { pid: number }, { json, foreground }: MountFlags): void {
  if (json === true) {
    const { mountpoint, stateDir, gateways, kubo, offline, isolated } = config
    printJson({ mountpoint, stateDir, pid, gateways, kubo: kubo ?? null, offline, isolated })
  } else {
    for (const line of welcome(config, pid, foreground === true)) print(line)
  }
}

/** The same command line again, with `--foreground`, in a session of its own. */
async function startInBackground(config: Config): Promise<{ pid: number }> {
  await mkdir(config.stateDir, { recursive: true, mode: 0o700 })
  const logFile = join(config.stateDir, 'daemon.log')
  const log = await open(logFile, 'a', 0o600)
  try {
    const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1), '--foreground'], {
      detached: true,
      stdio: ['ignore', log.fd, log.fd, 'ipc'],
    })
    return await started(child, logFile)
  } finally {
    await log.close()
  }
}

async function started(child: ChildProcess, logFile: string): Promise<{ pid: number }> {
  const { promise, resolve, reject } = deferred<{ pid: number }>()
  const timer = setTimeout(() => {
    child.kill('SIGTERM')
    reject(
      new CidfsError(
        'TIMEOUT',
        `the daemon did not start within ${START_TIMEOUT_MS / 1000} s; see ${logFile}`,
      ),
    )
  }, START_TIMEOUT_MS)
  child.on('message', (message: StartMessage) => {
    if ('ready' in message) return resolve(message.ready)
    const { code, message: text } = message.failed
    reject(code === undefined ? new Error(text) : new CidfsError(code, text))
  })
  child.once('error', reject)
  child.once('exit', (status, signal) => {
    reject(
      new Error(`the daemon ended while it started (${signal ?? `exit code ${status}`}); see ${logFile}`),
    )
  })
  try {
    return await promise
  } finally {
    clearTimeout(timer)
    if (child.connected) child.disconnect()
    child.unref()
  }
}

function deferred<T>() {
  let resolve!: (value: T) => void
  let reject!: (reason: unknown) => void
  const promise = new Promise<T>((res, rej) => {
    resolve = res
    reject = rej
  })
  return { promise, resolve, reject }
}
