/**
 * Runs a tool beside the test.
 *
 * Invariant: never synchronous: a mount may be served by this very process. A call ends after its time limit,
 * even when the tool cannot be killed because the kernel waits for a reply.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'

export interface RunOptions {
  cwd?: string
  env?: NodeJS.ProcessEnv
  /** Standard input; none when absent. */
  input?: string | Uint8Array
  /** Default 30,000. */
  timeoutMs?: number
  uid?: number
  gid?: number
}

export interface RunResult {
  /** null: killed by a signal. */
  status: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
  bytes: Buffer
}

/**
 * What a tool said and how it ended, whatever its status.
 * @throws Error when the tool is missing, cannot be started, or takes too long.
 */
export async function run(tool: string, args: string[] = [], options: RunOptions = {}): Promise<RunResult> {
  const { input, timeoutMs = 30_000, ...rest } = options
  const stdio = [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'] as const
  const child = spawn(tool, args, { ...rest, stdio: [...stdio] })
  const output: Buffer[] = []
  const errors: Buffer[] = []
  child.stdout?.on('data', chunk => output.push(chunk))
  child.stderr?.on('data', chunk => errors.push(chunk))
  child.stdin?.on('error', () => {}) // a tool need not read it all
  child.stdin?.end(input)
  const stderr = () => Buffer.concat(errors).toString()
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      child.kill('SIGKILL')
      child.unref()
      reject(new Error(`${tool} ${args.join(' ')}: not done after ${timeoutMs} ms: ${stderr()}`))
    }, timeoutMs)
  })
  try {
    const [status, signal] = await Promise.race([once(child, 'close'), late])
    const bytes = Buffer.concat(output)
    return { status, signal, stdout: bytes.toString(), stderr: stderr(), bytes }
  } finally {
    clearTimeout(timer)
  }
}

/** As `run`. @throws Error also when the status is not 0. */
export async function runOk(tool: string, args: string[] = [], options: RunOptions = {}): Promise<RunResult> {
  const result = await run(tool, args, options)
  if (result.status === 0) return result
  const end = result.signal ?? `status ${result.status}`
  throw new Error(`${tool} ${args.join(' ')}: ${end}: ${result.stderr || result.stdout}`)
}

/** Whether a process runs. One that has ended and was not waited for (who knows what reaps here) does not. */
export async function isAlive(pid: number): Promise<boolean> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  return text !== '' && !['Z', 'X'].includes(text[text.lastIndexOf(')') + 2]!)
}
