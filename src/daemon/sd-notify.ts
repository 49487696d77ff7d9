/**
 * The supervisor of this daemon: systemd, or our own keeper, which speaks the same protocol.
 *
 * Invariant: what is told is told in datagrams that nobody answers, and a supervisor that does not listen stops
 * nothing here. The variables are taken out of the environment: programs started from here are not the daemon.
 *
 * Reference: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3)
 */
import { closeSync } from 'node:fs'
import { logger } from '../core/log.js'
import { addon, NativeError } from '../core/native.js'

const log = logger('daemon:supervisor')

/** The first inherited descriptor. */
const LISTEN_FDS_START = 3
/** What is kept for a successor: the connection, and the log of open files. */
export type Kept = 'fuse' | 'handles'
/** Separates words of a command line for the keeper. */
const WORD_END = '\x1f'

type Environment = Record<string, string | undefined>

export interface Keeper {
  pid: number
}

export class Supervisor {
  /** What a process that takes our place has to find in its environment. */
  readonly environment: Readonly<Record<string, string>>
  /** It has to hear from us this often, or ends us; undefined: it does not care. */
  readonly watchdogMs: number | undefined
  /** Set when it is our own. */
  readonly keeper: Keeper | undefined
  readonly #address: Buffer

  private constructor(address: string, env: Environment) {
    this.#address = Buffer.from(address)
    this.watchdogMs = watchdogMs(env)
    this.keeper = env.CIDFS_KEEPER === undefined ? undefined : { pid: Number(env.CIDFS_KEEPER) }
    const inherited: Record<string, string> = { NOTIFY_SOCKET: address }
    // without the pid they are for whoever finds them
    for (const name of ['WATCHDOG_USEC', 'CIDFS_KEEPER', 'FDSTORE'])
      if (env[name] !== undefined) inherited[name] = env[name]
    this.environment = inherited
  }

  /** The one that the environment names. */
  static find(env: Environment = process.env): Supervisor | undefined {
    const { NOTIFY_SOCKET: address } = env
    const found = address === undefined || !/^[/@]./.test(address) ? undefined : new Supervisor(address, env)
    for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID', 'CIDFS_KEEPER', 'FDSTORE'])
      delete env[name]
    return found
  }

  /** The mount answers. `command`: how another daemon like this one is started. */
  ready(command: string[]): void {
    const words = command.some(word => /[\n\x1f]/.test(word)) ? undefined : command.join(WORD_END)
    this.#send([
      'READY=1',
      ...(words === undefined || this.keeper === undefined ? [] : [`CIDFS_COMMAND=${words}`]),
    ])
  }

  status(text: string): void {
    this.#send([`STATUS=${text.replaceAll('\n', ' ')}`])
  }

  stopping(): void {
    this.#send(['STOPPING=1'])
  }

  /** Still alive. */
  beat(): void {
    this.#send(['WATCHDOG=1'])
  }

  /** From here on another process is the daemon. */
  replacedBy(pid: number): void {
    this.#send([`MAINPID=${pid}`])
  }

  /** It keeps a copy of the descriptor, and gives it to the daemon that it starts after this one's death. */
  keep(name: Kept, fd: number): void {
    this.#send(['FDSTORE=1', `FDNAME=${name}`], fd)
  }

  forget(name: Kept): void {
    this.#send(['FDSTOREREMOVE=1', `FDNAME=${name}`])
  }

  #send(lines: string[], fd = -1): void {
    const result = addon().notify(this.#address, Buffer.from(lines.join('\n')), fd)
    if (result < 0) log('%s: %s', lines[0], new NativeError(result, 'sendmsg').code)
  }
}

/** How this process was started. */
export function ownCommand(): string[] {
  return [process.execPath, ...process.execArgv, ...process.argv.slice(1)]
}

function watchdogMs(env: Environment): number | undefined {
  const { WATCHDOG_USEC: microseconds, WATCHDOG_PID: pid } = env
  if (pid !== undefined && Number(pid) !== process.pid) return undefined
  const ms = Number(microseconds) / 1000
  return Number.isFinite(ms) && ms > 0 ? ms : undefined
}

/** What an earlier daemon of this mount has had kept. Whatever else was passed is closed. */
export function inheritedDescriptors(env: Environment = process.env): Map<string, number> {
  const { LISTEN_PID: pid, LISTEN_FDS: count, LISTEN_FDNAMES: names = '' } = env
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete env[name]
  const found = new Map<string, number>()
  if (pid === undefined || Number(pid) !== process.pid) return found
  for (let i = 0; i < Number(count); i++) {
    const [fd, name = ''] = [LISTEN_FDS_START + i, names.split(':')[i]]
    if (['fuse', 'handles'].includes(name) && !found.has(name)) found.set(name, fd)
    else closeQuietly(fd)
  }
  return found
}

export function closeQuietly(fd: number): void {
  try {
    closeSync(fd)
  } catch {
    log('descriptor %d was none', fd)
  }
}
