/**
 * Kernels before 6.9 cannot send requests again: what a dead daemon had read ends with ECONNABORTED, at once, and
 * nothing else does. Simulated by a setting that keeps the daemon from asking for it.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Dag, pattern } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { KeptMount } from '../support/kept-mount.js'
import { run } from '../support/run.js'
import { until } from '../support/until.js'

t.setTimeout(100_000)

const KILLS = 12
const OLD = { CIDFS_RESEND: 'off' }

/** Tries again what was cut off; what had happened by then it cannot know. Prints how often that was. */
const PROGRAM = `
import errno, os, sys, select
staging, cut, rounds = sys.argv[1], 0, 0
def call(what, *other):
    global cut
    while True:
        try: return what()
        except OSError as err:
            if err.errno == errno.ECONNABORTED: cut += 1
            elif cut > 0 and err.errno in other: return None
            else: raise
fd = call(lambda: os.open(staging + "/f", os.O_RDWR | os.O_CREAT))
print("begun", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    rounds += 1
    text = b"%08d" % rounds
    call(lambda: os.pwrite(fd, text, 0))
    assert call(lambda: os.pread(fd, 8, 0)) == text
    call(lambda: os.fsync(fd))
    call(lambda: os.mkdir(staging + "/d"), errno.EEXIST)
    assert "d" in call(lambda: os.listdir(staging))
    call(lambda: os.rmdir(staging + "/d"), errno.ENOENT)
print(rounds, cut)
`

t.test('programs that try again get through', async t => {
  const mount = await KeptMount.start(t, { env: OLD })
  const program = spawn('python3', ['-c', PROGRAM, mount.path('staging')])
  let [said, errors] = ['', '']
  program.stdout.on('data', chunk => (said += chunk))
  program.stderr.on('data', chunk => (errors += chunk))
  await until('the program has begun', () => said.includes('begun'))
  for (let i = 0; i < KILLS; i++) {
    await mount.served((await mount.kill()) ?? 0)
    await sleep(Math.random() * 100)
  }
  program.stdin.end('end\n')
  if (program.exitCode === null) await once(program, 'close')
  t.equal(program.exitCode, 0, errors)
  const [rounds = 0, cut = 0] = said.split('\n')[1]!.split(' ').map(Number)
  t.comment(`${rounds} rounds, ${cut} calls cut off by ${KILLS} deaths`)
  t.ok(rounds > 1)
  t.ok(cut <= 2 * KILLS)
})

t.test('a read that waits for the network ends when its daemon does', async t => {
  const gateway = await TestGateway.start(t)
  const cid = new Dag(gateway).raw(pattern(1000))
  gateway.fault = () => ({ hang: true })
  const mount = await KeptMount.start(t, { env: OLD, gateways: [gateway.url] })
  const reading = run('cat', [mount.path('ipfs', `${cid}`)])
  await until('the block was asked for', () => gateway.count(cid) > 0)
  gateway.fault = () => undefined
  const before = await mount.kill()
  t.match(await reading, { status: 1, stderr: /Software caused connection abort/ })
  await mount.served(before ?? 0)
  t.equal((await run('cat', [mount.path('ipfs', `${cid}`)])).bytes.length, 1000, 'and the next one does not')
})
