/** `cidfs upgrade`: another version takes over, or does not, and no program notices either. */
import { cp, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { EXIT } from '../../src/cli/exit-codes.js'
import type { StatusReport } from '../../src/daemon/control-protocol.js'
import { describePauses, SteadyProgram } from '../mount/steady-program.js'
import { Dag, pattern, sha256 } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { KeptMount } from '../support/kept-mount.js'
import { Mount } from '../support/mount.js'
import { distRoot, mainFile, packageRoot } from '../support/root.js'
import { runOk } from '../support/run.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'

t.setTimeout(150_000)

/** An installation of its own, of another version; `change` edits one of its files. Returns its main file. */
async function install(
  t: Test,
  version: string,
  change?: { file: string; edit(text: string): string },
): Promise<string> {
  const root = await tempDir(t, 'cidfs-version-')
  const description = JSON.parse(await readFile(join(packageRoot, 'package.json'), 'utf8')) as object
  await writeFile(join(root, 'package.json'), JSON.stringify({ ...description, version }))
  for (const name of ['node_modules', 'build']) await symlink(join(packageRoot, name), join(root, name))
  await mkdir(join(root, 'dist'))
  await cp(join(distRoot, 'src'), join(root, 'dist', 'src'), { recursive: true })
  if (change !== undefined) {
    const file = join(root, 'dist', 'src', change.file)
    const before = await readFile(file, 'utf8')
    const after = change.edit(before)
    if (before === after) throw new Error(`nothing changed in ${file}`)
    await writeFile(file, after)
  }
  return join(root, 'dist', 'src', 'cli', 'main.js')
}

/** What a version of the program says when it is to take over. */
function upgrade(mount: KeptMount, main: string) {
  return mount.cli(['upgrade', mount.dir, '--json'], main)
}

async function status(mount: KeptMount): Promise<StatusReport> {
  const { stdout, stderr } = await mount.cli(['status', mount.dir, '--json'])
  if (stderr !== '') throw new Error(stderr)
  return JSON.parse(stdout) as StatusReport
}

t.test('versions take turns under a program that never pauses', async t => {
  const mount = await KeptMount.start(t)
  const other = await install(t, '99.0.0')
  const program = await SteadyProgram.start(t, mount)
  const { version } = await status(mount)
  for (const [main, expected] of [
    [other, '99.0.0'],
    [mainFile, version],
    [other, '99.0.0'],
  ] as const) {
    const before = await mount.pid()
    const { status: code, stdout, stderr } = await upgrade(mount, main)
    t.equal(code, 0, stderr)
    const report = JSON.parse(stdout) as { pid: number; previous: { pid: number } }
    t.equal(report.previous.pid, before)
    t.match(await status(mount), { version: expected, pid: report.pid })
    await until('it is the keeper’s', async () => String(await mount.processes()) === `${report.pid}`)
  }
  await mount.served((await mount.kill()) ?? 0)
  t.equal((await status(mount)).version, '99.0.0', 'after a crash the new version goes on')
  t.comment(describePauses(await program.end()))
})

t.test('a read that waits for the network is taken over with the mount', async t => {
  const gateway = await TestGateway.start(t)
  const bytes = pattern(100_000)
  const cid = new Dag(gateway).raw(bytes)
  gateway.fault = () => ({ hang: true })
  const mount = await KeptMount.start(t, { gateways: [gateway.url] })
  const reading = runOk('cat', [mount.path('ipfs', `${cid}`)], { timeoutMs: 60_000 })
  await until('the block was asked for', () => gateway.count(cid) > 0)
  t.match(await upgrade(mount, mainFile), { status: EXIT.OK })
  gateway.fault = () => undefined
  // the one that is asked now never gets an answer: nobody knows that the server has come to its senses
  await mount.served((await mount.kill()) ?? 0)
  t.equal(sha256((await reading).bytes), sha256(bytes))
})

t.test('a version that does not start leaves the old one running', async t => {
  const mount = await KeptMount.start(t)
  const program = await SteadyProgram.start(t, mount)
  const before = await mount.pid()
  const broken = [
    await install(t, '99.0.1', { file: 'daemon/daemon.js', edit: text => `syntax error\n${text}` }),
    await install(t, '99.0.2', {
      file: 'daemon/takeover.js',
      edit: text => text.replace('RECORD_VERSION = 1', 'RECORD_VERSION = 2'),
    }),
  ]
  for (const main of broken) {
    t.match(await upgrade(mount, main), {
      status: EXIT.FAILED,
      stderr: /^cidfs: the new version does not start: .*\n$/,
    })
    t.equal(await mount.pid(), before)
  }
  t.equal((await status(mount)).pid, before)
  await program.end()
})

t.test('one that fails when it is too late to go back is replaced by the old version', async t => {
  const mount = await KeptMount.start(t)
  const program = await SteadyProgram.start(t, mount)
  const { version, pid } = await status(mount)
  const fail = (text: string) =>
    text.replace('await waitForGo()', 'await waitForGo(), (() => { throw new Error("broken") })()')
  const main = await install(t, '99.0.3', { file: 'daemon/takeover.js', edit: fail })
  t.match(await upgrade(mount, main), {
    status: EXIT.FAILED,
    stderr: /^cidfs: the new version does not start: .*broken/,
  })
  t.not(await mount.served(pid), pid)
  t.equal((await status(mount)).version, version)
  await program.end()
})

t.test('a daemon that nobody would start again is not upgraded', async t => {
  const mount = await Mount.start(t)
  t.match(await mount.cli(['upgrade', mount.dir]), {
    status: EXIT.FAILED,
    stderr: /neither a keeper nor systemd/,
  })
  t.match(await mount.cli(['status', mount.dir]), { status: 0 })
})
