/** What the command line refuses, how it says so, and what it prints about itself. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { EXIT, EXIT_CODE_TABLE, exitCodeOf } from '../../src/cli/exit-codes.js'
import { CidfsError } from '../../src/core/errors.js'
import { mainFile, packageRoot } from '../support/root.js'
import { type RunOptions, run } from '../support/run.js'
import { tempDir } from '../support/temp.js'

function cidfs(args: string[], options: RunOptions = {}) {
  return run(process.execPath, [mainFile, ...args], options)
}

/** Exactly one line on standard error, nothing on standard output, this exit code. */
async function refused(t: Test, args: string[], exitCode: number, ...parts: (string | RegExp)[]) {
  const { status, stdout, stderr } = await cidfs(args)
  t.equal(status, exitCode, `exit code of ${args.join(' ')}`)
  t.equal(stdout, '')
  t.match(stderr, /^cidfs: .+\n$/, 'one line')
  for (const part of parts) t.match(stderr, part)
}

t.test('--version is that of the package', async t => {
  const { default: manifest } = await import(join(packageRoot, 'package.json'), { with: { type: 'json' } })
  const { status, stdout } = await cidfs(['--version'])
  t.equal(status, 0)
  t.equal(stdout, `${manifest.version}\n`)
})

t.test('--help names every command and every exit code', async t => {
  const { status, stdout } = await cidfs(['--help'])
  t.equal(status, 0)
  for (const command of ['mount', 'unmount', 'status', 'cid', 'wait', 'import', 'export', 'doctor'])
    t.match(stdout, `  ${command} `)
  for (const [code, meaning] of EXIT_CODE_TABLE)
    t.match(stdout, new RegExp(`^  ${code} +${literally(meaning)}$`, 'm'))
})

t.test('mount --help names every option', async t => {
  const { stdout } = await cidfs(['mount', '--help'])
  const options =
    'state config gateway kubo node peer listen announce bootstrap router dht mdns serve provide dial-private offline isolated transport passthrough allow-other max-size min-free read-deadline settle log'
  for (const option of options.split(' ')) t.match(stdout, `--${option}`)
})

t.test('without a command: help, and a failure', async t => {
  const { status, stderr } = await cidfs([])
  t.equal(status, EXIT.USAGE)
  t.match(stderr, 'Usage: cidfs')
})

t.test('a wrong command line is refused with a hint', async t => {
  await refused(t, ['mout', '/x'], EXIT.USAGE, 'unknown command', 'mount')
  await refused(t, ['mount'], EXIT.USAGE, "missing required argument 'dir'")
  await refused(t, ['mount', '/x', '--gatway', 'http://127.0.0.1'], EXIT.USAGE, 'unknown option', '--gateway')
  await refused(t, ['mount', '/x', '--kubo'], EXIT.USAGE, '--kubo')
  await refused(t, ['mount', '/x', '/y'], EXIT.USAGE, 'too many arguments')
  await refused(t, ['wait'], EXIT.USAGE, 'path')
})

t.test('a bad configuration is refused before anything starts', async t => {
  const dir = await tempDir(t)
  const config = join(dir, 'c.toml')
  await writeFile(config, 'reed-deadline = "1s"\n')
  await refused(t, ['mount', dir, '--config', config], EXIT.USAGE, config, 'read-deadline')
  await refused(t, ['mount', dir, '--gateway', 'nonsense'], EXIT.USAGE, '--gateway')
  await refused(t, ['mount', dir, '--peer', '/ip4/127.0.0.1/tcp/1'], EXIT.USAGE, 'the id of the peer')
  await refused(t, ['mount', dir, '--transport', 'fuse'], EXIT.USAGE, '"native" or "fuse-native"')
  await refused(
    t,
    ['mount', dir, '--isolated', '--state', join(dir, 's')],
    EXIT.USAGE,
    'must not lie in the mountpoint',
  )
})

t.test('a malformed CID is refused', async t => {
  const dir = await tempDir(t)
  await refused(
    t,
    ['export', 'nonsense', '--state', dir, '-o', join(dir, 'x')],
    EXIT.USAGE,
    'not a CID: "nonsense"',
  )
})

t.test('commands that need a daemon say that there is none', async t => {
  const dir = await tempDir(t)
  await mkdir(join(dir, 's'))
  await refused(t, ['status', dir], EXIT.NOT_RUNNING, `no cidfs daemon serves ${dir}`)
  await refused(t, ['status', '--state', join(dir, 's')], EXIT.NOT_RUNNING, 'no cidfs daemon runs')
  await refused(t, ['cid', join(dir, 'x')], EXIT.NOT_RUNNING, 'not in the mount of a running cidfs daemon')
  await refused(t, ['wait', join(dir, 'x')], EXIT.NOT_RUNNING, 'not in the mount')
  await refused(t, ['unmount', dir], EXIT.NOT_RUNNING, `nothing of cidfs is mounted at ${dir}`)
  await refused(
    t,
    ['export', 'bafkqaaa', '--state', join(dir, 's'), '-o', join(dir, 'x')],
    EXIT.NOT_RUNNING,
    'no store',
  )
})

t.test('a mountpoint that is missing, no directory or not empty is refused', async t => {
  const dir = await tempDir(t)
  const state = ['--isolated', '--state', join(dir, 'state')]
  await writeFile(join(dir, 'file'), '')
  await mkdir(join(dir, 'full', 'of'), { recursive: true })
  await refused(t, ['mount', join(dir, 'none'), ...state], EXIT.USAGE, 'does not exist')
  await refused(t, ['mount', join(dir, 'file'), ...state], EXIT.USAGE, 'not a directory')
  await refused(t, ['mount', join(dir, 'full'), ...state], EXIT.USAGE, 'not empty')
})

t.test('a stack is shown only where DEBUG asks for it', async t => {
  const args = ['cid', '/nonexistent']
  t.notMatch((await cidfs(args)).stderr, '    at ')
  t.match((await cidfs(args, { env: { ...process.env, DEBUG: 'cidfs:*' } })).stderr, '    at ')
})

t.test('errors map to the exit code that the table gives them', async t => {
  t.equal(exitCodeOf(new CidfsError('STATE_VERSION', '')), EXIT.STATE)
  t.equal(exitCodeOf(new CidfsError('TIMEOUT', '')), EXIT.UNAVAILABLE)
  t.equal(exitCodeOf(new CidfsError('BAD_CAR', '')), EXIT.BAD_DATA)
  t.equal(exitCodeOf(new CidfsError('MISSING_TOOL', '')), EXIT.ENVIRONMENT)
  t.equal(exitCodeOf(new TypeError('a fault')), EXIT.FAILED)
  t.same(
    EXIT_CODE_TABLE.map(([code]) => code),
    Object.values(EXIT),
  )
})

function literally(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
}
