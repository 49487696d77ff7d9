/** The daemon as a unit of systemd, whose descriptor store keeps the mount. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { isMounted } from '../support/mount.js'
import { mainFile } from '../support/root.js'
import { until } from '../support/until.js'
import { systemdDirectory, TestSystemd, whyNoSystemd } from './test-systemd.js'

t.setTimeout(100_000)

const WATCHDOG_S = 8

function unit(dir: string): string {
  const cidfs = `${process.execPath} ${mainFile}`
  return `[Unit]
DefaultDependencies=no
[Service]
Type=notify
NotifyAccess=all
ExecStart=${cidfs} mount --foreground --isolated --state ${dir}/state ${dir}/mnt
ExecReload=${cidfs} upgrade ${dir}/mnt
Environment=XDG_RUNTIME_DIR=${dir}/run
FileDescriptorStoreMax=4
Restart=on-failure
RestartSec=0
StartLimitIntervalSec=0
WatchdogSec=${WATCHDOG_S}
StandardOutput=append:${dir}/log
StandardError=append:${dir}/log
`
}

/** Appends a line, reads all of them, while it keeps the file open; ends when the line is \`end\`. */
const HOLDER = `
import os, sys, time
staging, asked, answers = sys.argv[1], sys.argv[2], sys.argv[3]
f = os.open(staging + "/held", os.O_RDWR | os.O_CREAT | os.O_APPEND)
gone = os.open(staging + "/gone", os.O_RDWR | os.O_CREAT)
os.unlink(staging + "/gone")
seen = ""
for i in range(100000):
    text = "%d " % i
    os.write(f, text.encode()); os.fsync(f)
    os.pwrite(gone, text.encode(), 0)
    assert os.pread(gone, len(text), 0) == text.encode()
    seen += text
    assert os.pread(f, len(seen), 0).decode() == seen
    if os.path.exists(asked): break
    time.sleep(0.01)
open(answers, "w").write("fine")
`

async function setup(t: Test) {
  const dir = await systemdDirectory(t)
  const systemd = await TestSystemd.start(t, dir, {
    'cidfs.service': unit(dir),
    'default.target': '[Unit]\nWants=cidfs.service\n',
  })
  const show = (property: string) => systemd.show('cidfs', property)
  await until('the unit is active', async () => (await show('ActiveState')) === 'active', 30_000)
  const log = () => readFile(join(dir, 'log'), 'utf8').catch(() => '')
  return { dir, systemd, show, log }
}

t.test('a unit of systemd keeps its mount', { skip: whyNoSystemd() }, async t => {
  const { dir, systemd, show, log } = await setup(t)
  const [asked, answers] = [join(dir, 'asked'), join(dir, 'answers')]
  t.notOk(await isMounted(join(dir, 'mnt')), 'all of it is in the namespaces of the test')
  const program = systemd.run('python3', ['-c', HOLDER, join(dir, 'mnt', 'staging'), asked, answers])
  const replaced = async (how: (pid: string) => Promise<unknown>) => {
    const before = await show('MainPID')
    await how(before)
    const next = async () =>
      (await show('ActiveState')) === 'active' && !['0', before].includes(await show('MainPID'))
    await until('another daemon', next, 30_000)
  }
  t.equal(await show('NFileDescriptorStore'), '2')
  await replaced(pid => systemd.run('kill', ['-9', pid]))
  t.equal(await show('NRestarts'), '1', 'after a crash systemd starts another daemon')
  await replaced(() => systemd.control('reload', 'cidfs'))
  t.equal(await show('NRestarts'), '1', 'a reload is an upgrade, not a restart')
  await replaced(pid => systemd.run('kill', ['-STOP', pid]))
  t.equal(await show('NRestarts'), '2', 'one that hangs is killed for not saying WATCHDOG=1')
  t.equal(await show('NFileDescriptorStore'), '2')
  await systemd.run('touch', [asked])
  const { status, stderr } = await program
  t.equal(status, 0, stderr)
  t.equal(await readFile(answers, 'utf8'), 'fine', 'a program did not notice')
  await systemd.control('stop', 'cidfs')
  t.equal(await show('Result'), 'success', await log())
  t.equal(await show('NFileDescriptorStore'), '0')
  const { stdout } = await systemd.run('cat', ['/proc/self/mountinfo'])
  t.notMatch(stdout, join(dir, 'mnt'), 'and is unmounted when the unit is stopped')
})
