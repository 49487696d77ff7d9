/** Real programs at work while the daemon is killed: each of them ends well, with the right bytes. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { CID } from '../../src/core/cid.js'
import { Dag, link, pattern } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { KeptMount } from '../support/kept-mount.js'
import { runOk } from '../support/run.js'
import { tempDir } from '../support/temp.js'

t.setTimeout(200_000)

const KILLS = 20
/** From the moment a daemon serves to its death, at most. */
const LIFE_MS = 700
const PROGRAM_TIMEOUT_MS = 150_000

const MIB = 1024 * 1024
/** Read twice over, the file is 256 MiB: half of them is all that this process keeps. */
const LEAVES = 128

interface World {
  mount: KeptMount
  /** `tree/` is what `ipfs/$TREE` holds; `stop` appears when the programs may end. */
  temp: string
  env: NodeJS.ProcessEnv
}

async function bigFile(dag: Dag, temp: string): Promise<CID> {
  const parts = Array.from({ length: LEAVES }, (_, i) => ({ cid: dag.raw(pattern(MIB, i)), sizeBytes: MIB }))
  await writeFile(join(temp, 'half'), '')
  for (let i = 0; i < LEAVES; i++) await writeFile(join(temp, 'half'), pattern(MIB, i), { flag: 'a' })
  return dag.file([...parts, ...parts]).cid
}

/** The same in `temp/tree` and as a DAG. */
async function tree(dag: Dag, temp: string): Promise<CID> {
  const folders = []
  for (let i = 0; i < 6; i++) {
    const files = Array.from({ length: 40 }, (_, j) => ({
      name: `file-${j}`,
      bytes: pattern(1000 + 997 * j, i * 40 + j),
    }))
    await mkdir(join(temp, 'tree', `folder-${i}`), { recursive: true })
    for (const { name, bytes } of files) await writeFile(join(temp, 'tree', `folder-${i}`, name), bytes)
    const links = files.map(({ name, bytes }) => link(dag.raw(bytes), name, bytes.length))
    folders.push(link(dag.directory(links.sort((a, b) => Buffer.compare(a.name, b.name))), `folder-${i}`, 1))
  }
  return dag.directory(folders)
}

async function setup(t: Test): Promise<World> {
  const temp = await tempDir(t)
  const gateway = await TestGateway.start(t)
  gateway.fault = () => ({ delayMs: 15 })
  const dag = new Dag(gateway)
  const [file, root] = [await bigFile(dag, temp), await tree(dag, temp)]
  const { stdout } = await runOk('sh', ['-c', `cat half half | sha256sum`], { cwd: temp })
  const mount = await KeptMount.start(t, { gateways: [gateway.url] })
  const env = { ...process.env, M: mount.dir, T: temp, FILE: `${file}`, TREE: `${root}`, SUM: stdout.trim() }
  return { mount, temp, env }
}

/** Shell, with `set -e`; `again` is true until the programs may end. */
const PROGRAMS: Record<string, string> = {
  'cat of 256 MiB, cold and then warm': `
    while again; do test "$(cat $M/ipfs/$FILE | sha256sum)" = "$SUM"; done`,
  'tar c of a tree': `
    while again; do
      tar c -C $M/ipfs/$TREE . | (rm -rf $T/untarred; mkdir $T/untarred; tar x -C $T/untarred)
      diff -r $T/tree $T/untarred
    done`,
  'rsync into staging': `
    n=0
    while again; do
      rsync -a $T/tree/ $M/staging/rsync-$n/
      diff -r $T/tree $M/staging/rsync-$n
      rsync -a --delete $T/tree/folder-1/ $M/staging/rsync-$n/
      diff -r $T/tree/folder-1 $M/staging/rsync-$n
      n=$((n + 1))
    done`,
  find: `
    (cd $T/tree; find . | sort) > $T/expected
    while again; do
      (cd $M/ipfs/$TREE; find . | sort) > $T/found
      cmp $T/expected $T/found
    done`,
  sqlite3: `
    db=$M/staging/rows.sqlite
    sqlite3 $db 'create table rows (n integer primary key, text text)'
    n=0
    while again; do
      n=$((n + 1))
      sqlite3 $db "pragma synchronous = full; insert into rows values ($n, hex(randomblob(500))); update rows set text = text || $n where n % 7 = 0"
    done
    test "$(sqlite3 $db 'pragma integrity_check; select count(*), max(n) from rows')" = "ok
$n|$n"`,
  'a Python program that holds files open and appends': `exec python3 -c '
import fcntl, os, time
stop, staging = os.environ["T"] + "/stop", os.environ["M"] + "/staging"
files = [open(f"{staging}/held-{i}", "ab", buffering=0) for i in range(5)]
unnamed = open(f"{staging}/unnamed", "w+b", buffering=0)
os.unlink(f"{staging}/unnamed")
fcntl.flock(files[0], fcntl.LOCK_EX)
written = b""
while not os.path.exists(stop):
    line = b"%08d %s\\n" % (len(written), os.urandom(20).hex().encode())
    written += line
    for file in [*files, unnamed]: assert file.write(line) == len(line)
    if len(written) % 3 == 0: os.fsync(files[1].fileno())
    time.sleep(0.002)
for i in range(5): assert open(f"{staging}/held-{i}", "rb").read() == written, i
unnamed.seek(0)
assert unnamed.read() == written
other = os.open(f"{staging}/held-0", os.O_RDWR)
try: fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB); raise SystemExit("the lock is gone")
except BlockingIOError: pass
'`,
}

/** Why a program did not end well; undefined when it did. */
async function outcome(script: string, env: NodeJS.ProcessEnv): Promise<string | undefined> {
  const shell = `set -e\nagain() { ! test -e $T/stop; }\n${script}`
  const child = spawn('bash', ['-o', 'pipefail', '-c', shell], {
    env,
    cwd: '/',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (said += chunk))
  const timer = setTimeout(() => child.kill('SIGKILL'), PROGRAM_TIMEOUT_MS)
  await once(child, 'close')
  clearTimeout(timer)
  return child.exitCode === 0 ? undefined : `ended with ${child.signalCode ?? child.exitCode}: ${said}`
}

async function killOften(mount: KeptMount, kills: number): Promise<void> {
  for (let i = 0; i < kills; i++) {
    await sleep(Math.random() * LIFE_MS)
    await mount.served((await mount.kill()) ?? 0)
  }
}

t.test(`programs go on while the daemon is killed ${KILLS} times`, async t => {
  const { mount, temp, env } = await setup(t)
  const running = Object.entries(PROGRAMS).map(([name, script]) =>
    outcome(script, env).then(fault => [name, fault] as const),
  )
  await killOften(mount, KILLS)
  await writeFile(join(temp, 'stop'), '')
  for (const [name, fault] of await Promise.all(running)) t.equal(fault, undefined, name)
  t.match(await mount.cli(['fsck', '--state', mount.stateDir]), { status: 0 }, 'the store is sound')
})
