/**
 * The daemon's life in this process: start, signals, end.
 *
 * Invariant: SIGINT, SIGTERM and SIGHUP unmount; a second one does so at once. Output that nobody takes any more
 * (a closed terminal, `| head`) ends nothing: an exit without unmounting would leave a dead mount. npm passes a
 * Ctrl-C on to programs that the terminal has already sent it to, so signals that come close together are one.
 */
import debug from 'debug'
import { CidfsError, codeOf, type ErrorCode, messageOf } from '../core/errors.js'
import type { Config } from '../daemon/config.js'
import { type RunningDaemon, startDaemon } from '../daemon/daemon.js'
import type { Supervisor } from '../daemon/sd-notify.js'
import { EXIT } from './exit-codes.js'
import { note, oneLine, printError } from './output.js'

/** What a daemon tells the process that started it in the background. */
export type StartMessage =
  | { ready: { pid: number } }
  | { failed: { code: ErrorCode | undefined; message: string } }

/** Two signals within this time are one Ctrl-C. */
const SAME_SIGNAL_MS = 500
/** What is left after the daemon has stopped (an answer that is being sent) may take this long. */
const EXIT_GRACE_MS = 3000

/** Runs the daemon until it is stopped. `onReady` is called when the mount answers. */
export async function runForeground(
  config: Config,
  supervisor: Supervisor | undefined,
  onReady: () => void,
): Promise<void> {
  if (config.log !== undefined) debug.enable(config.log)
  // A daemon in the background must not keep the directory it was started from busy.
  if (process.send !== undefined) process.chdir('/')
  outliveOutput()
  const early = holdSignals()
  const daemon = await start(config, supervisor)
  early.release()
  handleSignals(daemon, early.received)
  process.send?.({ ready: { pid: process.pid } } satisfies StartMessage, undefined, undefined, () => {})
  onReady()
  await daemon.stopped
  setTimeout(() => process.exit(), EXIT_GRACE_MS).unref()
}

function outliveOutput(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.removeAllListeners('error')
    stream.on('error', () => {})
  }
}

async function start(config: Config, supervisor: Supervisor | undefined): Promise<RunningDaemon> {
  try {
    return await startDaemon(config, supervisor)
  } catch (err) {
    const failed = { code: codeOf(err), message: oneLine(messageOf(err)) }
    process.send?.({ failed } satisfies StartMessage, undefined, undefined, () => {})
    throw err
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** A signal during the start counts when the start is over: half a mount cannot be taken down. */
function holdSignals() {
  const held = { received: false, release: () => {} }
  const hold = () => {
    if (held.received) process.exit(EXIT.INTERRUPTED)
    held.received = true
  }
  for (const signal of SIGNALS) process.on(signal, hold)
  held.release = () => {
    for (const signal of SIGNALS) process.off(signal, hold)
  }
  return held
}

function handleSignals(daemon: RunningDaemon, received: boolean): void {
  let firstMs: number | undefined
  let lazy = false
  const stop = () => {
    const now = performance.now()
    if (firstMs === undefined) {
      firstMs = now
      note('unmounting; press Ctrl-C again to detach at once (what is queued stays queued)')
    } else if (lazy || now - firstMs < SAME_SIGNAL_MS) {
      return
    } else lazy = true
    daemon.stop({ lazy }).then(reportStop, failStop)
  }
  for (const signal of SIGNALS) process.on(signal, stop)
  if (received) stop()
}

function reportStop(result: { lazy: boolean }): void {
  if (result.lazy) note('detached while files were still open: the mount goes when they are closed')
}

function failStop(err: unknown): void {
  printError(new CidfsError(codeOf(err) ?? 'IO', `could not unmount: ${messageOf(err)}`, { cause: err }))
  process.exitCode = EXIT.FAILED
}
