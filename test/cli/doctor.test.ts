/** `cidfs doctor`: what it finds on a machine that has everything, and on ones that lack something. */
import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { EXIT } from '../../src/cli/exit-codes.js'
import type { DoctorCheck, DoctorReport } from '../../src/daemon/doctor-check.js'
import { openDeviceToAll, withShutDevice } from '../support/device.js'
import { TestGateway } from '../support/gateway.js'
import { mainFile } from '../support/root.js'
import { type RunOptions, type RunResult, run } from '../support/run.js'
import { tempDir } from '../support/temp.js'

t.setTimeout(60_000)

const NOBODY = { uid: 65534, gid: 65534 }
/** Nobody listens there. */
const CLOSED = 'http://127.0.0.1:1'

function doctor(args: string[], options: RunOptions = {}): Promise<RunResult> {
  return run(process.execPath, [mainFile, 'doctor', '--isolated', ...args], options)
}

/** As a user who has a directory for temporary files. */
async function asNobody(t: Test): Promise<RunOptions> {
  const temp = await tempDir(t)
  await chmod(temp, 0o777)
  return { ...NOBODY, cwd: '/', env: { ...process.env, TMPDIR: temp } }
}

async function report(args: string[], options: RunOptions = {}) {
  const result = await doctor(['--json', ...args], options)
  const { state, checks } = JSON.parse(result.stdout) as DoctorReport
  const find = (name: string): DoctorCheck => {
    const check = checks.find(candidate => candidate.name === name)
    if (check === undefined) throw new Error(`no check ${name}: ${result.stdout}`)
    return check
  }
  return { status: result.status, state, checks, find }
}

/** A state directory that does not exist yet. */
async function state(t: Test): Promise<string> {
  const dir = await tempDir(t)
  await chmod(dir, 0o777)
  return join(dir, 'state')
}

t.test('on a machine that has everything both transports mount, and nothing is left of it', async t => {
  const stateDir = await state(t)
  const before = await readFile('/proc/self/mountinfo', 'utf8')
  const found = await report(['--state', stateDir])
  t.equal(found.status, 0)
  for (const name of [
    'node',
    'addon',
    '/dev/fuse',
    'transport native',
    'transport fuse-native',
    'fusermount3',
  ])
    t.match(found.find(name), { state: 'ok', advice: null }, name)
  t.match(found.find('kernel').found, / DO_READDIRPLUS /)
  t.match(found.find('kernel').found, /^Linux \d+\.\d+.*FUSE 7\.\d+: /)
  t.match(found.find('privileges').found, /^root, with CAP_SYS_ADMIN; passthrough: /)
  t.match(found.find('disk').details, { freeBytes: Number, fileSystem: String })
  t.match(found.find('reflink').details, { reflink: Boolean })
  t.match(found.find('state directory'), { state: 'ok', found: /does not exist yet/ })
  t.match(found.find('sources'), { state: 'warn', advice: /--gateway/ })
  t.same(await readdir(join(stateDir, '..')), [], 'not even the state directory')
  t.same(
    (await readdir(tmpdir())).filter(name => name.startsWith('cidfs-doctor-')),
    [],
  )
  const mounts = (text: string) => text.split('\n').filter(line => line.includes('cidfs-doctor-'))
  t.same(mounts(await readFile('/proc/self/mountinfo', 'utf8')), mounts(before))
})

t.test('for people it is a line for each, and a line of what to do', async t => {
  const { status, stdout, stderr } = await doctor(['--state', await state(t)])
  t.equal(status, 0)
  t.equal(stderr, '')
  const lines = stdout.trimEnd().split('\n')
  t.ok(
    lines.every(line => /^(ok {4}|warn {2}|FAIL {2}|\s+to do: )\S/.test(line)),
    stdout,
  )
  t.match(lines.at(-1), /to do: name some with --gateway/)
})

t.test('the sources that are named are asked, and no others', async t => {
  const gateway = await TestGateway.start(t)
  const peer = '/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5'
  const named = ['--gateway', gateway.url, '--gateway', CLOSED, '--kubo', CLOSED, '--peer', peer]
  const found = await report(['--state', await state(t), ...named])
  t.equal(found.status, 0, 'others may answer')
  t.equal(found.state, 'warn')
  t.match(found.find(`gateway ${gateway.url}`), { state: 'ok' })
  t.match(found.find(`gateway ${CLOSED}`), { state: 'warn', advice: String })
  t.match(found.find(`kubo ${CLOSED}`), { state: 'warn', advice: /ipfs daemon/ })
  t.match(found.find(`peer ${peer}`), { state: 'warn', found: /ECONNREFUSED/ })
  const offline = await report(['--state', await state(t), '--offline', ...named.slice(0, 6)])
  t.match(offline.find('sources'), { state: 'ok', found: /offline/ })
  t.equal(offline.checks.filter(({ name }) => name.startsWith('gateway')).length, 0)
})

t.test('an ordinary user is told what is not for everybody', async t => {
  await openDeviceToAll()
  const found = await report(['--state', await state(t)], await asNobody(t))
  t.equal(found.status, 0)
  t.match(found.find('transport native'), { state: 'ok' })
  t.match(found.find('transport fuse-native'), { state: 'ok' })
  t.match(found.find('fusermount3'), { state: 'ok', found: /set-user-ID root/ })
  t.match(found.find('privileges'), { state: 'ok', found: /^user 65534, without CAP_SYS_ADMIN/ })
  t.not(found.find('privileges').details?.passthrough, 'on')
})

t.test('without a device nothing mounts, and what to do is said', async t => {
  const command = [process.execPath, mainFile, 'doctor', '--json', '--isolated', '--state', await state(t)]
  const ids = ['--reuid=65534', '--regid=65534', '--clear-groups']
  const { env } = await asNobody(t)
  const shut = withShutDevice(await tempDir(t), ['setpriv', ...ids, ...command])
  const { status, stdout } = await run('unshare', shut, { env })
  t.equal(status, EXIT.ENVIRONMENT)
  const { state: worst, checks } = JSON.parse(stdout) as DoctorReport
  t.equal(worst, 'fail')
  const find = (name: string) => checks.find(check => check.name === name)
  t.match(find('/dev/fuse'), { state: 'fail', advice: /^chmod 666 \/dev\/fuse as root/ })
  t.match(find('transport native'), { state: 'fail', advice: /chmod 666/ })
  t.match(find('transport fuse-native'), { state: 'warn' })
  t.match(find('kernel'), { state: 'warn' })
})

t.test('without fusermount3 an ordinary user is told to install it', async t => {
  const user = await asNobody(t)
  const found = await report(['--state', await state(t)], { ...user, env: { ...user.env, PATH: '/nowhere' } })
  t.equal(found.status, EXIT.ENVIRONMENT)
  t.match(found.find('fusermount3'), { state: 'fail', advice: 'apt-get install fuse3' })
})

t.test('without a directory for temporary files nothing is tried, and that is said', async t => {
  const user = await asNobody(t)
  const found = await report(['--state', await state(t)], { ...user, env: { ...user.env, TMPDIR: '/' } })
  t.equal(found.status, EXIT.ENVIRONMENT)
  t.match(found.find('transport native'), { state: 'fail', advice: /set TMPDIR/ })
})

t.test('a state directory that cannot be used is a failure', async t => {
  const dir = await tempDir(t)
  await mkdir(join(dir, 'shut'), { mode: 0o755 })
  const shut = await report(['--state', join(dir, 'shut', 'state')], await asNobody(t))
  t.equal(shut.status, EXIT.ENVIRONMENT)
  t.match(shut.find('state directory'), { state: 'fail', advice: /--state/ })
  await writeFile(join(dir, 'file'), '')
  const file = await report(['--state', join(dir, 'file', 'state')])
  t.equal(file.status, EXIT.ENVIRONMENT)
  t.match(file.find('state directory'), { state: 'fail' })
})

t.test('what is no configuration is refused as by mount', async t => {
  const { status, stderr } = await doctor(['--transport', 'fuse'])
  t.equal(status, EXIT.USAGE)
  t.match(stderr, /^cidfs: [^\n]*"native" or "fuse-native"[^\n]*\n$/)
})
