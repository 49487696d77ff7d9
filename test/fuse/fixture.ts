/**
 * Mounts for tests, and the tools that use them.
 *
 * Invariant: after a test nothing is left: no mount, no directory, no child, no descriptor or thread that was not
 * there before. Everything that touches a mount of this process does so in a child: a synchronous call from here
 * would wait for itself.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readlinkSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import { mountTable } from '../../src/fuse/mount-table.js'
import { FuseSession, type SessionMountOptions } from '../../src/fuse/session.js'
import { MemoryFileSystem } from './memory-file-system.js'

const TOOL_TIMEOUT_MS = 20_000

export interface Result {
  status: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

/** Runs a program to its end. */
export function run(
  command: string,
  args: string[],
  options: { uid?: number; gid?: number } = {},
): Promise<Result> {
  return ended(start(command, args, options))
}

export function start(
  command: string,
  args: string[],
  options: { uid?: number; gid?: number } = {},
): ChildProcess {
  const env = { ...process.env, LC_ALL: 'C.UTF-8' }
  return spawn(command, args, { ...options, env, timeout: TOOL_TIMEOUT_MS, killSignal: 'SIGKILL' })
}

/** What a child printed and how it ended. */
export function ended(child: ChildProcess): Promise<Result> {
  return new Promise((resolve, reject) => {
    let [stdout, stderr] = ['', '']
    child.stdout?.setEncoding('latin1').on('data', (text: string) => (stdout += text))
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    child.once('error', reject)
    child.once('close', (status, signal) => resolve({ status, signal, stdout, stderr }))
  })
}

/** Standard output of a shell script that has to succeed, without white space at the end. */
export async function sh(script: string): Promise<string> {
  const { status, signal, stdout, stderr } = await run('sh', ['-ec', script])
  if (status !== 0) throw new Error(`sh: ${script}: status ${status ?? signal}: ${stderr}${stdout}`)
  return stdout.trimEnd()
}

/** Standard output of a Python program. */
export async function python(program: string): Promise<string> {
  const { status, stdout, stderr } = await run('python3', ['-c', program])
  if (status !== 0) throw new Error(`python3: ${stderr}`)
  return stdout.trimEnd()
}

/** Waits until `condition` holds. */
export async function until(condition: () => boolean, what: string, timeoutMs = 5000): Promise<void> {
  for (const end = performance.now() + timeoutMs; !condition(); await sleep(5)) {
    if (performance.now() > end) throw new Error(`waited in vain until ${what}`)
  }
}

/** An empty directory that is removed after the test; what is still mounted there fails the removal. */
export function temporaryDirectory(t: Test): string {
  const dir = mkdtempSync(join(tmpdir(), 'cidfs-fuse-'))
  t.teardown(() => rmdirSync(dir))
  return dir
}

/** Open descriptors of this process, by what they refer to, without those of the event loop's own making. */
export function openDescriptors(): string[] {
  const targets: string[] = []
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      targets.push(readlinkSync(`/proc/self/fd/${fd}`))
    } catch {
      // The descriptor of this very listing.
    }
  }
  return targets.filter(target => !target.startsWith('/proc/')).sort()
}

/** Threads of this process whose name is not Node's: the addon's inherit the main thread's. */
export function threadCount(): number {
  return readdirSync('/proc/self/task').length
}

export interface Mounted {
  dir: string
  fs: MemoryFileSystem
  session: FuseSession
}

/** A mounted file system, unmounted at the end of the test, which fails if anything of it is left. */
export async function mounted(
  t: Test,
  fs = new MemoryFileSystem(),
  options: SessionMountOptions = {},
): Promise<Mounted> {
  const dir = mkdtempSync(join(tmpdir(), 'cidfs-fuse-'))
  const before = openDescriptors().filter(isDevice).length
  const session = await FuseSession.mount(dir, fs, options)
  t.teardown(async () => {
    await session.unmount({ lazyAfterMs: 1000 })
    await session.closed
    const left = mountTable().filter(entry => entry.mountpoint === dir)
    if (left.length > 0) throw new Error(`${dir} is still mounted`)
    rmdirSync(dir)
    if (openDescriptors().filter(isDevice).length > before)
      throw new Error('a descriptor of /dev/fuse is left')
  })
  return { dir, fs, session }
}

function isDevice(target: string): boolean {
  return target === '/dev/fuse'
}
