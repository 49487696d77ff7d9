/**
 * A systemd of the test's own, as process 1 of namespaces made for it.
 *
 * Invariant: it sees the machine read-only but for one directory, has a control group of its own, no network but
 * loopback, and none of the machine's units. When the test ends, so do it and all it has started.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type RunResult, run } from '../support/run.js'
import { atEnd, type Owner, tempDir } from '../support/temp.js'
import { until } from '../support/until.js'

const PROGRAM = ['/usr/lib/systemd/systemd', '/lib/systemd/systemd'].find(path => existsSync(path))
const START_TIMEOUT_MS = 20_000

/** In the namespaces; $1 is the directory that stays writable. */
const SETUP = `
set -e
# what other tests have mounted is theirs to take down
cut -d' ' -f5 /proc/self/mountinfo | grep /cidfs- | tac | xargs -r -n1 umount -l || true
mount -t tmpfs tmpfs /run
mkdir -p /run/units
cp "$1"/units/* /run/units/
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind "$1" "$1"
mount -o remount,bind,ro /
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
export container=cidfs-test SYSTEMD_UNIT_PATH=/run/units
exec ${PROGRAM} --system --unit=default.target --log-target=console --show-status=no`

/** Where control groups of version 2 are, if anywhere. */
function cgroupRoot(): string | undefined {
  const mounts = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .map(line => line.split(' '))
  return mounts.find(([, , type, options]) => type === 'cgroup2' && options?.startsWith('rw'))?.[1]
}

/** Why it cannot run here; false when it can. */
export function whyNoSystemd(): string | false {
  if (PROGRAM === undefined) return 'systemd is not installed'
  if (process.geteuid?.() !== 0) return 'needs root to make namespaces'
  return cgroupRoot() === undefined && 'there are no control groups of version 2 to write to'
}

export class TestSystemd {
  private constructor(
    private readonly outer: ChildProcess,
    private readonly pid: number,
    private readonly output: { text: string },
  ) {}

  /** `units`: their text by file name; `default.target` is what is started. `dir`: where it may write. */
  static async start(t: Owner, dir: string, units: Record<string, string>): Promise<TestSystemd> {
    await mkdir(join(dir, 'units'))
    for (const [name, text] of Object.entries(units)) await writeFile(join(dir, 'units', name), text)
    const group = join(cgroupRoot()!, `cidfs-test-${process.pid}`)
    await mkdir(group)
    const namespaces = ['--pid', '--mount', '--cgroup', '--ipc', '--uts', '--net', '--propagation', 'private']
    const inner = [
      'unshare',
      '--fork',
      '--kill-child',
      ...namespaces,
      '--mount-proc',
      'bash',
      '-c',
      SETUP,
      'setup',
      dir,
    ]
    const outer = spawn('bash', ['-c', `echo $$ > ${group}/cgroup.procs; exec "$@"`, 'outer', ...inner], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const output = { text: '' }
    for (const stream of [outer.stdout, outer.stderr]) stream.on('data', chunk => (output.text += chunk))
    atEnd(t, () => end(outer, group))
    const pid = await until('systemd runs', () => firstChild(outer.pid!), START_TIMEOUT_MS)
    const systemd = new TestSystemd(outer, pid, output)
    await until(
      'systemd answers',
      async () => (await systemd.run('systemctl', ['is-system-running', '--wait'])).stdout !== '',
      START_TIMEOUT_MS,
    )
    return systemd
  }

  /** Runs a program in its namespaces, whatever its status. */
  run(command: string, args: string[]): Promise<RunResult> {
    const { exitCode, signalCode } = this.outer
    if (exitCode !== null || signalCode !== null) throw new Error(`systemd has ended: ${this.output.text}`)
    return run('nsenter', ['-t', `${this.pid}`, '-m', '-p', '-n', '-C', '--', command, ...args], { cwd: '/' })
  }

  /** A property of a unit. */
  async show(unit: string, property: string): Promise<string> {
    return (await this.run('systemctl', ['show', '-P', property, unit])).stdout.trim()
  }

  /** @throws Error when systemctl fails. */
  async control(...args: string[]): Promise<void> {
    const { status, stderr } = await this.run('systemctl', args)
    if (status !== 0) throw new Error(`systemctl ${args.join(' ')}: ${stderr}\n${this.output.text}`)
  }
}

/** Process 1 of the namespace, once it is systemd. */
async function firstChild(pid: number): Promise<number | false> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '')
  const child = Number(children.split(' ')[0])
  if (child === 0) return false
  const name = await readFile(`/proc/${child}/comm`, 'utf8').catch(() => '')
  return name.trim() === 'systemd' && child
}

/** With process 1 everything in its namespace ends. */
async function end(outer: ChildProcess, group: string): Promise<void> {
  outer.kill('SIGKILL')
  if (outer.exitCode === null && outer.signalCode === null) await once(outer, 'exit')
  await until('the control group is empty', () => removed(group))
}

async function removed(group: string): Promise<boolean> {
  const { stdout } = await run('find', [group, '-depth', '-type', 'd'])
  for (const dir of stdout.split('\n').filter(Boolean)) await rmdir(dir).catch(() => {})
  return !existsSync(group)
}

/** A directory for `start`, with the mountpoint in it. */
export async function systemdDirectory(t: Owner): Promise<string> {
  const dir = await tempDir(t, 'cidfs-systemd-')
  for (const name of ['mnt', 'run']) await mkdir(join(dir, name), { mode: 0o700 })
  return dir
}
