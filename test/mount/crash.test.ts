/**
 * Nothing that was acknowledged is lost when the daemon dies, at whatever instant.
 *
 * A workload writes, renames, syncs and unlinks; the daemon is killed with SIGKILL; a new one has to show what
 * every call that returned has made, and of a call that was cut off either nothing or all (of a write: some of it).
 * CIDFS_CRASH_KILLS says how often (200 in CI), CIDFS_CRASH_SEED repeats a sequence of operations.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, readFile, stat } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ImportCandidate } from 'ipfs-unixfs-importer'
import t, { type Test } from 'tap'
import type { FsckReport, PathCid } from '../../src/daemon/control-protocol.js'
import { Mount } from '../support/mount.js'
import { mainFile, packageRoot } from '../support/root.js'
import { run } from '../support/run.js'
import { atEnd, tempDir } from '../support/temp.js'
import { imported } from '../unixfs/importer.js'
import { MemoryBlocks } from '../unixfs/support.js'
import { waitFor } from './staged.js'

const KILLS = Number(process.env.CIDFS_CRASH_KILLS ?? (process.env.CI === 'true' ? 200 : 24))
const SEED = Number(process.env.CIDFS_CRASH_SEED ?? Date.now() % 1_000_000)
const WORKERS = 4
/** The daemon works this long before it is killed, at most. */
const LIFE_MS = 400
/** A daemon that is killed before it is ready lives at most this long. */
const START_MS = 600
/** Kills between two looks at everything published. */
const SETTLE_EVERY = 20
/** Kills between lives in which fsck, or garbage collection, runs beside the work. */
const TEND_EVERY = 10
const ANSWER_MS = 60_000

t.setTimeout(60_000 + KILLS * 2_500)

/** `mulberry32`: what is random here comes from the seed. */
function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let x = Math.imul(state ^ (state >>> 15), 1 | state)
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x
    return ((x ^ (x >>> 14)) >>> 0) / 4294967296
  }
}

interface Report {
  faults?: string[]
  files?: number
  calls?: number
  done?: Record<string, number>
}

class Workload {
  private constructor(
    private readonly child: ChildProcess,
    private readonly lines: Interface,
  ) {}

  static start(t: Test, staging: string, log: string): Workload {
    const script = join(packageRoot, 'test', 'mount', 'crash-workload.py')
    const args = [script, staging, `${SEED}`, `${WORKERS}`, log]
    const child = spawn('python3', args, { stdio: ['pipe', 'pipe', 'inherit'], cwd: '/' })
    const workload = new Workload(child, createInterface({ input: child.stdout! }))
    atEnd(t, async () => {
      child.kill('SIGKILL')
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    })
    return workload
  }

  /** One command. @throws Error when it takes too long, or Python has ended. */
  async ask(command: string): Promise<Report> {
    const controller = new AbortController()
    const { signal } = controller
    const late = sleep(ANSWER_MS, undefined, { signal }).then(() => Promise.reject(new Error('no answer')))
    const ended = once(this.child, 'exit', { signal }).then(() => Promise.reject(new Error('it has ended')))
    for (const failure of [late, ended]) failure.catch(() => {})
    const line = once(this.lines, 'line', { signal })
    this.child.stdin!.write(`${command}\n`)
    try {
      return JSON.parse((await Promise.race([line, late, ended]))[0]) as Report
    } catch (err) {
      throw new Error(`workload, ${command}: ${err}`)
    } finally {
      controller.abort()
      line.catch(() => {})
    }
  }
}

interface Trial {
  t: Test
  dir: string
  stateDir: string
  workload: Workload
  chance: () => number
  /** Garbage was collected in the last life. */
  collected: boolean
}

async function begin(t: Test): Promise<Trial> {
  const temp = await tempDir(t, 'cidfs-crash-')
  const [dir, stateDir] = [join(temp, 'mnt'), join(temp, 'state')]
  await mkdir(dir)
  const workload = Workload.start(t, join(dir, 'staging'), join(temp, 'log'))
  return { t, dir, stateDir, workload, chance: random(SEED), collected: false }
}

function mount({ t, dir, stateDir }: Trial, onSpawn: (daemon: ChildProcess) => void = () => {}) {
  return Mount.start(t, { dir, stateDir, args: ['--settle', '20ms'], onSpawn })
}

/** A daemon that is killed while it starts, recovers, or has just started. */
async function killEarly(trial: Trial): Promise<void> {
  const lifeMs = trial.chance() * START_MS
  let killed: Promise<unknown> | undefined
  const onSpawn = (daemon: ChildProcess) => {
    killed = sleep(lifeMs).then(() => daemon.kill('SIGKILL'))
  }
  const mounted = await mount(trial, onSpawn).catch(() => undefined)
  await killed
  await mounted?.kill()
}

function sound(trial: Trial, what: string, report: Report): void {
  if ((report.faults ?? []).length > 0) trial.t.fail(`${what} (seed ${SEED})`, { faults: report.faults })
}

/** Everything gets published, with the right CIDs, and the books are in order. */
async function settle(trial: Trial, mounted: Mount, kill: number): Promise<void> {
  const { t, workload } = trial
  await waitFor(mounted, [mounted.path('staging')])
  sound(trial, `kill ${kill}: CIDs`, await workload.ask('published'))
  clean(t, await fsck(mounted, []), `kill ${kill}: fsck is clean`)
}

function clean(t: Test, { damaged, bad, faults }: FsckReport, what: string): void {
  t.same({ damaged, bad, faults }, { damaged: false, bad: [], faults: [] }, what)
}

async function fsck(mounted: Mount, args: string[]): Promise<FsckReport> {
  const { stdout, stderr } = await mounted.cli(['fsck', '--json', ...args, mounted.dir])
  if (stdout === '') throw new Error(stderr)
  return JSON.parse(stdout) as FsckReport
}

/** Of a state directory that no daemon has open. */
async function fsckOffline({ stateDir }: Trial): Promise<FsckReport> {
  const { stdout, stderr } = await run(process.execPath, [mainFile, 'fsck', '--json', '--state', stateDir])
  if (stdout === '') throw new Error(stderr)
  return JSON.parse(stdout) as FsckReport
}

function checkOf(trial: Trial): string {
  const { collected } = trial
  trial.collected = false
  return collected ? 'check collected' : 'check'
}

/** One life: all that was acknowledged is there; more is done; it dies. */
async function live(trial: Trial, kill: number): Promise<void> {
  const { t, workload, chance } = trial
  const mounted = await mount(trial)
  sound(trial, `kill ${kill}: what was acknowledged is there`, await workload.ask(checkOf(trial)))
  if (kill % SETTLE_EVERY === SETTLE_EVERY - 1) await settle(trial, mounted, kill)
  await workload.ask(`start ${kill}`)
  if (kill % TEND_EVERY === 3)
    clean(t, await fsck(mounted, []), `kill ${kill}: fsck beside the work is clean`)
  if (kill % TEND_EVERY === 7) trial.collected = true
  const collecting = trial.collected ? mounted.cli(['gc', mounted.dir]) : undefined
  await sleep((trial.collected ? 2 : 1) * chance() * LIFE_MS)
  await mounted.kill()
  await collecting
  sound(trial, `kill ${kill}: while it ran`, await workload.ask('join'))
  if (kill % TEND_EVERY === 0) {
    clean(t, await fsckOffline(trial), `kill ${kill}: fsck without a daemon is clean`)
  }
}

/** Directories and files below `dir` for the stock importer. */
async function candidates(dir: string): Promise<ImportCandidate[]> {
  const found: ImportCandidate[] = []
  for (const name of (await readdir(dir, { recursive: true })).sort()) {
    const path = join(dir, name)
    const wrapped = join('top', relative(dir, path))
    if ((await stat(path)).isDirectory()) found.push({ path: wrapped })
    else found.push({ path: wrapped, content: await readFile(path) })
  }
  return found
}

async function checkTrees(trial: Trial, mounted: Mount, mirror: string): Promise<void> {
  const { t } = trial
  for (const name of (await readdir(mirror)).sort()) {
    const local = join(mirror, name)
    const isDirectory = (await stat(local)).isDirectory()
    const source = isDirectory ? await candidates(local) : [{ content: await readFile(local) }]
    if (isDirectory && source.length === 0) continue
    const { cid } = await mounted.json<PathCid>(['cid', mounted.path('staging', name)])
    t.equal(cid, `${(await imported(source, new MemoryBlocks())).cid}`, `${name}: the importer's CID`)
  }
}

t.test(`what was acknowledged survives ${KILLS} kills (seed ${SEED})`, async t => {
  const trial = await begin(t)
  const startMs = performance.now()
  for (let kill = 0; kill < KILLS; kill++) {
    if (trial.chance() < 0.2) await killEarly(trial)
    else await live(trial, kill)
  }
  const mounted = await mount(trial)
  sound(trial, 'at the end: what was acknowledged is there', await trial.workload.ask(checkOf(trial)))
  await settle(trial, mounted, KILLS)
  const mirror = await tempDir(t)
  const { done } = await trial.workload.ask(`mirror ${mirror}`)
  await checkTrees(trial, mounted, mirror)
  await mounted.stop()
  const last = await fsckOffline(trial)
  clean(t, last, 'without a daemon fsck is clean, too')
  t.equal(last.leftovers, 0, 'no object is left over')
  t.ok((done?.fsync ?? 0) > KILLS / 4 && (done?.pinned ?? 0) > 0, `done: ${JSON.stringify(done)}`)
  t.comment(`seed ${SEED}: ${KILLS} kills in ${((performance.now() - startMs) / 1000).toFixed(0)} s`)
})
