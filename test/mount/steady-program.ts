/** Runs `takeover-worker.ts` on a mount: a program that never pauses and notices whatever goes wrong. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { stat, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { KeptMount } from '../support/kept-mount.js'
import { atEnd, type Owner } from '../support/temp.js'
import { until } from '../support/until.js'

const WORKER = fileURLToPath(new URL('./takeover-worker.js', import.meta.url))
const FILE_BYTES = 300_000
const END_TIMEOUT_MS = 60_000

export interface Outcome {
  /** How often it has done all it does. */
  rounds: number
  /** Milliseconds of the calls that took longer than 50, in their order. */
  slow: number[]
}

export class SteadyProgram {
  private output = ''
  private errors = ''

  private constructor(private readonly worker: ChildProcess) {
    worker.stdout!.on('data', chunk => (this.output += chunk))
    worker.stderr!.on('data', chunk => (this.errors += chunk))
    worker.stdin!.on('error', () => {})
  }

  /** Returns when it is at work. Ends with the test, at the latest. */
  static async start(t: Owner, mount: KeptMount): Promise<SteadyProgram> {
    const [file, digest] = await publish(mount)
    const program = new SteadyProgram(spawn(process.execPath, [WORKER, mount.path('staging'), file, digest]))
    atEnd(t, async () => void program.worker.kill('SIGKILL'))
    const begun = () =>
      stat(mount.path('staging', 'log')).then(
        ({ size }) => size > 0,
        () => false,
      )
    await until('the program is at work', begun, END_TIMEOUT_MS)
    return program
  }

  /** @throws Error with what it said when anything went wrong. */
  async end(): Promise<Outcome> {
    const { worker } = this
    worker.stdin!.end('end\n')
    const timer = setTimeout(() => worker.kill('SIGKILL'), END_TIMEOUT_MS)
    if (worker.exitCode === null && worker.signalCode === null) await once(worker, 'close')
    clearTimeout(timer)
    if (worker.exitCode === 0) return JSON.parse(this.output) as Outcome
    throw new Error(`the program ended with ${worker.signalCode ?? worker.exitCode}: ${this.errors}`)
  }
}

/** The path of a published file of random bytes, and its digest. */
async function publish(mount: KeptMount): Promise<[string, string]> {
  const bytes = randomBytes(FILE_BYTES)
  await writeFile(mount.path('staging', 'content'), bytes)
  const { status, stderr } = await mount.cli(['wait', mount.path('staging')])
  if (status !== 0) throw new Error(stderr)
  const { stdout } = await mount.cli(['cid', mount.path('staging', 'content')])
  return [mount.path('ipfs', stdout.trim()), createHash('sha256').update(bytes).digest('hex')]
}

/** A line about pauses, for the log of a test. */
export function describePauses({ rounds, slow }: Outcome): string {
  const sorted = [...slow].sort((a, b) => a - b)
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
  return `${rounds} rounds, ${slow.length} pauses: p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, longest ${at(1)} ms`
}
