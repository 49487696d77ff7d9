/**
 * A real mount whose daemon is started by the keeper, so that it can be killed without ending the mount.
 *
 * Invariant: as of `Mount`: afterwards there is no mount, no process and no file of it, and the keeper has ended
 * with 0. `kill` is a crash: SIGKILL to the daemon that serves at that moment.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isMounted } from './mount.js'
import { mainFile, packageRoot } from './root.js'
import { isAlive, type RunResult, run } from './run.js'
import { atEnd, type Owner, tempDir } from './temp.js'
import { until } from './until.js'

const START_TIMEOUT_MS = 30_000
const STOP_TIMEOUT_MS = 45_000

export const keeperFile = join(packageRoot, 'build', 'cidfs-keeper')

export interface KeptMountOptions {
  gateways?: string[]
  /** Further options of `cidfs mount`. */
  args?: string[]
  env?: NodeJS.ProcessEnv
  uid?: number
}

export class KeptMount {
  private ending = false

  private constructor(
    readonly dir: string,
    readonly stateDir: string,
    readonly keeper: ChildProcess,
    private readonly env: NodeJS.ProcessEnv,
    private readonly output: { text: string },
    private readonly uid: number | undefined,
  ) {}

  /** Returns when the mount answers. As many deaths as the test likes, unless `env` says otherwise. */
  static async start(t: Owner, options: KeptMountOptions = {}): Promise<KeptMount> {
    const temp = await tempDir(t, 'cidfs-kept-')
    const [dir, stateDir, runtime] = ['mnt', 'state', 'run'].map(name => join(temp, name)) as [
      string,
      string,
      string,
    ]
    for (const path of [dir, runtime]) await mkdir(path, { mode: 0o700 })
    const { uid } = options
    if (uid !== undefined) {
      const { status, stderr } = await run('chown', ['-R', `${uid}:${uid}`, temp])
      if (status !== 0) throw new Error(stderr)
    }
    const env = { ...process.env, CIDFS_KEEPER_DEATHS: '100000', ...options.env, XDG_RUNTIME_DIR: runtime }
    const words = ['mount', '--foreground', '--isolated', '--state', stateDir]
    for (const gateway of options.gateways ?? []) words.push('--gateway', gateway)
    const program = [process.execPath, mainFile, ...words, ...(options.args ?? []), '--', dir]
    const keeper = spawn(keeperFile, [dir, ...program], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env,
      ...(uid === undefined ? {} : { uid, gid: uid }),
    })
    const output = { text: '' }
    for (const stream of [keeper.stdout, keeper.stderr])
      stream?.on('data', chunk => (output.text = (output.text + chunk).slice(-200_000)))
    const mount = new KeptMount(dir, stateDir, keeper, env, output, uid)
    atEnd(t, () => mount.stop())
    await mount.served(0, START_TIMEOUT_MS)
    return mount
  }

  /** What keeper and daemons printed. */
  get log(): string {
    return this.output.text
  }

  path(...names: string[]): string {
    return join(this.dir, ...names)
  }

  /** The daemon that is registered, alive or not. */
  async pid(): Promise<number> {
    const record = JSON.parse(await readFile(join(this.stateDir, 'daemon.json'), 'utf8')) as { pid: number }
    return record.pid
  }

  /** The children of the keeper: at most one of them serves. */
  async processes(): Promise<number[]> {
    const { pid } = this.keeper
    const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '')
    return text.split(' ').filter(Boolean).map(Number)
  }

  /** Waits until a daemon other than `before` is registered; returns its pid. */
  served(before: number, timeoutMs = START_TIMEOUT_MS): Promise<number> {
    return until(
      'a daemon serves the mount',
      async () => {
        if (this.keeper.exitCode !== null) throw new Error(`the keeper has ended\n${this.log}`)
        const pid = await this.pid().catch(() => before)
        return pid !== before && (await isAlive(pid)) && pid
      },
      timeoutMs,
    )
  }

  /** Ends the daemon as a crash does, whatever it is at. @returns its pid. */
  async kill(): Promise<number | undefined> {
    const [pid] = await this.processes()
    if (pid !== undefined) process.kill(pid, 'SIGKILL')
    return pid
  }

  /** Runs `cidfs …`, whatever its exit code; `main` of another version, if given. */
  cli(args: string[], main = mainFile): Promise<RunResult> {
    const identity = this.uid === undefined ? {} : { uid: this.uid, gid: this.uid }
    return run(process.execPath, [main, ...args], { cwd: '/', env: this.env, ...identity })
  }

  isMounted(): Promise<boolean> {
    return isMounted(this.dir)
  }

  /** The exit code of a keeper that something else ends. */
  async ended(): Promise<number | null> {
    this.ending = true
    const { keeper } = this
    const timer = setTimeout(() => keeper.kill('SIGKILL'), STOP_TIMEOUT_MS)
    if (keeper.exitCode === null && keeper.signalCode === null) await once(keeper, 'exit')
    clearTimeout(timer)
    return keeper.exitCode
  }

  /** Unmounts with SIGTERM to the keeper. @throws Error when it ended badly, or left something. */
  async stop(): Promise<void> {
    const faults: string[] = []
    const daemons = await this.processes()
    if (!this.ending) {
      const early = this.keeper.exitCode ?? this.keeper.signalCode
      if (early !== null) faults.push(`the keeper had ended with ${early}`)
      this.keeper.kill('SIGTERM')
      const code = await this.ended()
      if (code !== 0) faults.push(`the keeper ended with ${this.keeper.signalCode ?? code}`)
    }
    for (const pid of daemons) {
      if (!(await isAlive(pid))) continue
      faults.push(`the daemon ${pid} is still there`)
      process.kill(pid, 'SIGKILL')
    }
    if (await this.isMounted()) {
      faults.push('the mount is still there')
      await run('umount', ['-f', this.dir]) // ends the connection, whoever has it open
      if (await this.isMounted()) await run('umount', ['-l', this.dir])
    }
    if (faults.length > 0) throw new Error(`${faults.join('; ')}\n${this.log}`)
  }
}
