/**
 * A real daemon on a real mount, as a process of its own.
 *
 * Invariant: when the fixture has ended there is no mount, no process and no file of it, and the daemon has
 * ended with 0, without a warning of Node's, and has not collected descriptors: each of these is an error of the
 * test that used it. The daemon talks to nobody but the sources that the test names.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, readFile, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { mainFile } from './root.js'
import { type RunOptions, type RunResult, run, runOk } from './run.js'
import { atEnd, type Owner, tempDir } from './temp.js'
import { type Transport, testTransport } from './transport.js'

const START_TIMEOUT_MS = 30_000
const STOP_TIMEOUT_MS = 45_000
/** What a daemon may hold more than at its start: connections, worker threads. */
const DESCRIPTOR_GROWTH = 100
/** Containers that the store keeps open, for having been read, and a few that are being written. */
const MAX_CONTAINERS = 256 + 16

export interface MountOptions {
  gateways?: string[]
  kubo?: string
  /** How the mount speaks FUSE; by default that of this run of the tests. */
  transport?: Transport
  /** Further options of `cidfs mount`. */
  args?: string[]
  /** An existing directory to mount on; a new one when absent. */
  dir?: string
  /** State to go on with; a new one when absent. */
  stateDir?: string
  env?: NodeJS.ProcessEnv
  uid?: number
  gid?: number
  /** false: with the defaults of users, for a daemon that reaches nobody anyway. */
  isolated?: false
  /** A program that becomes the daemon, such as `nsenter …`; its pid must stay the same. */
  wrapper?: string[]
  /** Called when the daemon has been spawned: it need not live to be ready. */
  onSpawn?: (daemon: ChildProcess) => void
}

export class Mount {
  private constructor(
    readonly dir: string,
    readonly stateDir: string,
    private readonly options: MountOptions,
    private readonly daemon: ChildProcess,
    private readonly output: { text: string },
    private readonly runtimeDir: string,
  ) {}

  private descriptorsAtStart: string[] = []
  private stopped = false

  /** Returns when the mount answers; everything is taken down and checked after the test. */
  static async start(t: Owner, options: MountOptions = {}): Promise<Mount> {
    const temp = await tempDir(t, 'cidfs-mount-')
    const dir = options.dir ?? join(temp, 'mnt')
    const stateDir = options.stateDir ?? join(temp, 'state')
    const runtimeDir = join(temp, 'run')
    for (const path of options.dir === undefined ? [dir, runtimeDir] : [runtimeDir]) await mkdir(path)
    if (options.uid !== undefined) await runOk('chown', ['-R', `${options.uid}:${options.gid}`, temp])
    const output = { text: '' }
    const daemon = spawnDaemon(dir, stateDir, runtimeDir, options, output)
    options.onSpawn?.(daemon)
    const mount = new Mount(dir, stateDir, options, daemon, output, runtimeDir)
    atEnd(t, () => mount.stop())
    await mount.ready()
    mount.descriptorsAtStart = await mount.descriptors()
    return mount
  }

  get pid(): number {
    return this.daemon.pid!
  }

  /** What the daemon printed, both streams. */
  get log(): string {
    return this.output.text
  }

  /** A path in the mount. */
  path(...names: string[]): string {
    return join(this.dir, ...names)
  }

  /** Runs a tool, by default in the mount, as the user who mounts. @throws Error unless its status is 0 */
  run(tool: string, args: string[] = [], options: RunOptions = {}): Promise<RunResult> {
    const { cwd = this.dir, ...rest } = options
    if (this.options.uid === undefined) return runOk(tool, args, { cwd, ...rest })
    // Node changes the directory before the user, and root may not enter the mounts of others.
    return runOk('env', ['-C', cwd, tool, ...args], { cwd: '/', ...this.identity(), ...rest })
  }

  /** Runs `cidfs …` outside of the mount, whatever its exit code. */
  cli(args: string[], options: RunOptions = {}): Promise<RunResult> {
    const env = { ...process.env, ...this.options.env, XDG_RUNTIME_DIR: this.runtimeDir, ...options.env }
    return run(process.execPath, [mainFile, ...args], { cwd: '/', ...this.identity(), ...options, env })
  }

  /** As `cli`, parsed. @throws Error unless the exit code is 0 */
  async json<T>(args: string[], options: RunOptions = {}): Promise<T> {
    const { status, stdout, stderr } = await this.cli([...args, '--json'], options)
    if (status !== 0) throw new Error(`cidfs ${args.join(' ')}: status ${status}: ${stderr}`)
    return JSON.parse(stdout) as T
  }

  private identity(): { uid?: number; gid?: number } {
    const { uid, gid } = this.options
    return uid === undefined ? {} : { uid, gid: gid ?? uid }
  }

  /** What the daemon's descriptors are open on, as /proc shows it, sorted; none when it has died. */
  async descriptors(): Promise<string[]> {
    const dir = `/proc/${this.pid}/fd`
    const targets = (await readdir(dir).catch(() => [])).map(fd =>
      readlink(join(dir, fd)).catch(() => undefined),
    )
    return (await Promise.all(targets)).filter(target => target !== undefined).sort()
  }

  /**
   * Descriptors that the daemon holds now and should not: on deleted files, on files outside of its state, several on
   * one container, or simply far more than at its start. Waits a little for those that are being closed.
   */
  async leakedDescriptors(timeoutMs = 3000): Promise<string[]> {
    for (const end = performance.now() + timeoutMs; ; await sleep(50)) {
      const leaked = this.suspicious(await this.descriptors())
      if (leaked.length === 0 || performance.now() > end) return leaked
    }
  }

  private suspicious(now: string[]): string[] {
    const before = new Map<string, number>()
    for (const target of this.descriptorsAtStart) before.set(target, (before.get(target) ?? 0) + 1)
    const seen = new Map<string, number>()
    const leaked = now.filter(target => {
      const nth = (seen.get(target) ?? 0) + 1
      seen.set(target, nth)
      if (nth <= (before.get(target) ?? 0) || !target.startsWith('/')) return false
      // libuv keeps one of /dev/null for each event loop, so for each worker
      if (target.startsWith('/dev/') && target !== '/dev/fuse') return false
      // a pack may be open once for appending and once for reading
      return target.endsWith(' (deleted)') || !target.startsWith(this.stateDir) || nth > 2
    })
    const containers = now.filter(target => target.startsWith(this.stateDir)).length
    const growth = now.length - containers - this.descriptorsAtStart.length
    if (growth > DESCRIPTOR_GROWTH) leaked.push(`${growth} more descriptors than at the start`)
    if (containers > MAX_CONTAINERS) leaked.push(`${containers} descriptors of files in the state directory`)
    return leaked
  }

  /** Kills the daemon as a crash would. The dead mount stays until `stop`, or a `cidfs unmount` of the test. */
  async kill(): Promise<void> {
    this.stopped = true
    this.daemon.kill('SIGKILL')
    if (this.daemon.exitCode === null && this.daemon.signalCode === null) await once(this.daemon, 'exit')
  }

  /** The exit code of a daemon that something else ends; its end is no fault then. */
  async ended(): Promise<number | null> {
    this.stopped = true
    const timer = setTimeout(() => this.daemon.kill('SIGKILL'), STOP_TIMEOUT_MS)
    if (this.daemon.exitCode === null && this.daemon.signalCode === null) await once(this.daemon, 'exit')
    clearTimeout(timer)
    return this.daemon.exitCode
  }

  /** Whether the kernel still has the mount. */
  isMounted(): Promise<boolean> {
    return isMounted(this.dir)
  }

  /**
   * Unmounts as a user would, with SIGTERM, and checks what is left.
   * @throws Error when the daemon leaked, did not end, ended badly, or left its mount.
   */
  async stop(): Promise<void> {
    const faults: string[] = []
    if (!this.stopped) {
      this.stopped = true
      faults.push(...(await this.end()))
    }
    if (await this.isMounted()) {
      await run('umount', ['-l', this.dir])
      if (this.daemon.signalCode !== 'SIGKILL') faults.push('the mount is still there')
    }
    if (faults.length > 0) throw new Error(`${faults.join('; ')}\n${this.log}`)
  }

  private async end(): Promise<string[]> {
    const { daemon } = this
    const ended = daemon.exitCode ?? daemon.signalCode
    if (ended !== null) return [`the daemon had ended with ${ended}`]
    const faults = (await this.leakedDescriptors()).map(target => `leaked descriptor: ${target}`)
    daemon.kill('SIGTERM')
    const timer = setTimeout(() => daemon.kill('SIGKILL'), STOP_TIMEOUT_MS)
    if (daemon.exitCode === null && daemon.signalCode === null) await once(daemon, 'exit')
    clearTimeout(timer)
    const warning = /\(node:\d+\) .*Warning.*/.exec(this.log)
    if (warning !== null) faults.push(`Node warned: ${warning[0]}`)
    if (daemon.exitCode !== 0) faults.push(`the daemon ended with ${daemon.signalCode ?? daemon.exitCode}`)
    return faults
  }

  private async ready(): Promise<void> {
    const { daemon } = this
    const message = once(daemon, 'message').then(([value]) => value as { ready?: unknown; failed?: unknown })
    const exit = once(daemon, 'exit').then(([status]) => ({ failed: `ended with ${status}` }))
    const timeout = new AbortController()
    const late = sleep(START_TIMEOUT_MS, { failed: 'not mounted in time' }, { signal: timeout.signal })
    const first = await Promise.race([message, exit, late.catch(() => ({ failed: 'aborted' }))])
    timeout.abort()
    if ('ready' in first) return
    this.stopped = true
    daemon.kill('SIGKILL')
    throw new Error(`the daemon did not start: ${JSON.stringify(first.failed)}\n${this.log}`)
  }
}

function spawnDaemon(
  dir: string,
  stateDir: string,
  runtimeDir: string,
  options: MountOptions,
  output: { text: string },
): ChildProcess {
  const { transport = testTransport } = options
  const args = ['mount', '--foreground', '--transport', transport, '--state', stateDir]
  if (options.isolated !== false) args.push('--isolated')
  for (const gateway of options.gateways ?? []) args.push('--gateway', gateway)
  if (options.kubo !== undefined) args.push('--kubo', options.kubo)
  const command = [process.execPath, mainFile, ...args, ...(options.args ?? []), dir]
  const [program, ...rest] = [...(options.wrapper ?? []), ...command]
  const daemon = spawn(program!, rest, {
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    env: { ...process.env, ...options.env, XDG_RUNTIME_DIR: runtimeDir },
    ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.gid ?? options.uid }),
  })
  for (const stream of [daemon.stdout, daemon.stderr]) {
    stream?.on('data', chunk => {
      output.text = (output.text + chunk).slice(-50_000)
    })
  }
  return daemon
}

/** Whether anything is mounted exactly there, asked without touching it. */
export async function isMounted(dir: string): Promise<boolean> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n')
  return lines.some(line => line.split(' ')[4] === dir)
}
