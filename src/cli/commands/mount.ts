/**
 * `cidfs mount <dir>`: in the foreground it is the daemon; otherwise it starts one and waits until it answers.
 *
 * Invariant: the command succeeds only when the mount answers, and a failed start is told by this process,
 * once. It shares an IPC channel with the daemon just for that; the daemon outlives it.
 * Between the two there is the keeper, which passes the channel on and starts other daemons after a crash: with a
 * command line that says the same wherever and whenever it is run.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, open } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Command, Option } from 'commander'
import { CidfsError, codeOf, messageOf } from '../../core/errors.js'
import { type Config, defaultStateDir, loadConfig, type RawOptions } from '../../daemon/config.js'
import { OPTIONS } from '../../daemon/config-options.js'
import { keeperProgram } from '../../daemon/keeper.js'
import type { Supervisor } from '../../daemon/sd-notify.js'
import { VERSION } from '../../daemon/version.js'
import type { StartMessage } from '../foreground.js'
import { note, print, printJson } from '../output.js'
import { welcome } from '../welcome.js'

/** Opening a large store after a crash takes a while; longer than this is a fault. */
const START_TIMEOUT_MS = 120_000

interface MountFlags {
  foreground?: boolean
  keeper: boolean
  json?: boolean
}

export function mountCommand(): Command {
  const command = new Command('mount')
    .description('start the daemon, return once the mount answers')
    .argument('<dir>', 'an empty directory')
    .option('--foreground', 'stay; Ctrl-C unmounts; without a keeper')
    .option('--no-keeper', 'when the daemon crashes, the mount goes; else a keeper starts another daemon')
    .option('--json', 'print what is mounted as JSON')
  for (const option of OPTIONS) command.addOption(toCommanderOption(option))
  return command.action(async (dir: string) => {
    const flags = command.opts<MountFlags>()
    const options = rawOptions(command)
    if (flags.foreground === true) return stay(dir, options, flags)
    const config = await loadConfig(dir, options)
    const daemon = [...process.execArgv, process.argv[1]!, ...daemonArguments(config, options)]
    report(config, await startInBackground(config, daemon, flags), flags)
  })
}

export function toCommanderOption({ name, argument, repeatable, help }: (typeof OPTIONS)[number]): Option {
  const option = new Option(argument === undefined ? `--${name}` : `--${name} <${argument}>`, help)
  if (repeatable === true) {
    option.argParser((value: string, previous: string[] | undefined) => [...(previous ?? []), value])
  }
  return option
}

/** Commander's camelCase back to option names; only what was written on the command line. */
export function rawOptions(command: Command): RawOptions {
  const names = new Map(command.options.map(option => [option.attributeName(), option.long!.slice(2)]))
  const known = new Set(OPTIONS.map(option => option.name))
  const entries = Object.entries(command.opts()).map(
    ([key, value]) => [names.get(key) ?? key, value] as const,
  )
  return Object.fromEntries(entries.filter(([name]) => known.has(name)))
}

/** Loaded only here: the other commands need nothing of the daemon. */
async function stay(dir: string, options: RawOptions, flags: MountFlags): Promise<void> {
  const { runForeground } = await import('../foreground.js')
  const { Supervisor } = await import('../../daemon/sd-notify.js')
  const supervisor = Supervisor.find()
  const config = await configOf(dir, options)
  await runForeground(config, supervisor, () => reportOwn(config, supervisor, flags))
}

/** A daemon that goes on after a crash does so also when somebody has broken its configuration in the meantime. */
async function configOf(dir: string, options: RawOptions): Promise<Config> {
  try {
    return await loadConfig(dir, options)
  } catch (err) {
    if (codeOf(err) !== 'BAD_CONFIG' || process.env.LISTEN_FDS === undefined) throw err
    const { configOfMount } = await import('../../daemon/takeover.js')
    const before = configOfMount(resolve(String(options.state ?? defaultStateDir())))
    if (before === undefined) throw err
    note(`${messageOf(err)}; going on as before`)
    return before
  }
}

/** What started us in the background tells the user; our output is the log. */
function reportOwn(config: Config, supervisor: Supervisor | undefined, flags: MountFlags): void {
  if (process.send === undefined && supervisor === undefined) report(config, { pid: process.pid }, flags)
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

/** The same command line again, for a process of any working directory and any time. */
function daemonArguments(config: Config, options: RawOptions): string[] {
  const { state: _, config: file, ...others } = options
  const named = file === undefined ? {} : { config: resolve(String(file)) }
  const words = Object.entries({ ...others, ...named, state: config.stateDir }).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).flatMap(one =>
      one === true ? [`--${name}`] : [`--${name}`, String(one)],
    ),
  )
  return ['mount', '--foreground', ...words, '--', config.mountpoint]
}

/** In a session of its own. `daemon`: the words behind `node`. */
async function startInBackground(
  config: Config,
  daemon: string[],
  flags: MountFlags,
): Promise<{ pid: number }> {
  const [program, ...words] = flags.keeper
    ? [keeperProgram(), config.mountpoint, process.execPath, ...daemon]
    : [process.execPath, ...daemon]
  await mkdir(config.stateDir, { recursive: true, mode: 0o700 })
  const logFile = join(config.stateDir, 'daemon.log')
  const log = await open(logFile, 'a', 0o600)
  try {
    const child = spawn(program!, words, {
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
