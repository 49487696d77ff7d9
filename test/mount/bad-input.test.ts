/**
 * Bad input, each through the command line: one clear line, the documented exit code, and nothing lost: a mount that
 * runs meanwhile goes on, and what it holds is untouched.
 */
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { EXIT, type ExitCode } from '../../src/cli/exit-codes.js'
import type { StatusReport } from '../../src/daemon/control-protocol.js'
import { sampleCar, wrapCarV2 } from '../support/car-files.js'
import { Dag, pattern } from '../support/dag.js'
import { isMounted, Mount } from '../support/mount.js'
import type { RunResult } from '../support/run.js'
import { tempDir } from '../support/temp.js'
import { askOne } from './ask.js'

t.setTimeout(110_000)

const witness = await Mount.start(t)
const temp = await tempDir(t)
const good = await sampleCar(temp)
const empty = join(temp, 'empty')
await mkdir(empty)
await writeFile(witness.path('staging', 'kept'), 'kept')
await witness.cli(['wait', witness.path('staging')])
const before = await witness.json<StatusReport>(['status', witness.dir])

/** A test after which nothing may be lost. */
function refusal(name: string, body: (t: Test) => Promise<void>): void {
  t.test(name, async t => {
    await body(t)
    t.equal((await witness.run('cat', ['staging/kept'])).stdout, 'kept')
    const { store } = await witness.json<StatusReport>(['status', witness.dir])
    t.equal(store.pins, before.store.pins, 'nothing was pinned, nothing unpinned')
    t.same(await readdir(empty), [])
    t.notOk(await isMounted(empty))
  })
}

/** Asserts one line on standard error, nothing on standard output, and the exit code. */
function refused(t: Test, result: RunResult, exitCode: ExitCode, line: RegExp): void {
  const { status, stdout, stderr } = result
  t.equal(status, exitCode, stderr)
  t.match(stderr, /^cidfs: [^\n]+\n$/, 'one line')
  t.match(stderr, line)
  t.equal(stdout, '')
}

/** A mount command, in the foreground and in the background. */
async function mountRefused(t: Test, args: string[], exitCode: ExitCode, line: RegExp): Promise<void> {
  for (const where of [[], ['--foreground']]) {
    refused(t, await witness.cli(['mount', '--isolated', ...where, ...args]), exitCode, line)
  }
}

refusal('a malformed CID', async t => {
  for (const text of ['nonsense', 'Qm', '', 'bafkreiabc', '../etc']) {
    refused(
      t,
      await witness.cli(['export', '--state', witness.stateDir, '--', text]),
      EXIT.USAGE,
      /not a CID/,
    )
  }
  const path = witness.path('ipfs', 'nonsense')
  t.equal((await askOne({ op: 'stat', path })).errno, 'ENOENT')
})

/** What can be wrong with a CAR, made from a good one. */
async function badCars(): Promise<Record<string, Uint8Array>> {
  const one = await readFile(good.path)
  const second = join(temp, 'second.car')
  await wrapCarV2(second, one)
  const two = await readFile(second)
  const flipped = Uint8Array.from(one)
  flipped[flipped.length - 1]! ^= 1
  return {
    'an empty file': new Uint8Array(0),
    garbage: pattern(5000),
    text: Buffer.from('this is no CAR file\n'.repeat(10)),
    'a header that ends early': one.subarray(0, 20),
    'a block that ends early': one.subarray(0, -1),
    'a block that does not match its hash': flipped,
    'a CARv2 that ends early': two.subarray(0, 300),
    'a CARv2 that ends in its header': two.subarray(0, 30),
    'a section of an impossible length': Buffer.concat([one, Buffer.from([0xff, 0xff, 0xff, 0xff, 0x7f])]),
  }
}

for (const [what, bytes] of Object.entries(await badCars())) {
  refusal(`a bad CAR: ${what}`, async t => {
    const car = join(temp, 'bad.car')
    await writeFile(car, bytes)
    const alone = join(await tempDir(t), 'state')
    for (const state of [witness.stateDir, alone]) {
      refused(t, await witness.cli(['import', car, '--state', state]), EXIT.BAD_DATA, /CAR/)
    }
  })
}

refusal('a bad CAR on standard input, or where JSON is wanted', async t => {
  const state = ['--state', join(await tempDir(t), 'state')]
  const input = pattern(5000)
  refused(t, await witness.cli(['import', '-', ...state], { input }), EXIT.BAD_DATA, /CAR/)
  refused(t, await witness.cli(['import', '-', '--json', ...state], { input }), EXIT.BAD_DATA, /CAR/)
})

refusal('a CAR that is not there or is a directory', async t => {
  const state = ['--state', witness.stateDir]
  refused(t, await witness.cli(['import', join(temp, 'absent.car'), ...state]), EXIT.FAILED, /absent\.car/)
  refused(t, await witness.cli(['import', temp, ...state]), EXIT.FAILED, /director/)
})

refusal('a bad configuration file', async t => {
  const config = join(temp, 'config.toml')
  const cases: [string, RegExp][] = [
    ['gatway = "http://127.0.0.1"', /gatway.*gateway/],
    ['nonsense = 1', /nonsense/],
    ['gateway = "ftp://example"', /gateway/],
    ['read-deadline = 5', /read-deadline/],
    ['offline = "yes"', /offline/],
    ['state = [', /line 1/],
  ]
  for (const [text, line] of cases) {
    await writeFile(config, text)
    await mountRefused(t, ['--config', config, '--state', join(temp, 'unused'), empty], EXIT.USAGE, line)
  }
  await mountRefused(t, ['--config', join(temp, 'absent.toml'), empty], EXIT.USAGE, /absent\.toml/)
  await mountRefused(t, ['--gatewy', 'http://127.0.0.1', empty], EXIT.USAGE, /--gatew/)
})

refusal('a gateway and a Kubo that cannot be reached: it mounts, and says so', async t => {
  const nowhere = 'http://127.0.0.1:9'
  const mount = await Mount.start(t, { gateways: [nowhere], kubo: 'http://127.0.0.1:10' })
  const cid = new Dag({ add: () => {} }).raw(pattern(100, 77))
  const found = await askOne({ op: 'read', path: mount.path('ipfs', `${cid}`) })
  t.equal(found.errno, 'EIO')
  t.ok(found.ms < 3000, `after ${Math.round(found.ms)} ms`)
  await mount.run('sh', ['-c', 'echo staged > staging/file && cat staging/file'])
  const { sources } = await mount.json<StatusReport>(['status', mount.dir])
  t.same(
    sources.map(source => source.state),
    ['failed', 'failed'],
  )
  for (const source of sources) t.match(source.lastError, /ECONNREFUSED|refused|connect/)
  const { stdout } = await mount.cli(['status', mount.dir])
  t.match(stdout, new RegExp(`${nowhere}: failed`))
})

refusal('a state directory that is in use', async t => {
  await mountRefused(
    t,
    ['--state', witness.stateDir, empty],
    EXIT.STATE,
    new RegExp(`in use.*${witness.pid}`),
  )
})

refusal('a state directory of a newer version, or damaged', async t => {
  const state = join(temp, 'newer')
  await mkdir(state)
  const version = join(state, 'version')
  await writeFile(version, '{"version":999}\n')
  await mountRefused(t, ['--state', state, empty], EXIT.STATE, /version 999/)
  refused(t, await witness.cli(['import', good.path, '--state', state]), EXIT.STATE, /version 999/)
  t.equal(await readFile(version, 'utf8'), '{"version":999}\n', 'it is left alone')
  await writeFile(version, 'scribble')
  await mountRefused(t, ['--state', state, empty], EXIT.BAD_DATA, /version/)
  t.same(
    (await readdir(state)).filter(name => !['version', 'daemon.log'].includes(name)),
    [],
  )
})

refusal('a state directory that is a file', async t => {
  const file = join(temp, 'a file')
  await writeFile(file, 'precious')
  await mountRefused(t, ['--state', file, empty], EXIT.FAILED, /a file/)
  t.equal(await readFile(file, 'utf8'), 'precious')
})

refusal('a mountpoint that is missing, a file, not empty, or mounted already', async t => {
  const state = ['--state', join(temp, 'state')]
  const full = join(temp, 'full')
  await mkdir(full)
  await writeFile(join(full, 'precious'), 'precious')
  await mountRefused(t, [...state, join(temp, 'absent')], EXIT.USAGE, /does not exist.*mkdir/)
  await mountRefused(t, [...state, join(full, 'precious')], EXIT.USAGE, /not a directory/)
  await mountRefused(t, [...state, full], EXIT.USAGE, /not empty/)
  await mountRefused(t, [...state, witness.dir], EXIT.USAGE, /already mounted/)
  t.equal(await readFile(join(full, 'precious'), 'utf8'), 'precious')
  await rm(full, { recursive: true })
})

refusal('commands about what is not mounted', async t => {
  refused(t, await witness.cli(['unmount', empty]), EXIT.NOT_RUNNING, /nothing of cidfs/)
  refused(t, await witness.cli(['status', empty]), EXIT.NOT_RUNNING, /no cidfs daemon/)
  refused(t, await witness.cli(['wait', empty]), EXIT.NOT_RUNNING, /not in the mount/)
  refused(t, await witness.cli(['cid', witness.path('staging', 'absent')]), EXIT.FAILED, /no such file/)
})
