/** Calls of probe.py: each a process of its own, with a time limit. */
import { join } from 'node:path'
import { packageRoot } from '../../test/support/root.js'
import { runOk } from '../../test/support/run.js'

const PROBE = join(packageRoot, 'scripts', 'bench', 'probe.py')
const LIMIT_MS = 60_000

/** Seconds by name. */
export type Seconds = Record<string, number>

/** What was measured, or that it took longer than it was given. */
export type Measured = Seconds | { exceeded: number }

async function probe<T>(operation: string, parameters: object, timeoutMs = LIMIT_MS): Promise<T> {
  const { stdout } = await runOk('python3', [PROBE, operation, JSON.stringify(parameters)], { timeoutMs })
  return JSON.parse(stdout) as T
}

/** From the first to the last byte. @throws Error when there are not `sizeBytes`. */
export async function readAll(path: string, sizeBytes: number, requestBytes = 1 << 20): Promise<Seconds> {
  const result = await probe<{ seconds: number; bytes: number }>('read', { path, requestBytes })
  if (result.bytes !== sizeBytes) throw new Error(`${path}: ${result.bytes} bytes instead of ${sizeBytes}`)
  return { seconds: result.seconds }
}

/** Reads at so many places of a file, none twice. */
export async function readRandomly(path: string, requestBytes: number, count: number, seed: number) {
  const parameters = { path, requestBytes, count, seed }
  return (await probe<{ latencies: number[] }>('random', parameters)).latencies
}

/** Until `close` returns. */
export function writeAll(path: string, sizeBytes: number, requestBytes: number, fsync: boolean) {
  return probe<Seconds>('write', { path, sizeBytes, requestBytes, fsync })
}

export interface CommandOptions {
  /** Lines of output without which it did not do its work. */
  linesExpected?: number
  /** It is stopped after them; default 50. */
  limitSeconds?: number
}

export function timeCommand(argv: string[], { linesExpected, limitSeconds = 50 }: CommandOptions = {}) {
  const parameters = { argv, limitSeconds, linesExpected: linesExpected ?? null }
  return probe<Measured>('command', parameters, limitSeconds * 1000 + LIMIT_MS)
}

/** `cp -r`, then until it is pinned (or synced): `copy`, `settled`, `total`. */
export function publish(source: string, target: string, pinned: boolean, limitSeconds = 50) {
  return probe<Measured>('publish', { source, target, pinned, limitSeconds }, limitSeconds * 1000 + LIMIT_MS)
}

/** SHA-256 of a file in the page cache. */
export function hashAll(path: string, workers: number): Promise<Seconds> {
  return probe('sha256', { path, workers })
}
