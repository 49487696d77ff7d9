/**
 * Runs compiled tap files, a few at a time, each as a process of its own.
 *
 * Invariant: a file passes only when it ran at least one test, ended by itself with status 0, and left no
 * process, mount or temporary file behind. Every file gets directories of its own (TMPDIR, XDG_*), so that no
 * test sees or touches what belongs to the user.
 * Why not tap's own runner: it wraps every node process below a test, and with that the daemons that are
 * measured and counted here.
 */
import { spawn, spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { root } from './steps.mjs'
import { countTests, readTap } from './tap-tree.mjs'

/** Of one file. Single tests have shorter limits, which tap enforces. */
const FILE_TIMEOUT_MS = 10 * 60_000
const TEST_TIMEOUT_S = 120
/** From the end of a test's process to the end of its output. */
const OUTPUT_TIMEOUT_MS = 5000
/** What tap's exit status says after a failure that it has reported. */
const FAILED = 'ended with status 1'
const MAX_STDERR_CHARS = 20_000

const running = new Set()

/**
 * Runs { file, suffix, env }: a compiled test file, what to add to its name, variables to add to its environment.
 * Results in the same order: { name, passed: number, failed: string[], skipped: string[] }.
 */
export async function runTests(runs, { jobs }) {
  const scratch = mkdtempSync(join(tmpdir(), 'cidfs-test-'))
  const stop = () => killAll(scratch)
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, stop)
  try {
    const results = await inParallel(runs, jobs, (run, i) => runFile(run, join(scratch, String(i))))
    const left = mountsBelow(scratch).map(at => `left a mount behind: ${at}`)
    if (left.length > 0) results.push({ name: 'mounts', passed: 0, failed: left, skipped: [] })
    return results
  } finally {
    removeScratch(scratch)
  }
}

async function inParallel(items, jobs, work) {
  const results = []
  let next = 0
  const lane = async () => {
    for (let i = next++; i < items.length; i = next++) results[i] = await work(items[i], i)
  }
  await Promise.all(Array.from({ length: Math.max(1, jobs) }, lane))
  return results
}

async function runFile({ file, suffix, env: own }, scratch) {
  const name = relative(join(root, 'dist', 'test'), file).replace(/\.test\.js$/, '') + suffix
  const startMs = performance.now()
  const { env, temp } = environment(scratch)
  const child = spawn(process.execPath, ['--enable-source-maps', file], {
    cwd: root,
    env: { ...env, ...own },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true, // a process group of its own: what is left of it can be found and ended
  })
  running.add(child)
  const output = collect(child)
  const end = await ended(child)
  running.delete(child)
  end.push(...(await leftBehind(child.pid, temp)))
  const result = await output(end)
  print({ name, ...result }, performance.now() - startMs)
  return { name, ...result }
}

/** Returns a function that waits for the end of the output, which a process that was left may hold open. */
function collect(child) {
  const tap = readTap(child.stdout)
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', text => {
    stderr = (stderr + text).slice(-MAX_STDERR_CHARS)
  })
  return async end => {
    const timer = setTimeout(() => {
      end.push('left a process that holds its output open')
      child.stdout.destroy()
      child.stderr.destroy()
    }, OUTPUT_TIMEOUT_MS)
    const counts = countTests(await tap)
    clearTimeout(timer)
    counts.failed.push(...end.filter(line => counts.failed.length === 0 || line !== FAILED))
    if (counts.failed.length > 0 && stderr !== '') counts.details.push(`standard error:\n${stderr}`)
    return counts
  }
}

/** 0711: tests that act as another user must be able to pass through. */
function environment(scratch) {
  const at = name => join(scratch, name)
  for (const name of ['tmp', 'run', 'data', 'config']) mkdirSync(at(name), { recursive: true, mode: 0o711 })
  chmodSync(join(scratch, '..'), 0o711)
  chmodSync(at('run'), 0o700)
  const env = {
    ...process.env,
    TAP_TIMEOUT: String(TEST_TIMEOUT_S),
    TMPDIR: at('tmp'),
    XDG_RUNTIME_DIR: at('run'),
    XDG_DATA_HOME: at('data'),
    XDG_CONFIG_HOME: at('config'),
  }
  for (const name of Object.keys(env)) if (name.startsWith('npm_')) delete env[name]
  return { env, temp: at('tmp') }
}

/** Why the process did not end well: [] when it did. */
function ended(child) {
  return new Promise(resolve => {
    let timedOut = false
    const timer = setTimeout(() => {
      timedOut = true
      killGroup(child.pid)
    }, FILE_TIMEOUT_MS)
    child.once('error', err => resolve([`cannot run: ${err.message}`]))
    child.once('exit', (status, signal) => {
      clearTimeout(timer)
      if (timedOut) resolve([`did not end within ${FILE_TIMEOUT_MS / 60_000} minutes`])
      else
        resolve(
          status === 0
            ? []
            : [
                signal === null
                  ? status === 1
                    ? FAILED
                    : `ended with status ${status}`
                  : `was killed by ${signal}`,
              ],
        )
    })
  })
}

async function leftBehind(group, temp) {
  const left = []
  for (let i = 0; i < 10 && processesOf(group).length > 0; i++) await sleep(50) // just ending
  const processes = processesOf(group)
  if (processes.length > 0) left.push(`left processes behind: ${processes.join(', ')}`)
  killGroup(group)
  const files = readdirSync(temp)
  if (files.length > 0) left.push(`left temporary files behind: ${files.join(', ')}`)
  return left
}

/** Names of the living processes of a group (proc(5): pid (comm) state ppid pgrp). */
function processesOf(group) {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(pid => /^(\d+ \(.*\)) (\S) \d+ (\d+)/s.exec(readProc(pid)))
    .filter(match => match !== null && match[2] !== 'Z' && Number(match[3]) === group)
    .map(match => match[1])
}

function readProc(pid) {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    return ''
  }
}

function killGroup(group) {
  try {
    process.kill(-group, 'SIGKILL')
  } catch {
    // Nothing is left of it.
  }
}

function killAll(scratch) {
  for (const child of running) killGroup(child.pid)
  removeScratch(scratch)
  process.exit(130)
}

function print({ name, passed, failed, skipped, details }, ms) {
  const counts = `${passed} passed${failed.length ? `, ${failed.length} failed` : ''}${skipped.length ? `, ${skipped.length} skipped` : ''}`
  console.log(`${failed.length ? 'FAIL' : 'ok  '}  ${name}  (${counts}, ${(ms / 1000).toFixed(1)} s)`)
  for (const text of details) console.log(text.replace(/^/gm, '    '))
}

/** Mounts first: what is below them is not ours to remove, and a dead one would not let us. */
function removeScratch(scratch) {
  const unmount = process.getuid() === 0 ? ['umount', '-l'] : ['fusermount3', '-u', '-z']
  for (const at of mountsBelow(scratch)) spawnSync(unmount[0], [...unmount.slice(1), at], { timeout: 10_000 })
  if (mountsBelow(scratch).length === 0) rmSync(scratch, { recursive: true, force: true })
}

function mountsBelow(dir) {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
  return lines.map(line => line.split(' ')[4]).filter(at => at?.startsWith(`${dir}/`))
}
