/** What the scripts share: the package's root, running a program, saying what is wrong in one line. */
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** The program that `npm start` and the bin entry run. */
export const mainFile = join(root, 'dist', 'src', 'cli', 'main.js')

/** A failure that needs no stack: its message says what to do. */
export class Problem extends Error {}

/** Runs a program with our standard streams. @throws Problem when it cannot or does not succeed. */
export function run(command, args, options = {}) {
  const { status, signal, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options })
  if (error) throw new Problem(`${command}: ${error.message}`)
  if (status !== 0)
    throw new Problem(`${command} ${args[0] ?? ''} failed with ${signal ?? `status ${status}`}`)
}

/** Whether the script `url` was started, rather than imported. */
export function isMain(url) {
  return process.argv[1] === fileURLToPath(url)
}

/** Runs the body of a script; a failure is one line and status 1. */
export async function script(name, body) {
  try {
    await body()
  } catch (err) {
    console.error(
      `${name}: ${err instanceof Problem || process.env.DEBUG === undefined ? err.message : err.stack}`,
    )
    process.exitCode = 1
  }
}
