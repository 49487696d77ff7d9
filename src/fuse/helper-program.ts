/**
 * Runs the small programs that mounting needs.
 *
 * Invariant: one runs in the C locale (its words are read), ends within its time limit, and leaves no timer behind.
 * The `timeout` of node:child_process would: it keeps the event loop alive when the program does not exist.
 */
import { spawn } from 'node:child_process'

export interface Outcome {
  /** Null when it was killed. */
  status: number | null
  stderr: string
}

export interface HelperOptions {
  timeoutMs: number
  env?: NodeJS.ProcessEnv
  /** A descriptor that the program gets as its descriptor 3. */
  descriptor?: number
}

/** @throws Error with `code` ENOENT and the like when the program does not start. */
export function runHelper(command: string, args: string[], options: HelperOptions): Promise<Outcome> {
  const { timeoutMs, env, descriptor } = options
  return new Promise((resolve, reject) => {
    const extra = descriptor === undefined ? [] : [descriptor]
    const stdio = ['ignore' as const, 'ignore' as const, 'pipe' as const, ...extra]
    const child = spawn(command, args, { stdio, env: { ...process.env, ...env, LC_ALL: 'C' } })
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
    let stderr = ''
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    child.once('close', status => {
      clearTimeout(timer)
      resolve({ status, stderr })
    })
    child.once('error', err => {
      clearTimeout(timer)
      reject(err)
    })
  })
}
