/**
 * `npm start -- <dir> [options]`: setup, then `cidfs mount --foreground <dir> [options]`.
 *
 * The daemon stays in our process group, so that a Ctrl-C reaches it from the terminal; a signal that is sent
 * to npm alone arrives here and is passed on. The daemon takes the two for one.
 */
import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { setup } from './setup.mjs'
import { isMain, mainFile, Problem, script } from './steps.mjs'

async function start(args) {
  if (args.length === 0) throw new Problem('say where to mount: npm start -- <dir> [options]')
  setup()
  const child = spawn(process.execPath, [mainFile, 'mount', '--foreground', ...args], {
    cwd: process.env.INIT_CWD ?? process.cwd(), // npm runs scripts in the package's directory
    stdio: 'inherit',
  })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  process.exitCode = await new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (status, signal) => resolve(status ?? 128 + constants.signals[signal]))
  })
}

if (isMain(import.meta.url)) await script('start', () => start(process.argv.slice(2)))
