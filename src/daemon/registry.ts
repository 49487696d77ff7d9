/**
 * How a command finds the daemon that serves a directory.
 *
 * Invariant: a running daemon has its record in two places, `<state>/daemon.json` and, by the hash of its
 * mountpoint, in a runtime directory that only its user can write. A record of a process that is gone is
 * never returned. Nothing here touches what lies below a mountpoint: a dead or busy mount cannot hang a
 * command that only asks who serves it.
 */
import { createHash } from 'node:crypto'
import { lstat, mkdir, readdir, readFile, readlink, rename, rm, writeFile } from 'node:fs/promises'
import { isAbsolute, join, resolve, sep } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CidfsError } from '../core/errors.js'
import { logger } from '../core/log.js'

const log = logger('daemon:registry')

export interface DaemonRecord {
  /** Absolute, without symbolic links. */
  mountpoint: string
  stateDir: string
  pid: number
  /** When the process began (`processStart`): a pid alone may be another process by now. */
  started: string
  /** Path of the control socket. */
  socket: string
  /** Who starts another daemon when this one dies. */
  keeper?: Process
}

export interface Process {
  pid: number
  /** As above. */
  started: string
}

/** How long a daemon takes at most to take over from one that has died. */
const SUCCESSION_MS = 20_000

/** sun_path holds 108 bytes, the last of them NUL (unix(7)). */
const MAX_SOCKET_PATH_BYTES = 107

type Environment = Record<string, string | undefined>

/** A path for the control socket of `stateDir`: in it, or in a runtime directory when that is too deep. */
export async function controlSocketPath(stateDir: string, env: Environment = process.env): Promise<string> {
  const inState = join(stateDir, 'control.sock')
  if (fits(inState)) return inState
  for (const dir of await runtimeDirectories(env, true)) {
    const path = join(dir, `${hashOf(stateDir)}.sock`)
    if (fits(path)) return path
  }
  throw new CidfsError(
    'BAD_CONFIG',
    `no room for a control socket: ${stateDir} is too deep; choose a shorter --state`,
  )
}

const fits = (path: string) => Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 24)
}

/** Makes this process findable. The returned function undoes it. */
export async function register(
  own: Pick<DaemonRecord, 'mountpoint' | 'stateDir' | 'socket'> & { keeperPid?: number | undefined },
  env: Environment = process.env,
): Promise<() => Promise<void>> {
  const { keeperPid, ...places } = own
  const record: DaemonRecord = { ...places, ...(await processOf(process.pid)) }
  if (keeperPid !== undefined) record.keeper = await processOf(keeperPid)
  const [runtime] = await runtimeDirectories(env, true)
  const files = [join(record.stateDir, 'daemon.json')]
  if (runtime !== undefined) files.push(join(runtime, `${hashOf(record.mountpoint)}.json`))
  for (const file of files) await writeAtomically(file, `${JSON.stringify(record)}\n`)
  return async () => {
    for (const file of files) await rm(file, { force: true })
  }
}

async function processOf(pid: number): Promise<Process> {
  return { pid, started: (await processStart(pid)) ?? '' }
}

async function writeAtomically(file: string, text: string): Promise<void> {
  const temporary = `${file}.${process.pid}`
  await writeFile(temporary, text, { mode: 0o600 })
  await rename(temporary, file)
}

/** The daemon of a state directory, if it runs. */
export function findByState(stateDir: string): Promise<DaemonRecord | undefined> {
  return readRecord(join(stateDir, 'daemon.json'))
}

/** The running daemons of this user, by mountpoint. */
export async function findAll(env: Environment = process.env): Promise<DaemonRecord[]> {
  const found = new Map<string, DaemonRecord>()
  for (const dir of await runtimeDirectories(env)) {
    for (const name of await readdir(dir)) {
      const record = name.endsWith('.json') ? await readRecord(join(dir, name)) : undefined
      if (record !== undefined) found.set(record.mountpoint, record)
    }
  }
  return [...found.values()].sort((a, b) => (a.mountpoint < b.mountpoint ? -1 : 1))
}

/** A running daemon and the part of a path that lies below its mountpoint ('' is the mountpoint itself). */
export interface Served {
  daemon: DaemonRecord
  path: string
}

/** Who serves `path` (of whatever spelling), if anybody does: the longest mountpoint that contains it. */
export async function findByPath(path: string, env: Environment = process.env): Promise<Served | undefined> {
  const daemons = await findAll(env)
  const real = await resolveOutsideMounts(path, new Set(daemons.map(daemon => daemon.mountpoint)))
  const containing = daemons.filter(({ mountpoint }) => isWithin(real, mountpoint))
  const daemon = containing.sort((a, b) => b.mountpoint.length - a.mountpoint.length)[0]
  return daemon && { daemon, path: real.slice(daemon.mountpoint.length).replace(/^\/+/, '') }
}

/** Whether `path` is `dir` or lies below it; both absolute and normal. */
export function isWithin(path: string, dir: string): boolean {
  return path === dir || path.startsWith(dir.endsWith(sep) ? dir : dir + sep)
}

/**
 * `path` made absolute and free of symbolic links, as far as it leads to one of `mountpoints`; what lies
 * below that is left as it is written. Names that do not exist stay.
 * Why not realpath: it asks every directory on the way, and a dead mount answers none of them.
 */
export async function resolveOutsideMounts(
  path: string,
  mountpoints: ReadonlySet<string> = new Set(),
): Promise<string> {
  let done = '/'
  const rest = resolve(path).split(sep).filter(Boolean)
  for (let links = 0; rest.length > 0; ) {
    if (mountpoints.has(done)) break
    const next = join(done, rest.shift()!)
    const target = await readlink(next).catch(() => undefined)
    if (target === undefined || ++links > 40) done = next
    else {
      rest.unshift(...target.split(sep).filter(Boolean))
      if (isAbsolute(target)) done = '/'
    }
  }
  return join(done, ...rest)
}

async function readRecord(file: string): Promise<DaemonRecord | undefined> {
  try {
    let record = JSON.parse(await readFile(file, 'utf8')) as DaemonRecord
    for (const end = performance.now() + SUCCESSION_MS; ; await sleep(10)) {
      if (await isRunning(record)) return record
      // a daemon that takes over writes a new record
      if (performance.now() > end || !(await isKept(record))) break
      record = JSON.parse(await readFile(file, 'utf8')) as DaemonRecord
    }
    log('removing the record of dead process %d: %s', record.pid, file)
    await rm(file, { force: true })
  } catch (err) {
    log('no record in %s: %O', file, err)
  }
  return undefined
}

/** Whether another daemon comes if this one dies. */
export async function isKept({ keeper }: Pick<DaemonRecord, 'keeper'>): Promise<boolean> {
  return keeper !== undefined && (await isRunning(keeper))
}

/** Whether the process of a record still exists; one that has only not been waited for does not. */
export async function isRunning({ pid, started }: Process): Promise<boolean> {
  return (await processStart(pid)) === started
}

/** State and start time of a living process, see proc_pid_stat(5); undefined: it is gone, or a zombie. */
async function processStart(pid: number): Promise<string | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ') // from the third on
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19]
}

/**
 * Directories for records, the one to write to first. All are read: a daemon that a service manager started
 * may know another environment than the shell that asks for it.
 */
async function runtimeDirectories(env: Environment, create = false): Promise<string[]> {
  const uid = process.getuid?.() ?? 0
  const parents = [env.XDG_RUNTIME_DIR, `/run/user/${uid}`].filter(
    dir => dir !== undefined && isAbsolute(dir),
  )
  const candidates = [...parents.map(dir => join(dir!, 'cidfs')), `/tmp/cidfs-${uid}`]
  const usable: string[] = []
  for (const dir of new Set(candidates)) {
    if (await isPrivateDirectory(dir, uid, create && usable.length === 0)) usable.push(dir)
  }
  return usable
}

/** A directory of ours that nobody else can write. The parent must be ours too, unless it is /tmp (sticky). */
async function isPrivateDirectory(dir: string, uid: number, create: boolean): Promise<boolean> {
  try {
    const parent = await lstat(join(dir, '..'))
    if (parent.uid !== uid && (parent.mode & 0o1000) === 0) return false
    if (create) await mkdir(dir, { mode: 0o700 }).catch(() => undefined)
    const stats = await lstat(dir)
    return stats.isDirectory() && stats.uid === uid && (stats.mode & 0o022) === 0
  } catch {
    return false
  }
}
