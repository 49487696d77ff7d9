/** The protocol of systemd, spoken to a socket of the test's own: what is said, and what is inherited. */
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { Supervisor } from '../../src/daemon/sd-notify.js'
import { isMounted } from '../support/mount.js'
import { mainFile } from '../support/root.js'
import { run } from '../support/run.js'
import { tempDir } from '../support/temp.js'

t.setTimeout(60_000)

/**
 * A supervisor as sd_notify(3) and sd_listen_fds(3) describe one: starts the daemon, stores the descriptor it is sent,
 * kills the daemon and starts another with that descriptor, then stops it.
 */
const SUPERVISOR = `
import array, fcntl, os, signal, socket, subprocess, sys
address, staging, *command = sys.argv[1:]
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(address); notify.settimeout(20)
stored, said = {}, []
def moved(fd):
    to = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 50); os.close(fd); return to
def start():
    def prepare():
        if not stored: return
        for fd, name in enumerate(sorted(stored), 3): os.dup2(stored[name], fd)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES=":".join(sorted(stored)))
        os.execv(command[0], command)
    env = dict(os.environ, NOTIFY_SOCKET=address, WATCHDOG_USEC="2000000")
    os.environ.update(env)
    return subprocess.Popen(command, env=env, preexec_fn=prepare, close_fds=False)
def until(wanted):
    while True:
        data, control, _, _ = notify.recvmsg(4096, 1024)
        fields = dict(line.split("=", 1) for line in data.decode().split("\\n"))
        said.append(data.decode().replace("\\n", " "))
        for _, kind, fds in control:
            if kind == socket.SCM_RIGHTS: stored[fields["FDNAME"]] = moved(array.array("i", fds)[0])
        if "FDSTOREREMOVE" in fields: os.close(stored.pop(fields["FDNAME"]))
        if wanted in said[-1].split(" "): return
first = start(); until("READY=1")
assert sorted(stored) == ["fuse", "handles"], stored
f = os.open(staging + "/f", os.O_RDWR | os.O_CREAT); os.write(f, b"one ")
os.set_inheritable(f, False)
first.kill(); first.wait()
second = start()
os.write(f, b"two")
assert os.pread(f, 100, 0) == b"one two"
until("READY=1"); until("WATCHDOG=1")
os.close(f)
second.send_signal(signal.SIGTERM); until("STOPPING=1"); until("FDNAME=handles")
assert second.wait(30) == 0 and not stored
print("\\n".join(said))
`

t.test('a supervisor that stores the descriptor gives the mount to the next daemon', async t => {
  const dir = await tempDir(t)
  const mount = join(dir, 'mnt')
  for (const path of [mount, join(dir, 'run')]) await mkdir(path, { mode: 0o700 })
  const daemon = [
    process.execPath,
    mainFile,
    'mount',
    '--foreground',
    '--isolated',
    '--state',
    join(dir, 'state'),
    mount,
  ]
  const args = ['-c', SUPERVISOR, join(dir, 'notify'), join(mount, 'staging'), ...daemon]
  const env = { ...process.env, XDG_RUNTIME_DIR: join(dir, 'run') }
  const { status, stdout, stderr } = await run('python3', args, { env, cwd: '/', timeoutMs: 50_000 })
  t.equal(status, 0, stderr)
  t.match(
    stdout,
    /^FDSTORE=1 FDNAME=handles\nFDSTORE=1 FDNAME=fuse\nREADY=1\n/m,
    'the descriptors are stored before the daemon says that it is ready',
  )
  t.notOk(await isMounted(mount))
  await t.rejects(
    readFile(join(dir, 'state', 'takeover.json')),
    { code: 'ENOENT' },
    'nothing is left to go on with',
  )
})

t.test('what is said to the daemon is not said to the programs that it starts', async t => {
  const env = {
    NOTIFY_SOCKET: '/nobody/listens',
    WATCHDOG_USEC: '3000000',
    WATCHDOG_PID: String(process.pid),
    OTHER: 'x',
  }
  const supervisor = Supervisor.find(env)
  t.same(env, { OTHER: 'x' })
  t.match(supervisor, { watchdogMs: 3000, keeper: undefined })
  t.doesNotThrow(() => supervisor!.ready(['node']), 'one that does not listen stops nothing')
})

t.test('a watchdog of another process is not ours', async t => {
  const env = { NOTIFY_SOCKET: '@x', WATCHDOG_USEC: '3000000', WATCHDOG_PID: '1' }
  t.equal(Supervisor.find(env)!.watchdogMs, undefined)
})

t.test('without a socket there is no supervisor', async t => {
  for (const address of [undefined, '', 'relative'])
    t.equal(Supervisor.find({ NOTIFY_SOCKET: address }), undefined)
})
