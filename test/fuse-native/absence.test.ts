/**
 * Without the package, or without the library of the system that it needs: everything but `--transport fuse-native`
 * works, and asking for that says in one line what to install.
 *
 * The package is missing in a copy of the program whose node_modules has all others; the library is missing in a mount
 * namespace whose directory of libraries has all others.
 */
import { cp, mkdir, readdir, symlink } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import t, { type Test } from 'tap'
import { EXIT } from '../../src/cli/exit-codes.js'
import type { DoctorReport } from '../../src/daemon/doctor-check.js'
import { mainFile, packageRoot } from '../support/root.js'
import { type RunResult, run, runOk } from '../support/run.js'
import { tempDir } from '../support/temp.js'

t.setTimeout(100_000)

/** Runs `cidfs`, where something is missing. */
type Cidfs = (...args: string[]) => Promise<RunResult>

const PACKAGE = 'fuse-native'
const compiled = dirname(dirname(dirname(mainFile)))

async function withoutPackage(t: Test): Promise<Cidfs> {
  const root = await tempDir(t)
  await cp(join(packageRoot, 'package.json'), join(root, 'package.json'))
  await cp(join(compiled, 'src'), join(root, 'dist', 'src'), { recursive: true })
  await symlink(join(packageRoot, 'build'), join(root, 'build'))
  await mkdir(join(root, 'node_modules'))
  for (const name of await readdir(join(packageRoot, 'node_modules'))) {
    if (name === PACKAGE) continue
    await symlink(join(packageRoot, 'node_modules', name), join(root, 'node_modules', name))
  }
  const main = join(root, 'dist', relative(compiled, mainFile))
  return (...args) => run(process.execPath, [main, ...args])
}

/** In a mount namespace of its own: the directory of a library replaced by links to all that is in it but that one. */
const HIDE = `
import ctypes, os, sys
directory, hidden, place, *command = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, kind, flags):
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, None) != 0:
        raise OSError(ctypes.get_errno(), 'mount', target)
MS_BIND, MS_REC, MS_PRIVATE, CLONE_NEWNS = 4096, 16384, 1 << 18, 0x20000
if libc.unshare(CLONE_NEWNS) != 0: raise OSError(ctypes.get_errno(), 'unshare')
mount('none', '/', 'none', MS_REC | MS_PRIVATE)
mount(directory, place, 'none', MS_BIND)
names = [name for name in os.listdir(directory) if not name.startswith(hidden)]
mount('none', directory, 'tmpfs', 0)
for name in names: os.symlink(os.path.join(place, name), os.path.join(directory, name))
os.execvp(command[0], command)
`

async function withoutLibrary(t: Test): Promise<Cidfs> {
  const addon = join(packageRoot, 'node_modules', PACKAGE, 'prebuilds', 'linux-x64', 'node.napi.node')
  const library = /libfuse\.so\.2 => (\S+)/.exec((await runOk('ldd', [addon])).stdout)?.[1]
  if (library === undefined) throw new Error('libfuse.so.2 is not installed: apt-get install libfuse2')
  const directory = (await runOk('realpath', [dirname(library)])).stdout.trim()
  const place = await tempDir(t)
  const command = [process.execPath, mainFile]
  return (...args) => run('python3', ['-c', HIDE, directory, 'libfuse.so.2', place, ...command, ...args])
}

const CASES = [
  { what: 'the package', make: withoutPackage, advice: 'npm install --include=optional' },
  { what: 'libfuse.so.2', make: withoutLibrary, advice: 'apt-get install libfuse2' },
]

for (const { what, make, advice } of CASES) {
  t.test(`without ${what}, asking for fuse-native says in one line what to install`, async t => {
    const cidfs = await make(t)
    const dir = await tempDir(t)
    const state = join(await tempDir(t), 'state')
    const asked = ['--isolated', '--state', state, '--transport', 'fuse-native', dir]
    for (const foreground of [['--foreground'], []]) {
      const refused = await cidfs('mount', ...foreground, ...asked)
      t.equal(refused.status, EXIT.ENVIRONMENT)
      t.match(refused.stderr, /^cidfs: --transport fuse-native [^\n]*\n$/, 'one line')
      t.match(refused.stderr, advice)
    }
  })

  t.test(`without ${what}, the native transport mounts`, async t => {
    const cidfs = await make(t)
    const dir = await tempDir(t)
    const state = join(await tempDir(t), 'state')
    const mounted = await cidfs('mount', '--isolated', '--no-keeper', '--state', state, dir)
    t.equal(mounted.status, 0, mounted.stderr)
    const unmounted = await cidfs('unmount', dir)
    t.equal(unmounted.status, 0, unmounted.stderr)
  })

  t.test(`without ${what}, doctor warns, and fails where it is asked for`, async t => {
    const cidfs = await make(t)
    const state = join(await tempDir(t), 'state')
    const warned = await cidfs('doctor', '--json', '--isolated', '--state', state)
    t.equal(warned.status, 0)
    const find = (text: string) =>
      (JSON.parse(text) as DoctorReport).checks.find(({ name }) => name === 'transport fuse-native')
    t.equal(find(warned.stdout)?.state, 'warn')
    t.match(find(warned.stdout)?.advice, advice)
    const failed = await cidfs(
      'doctor',
      '--json',
      '--isolated',
      '--state',
      state,
      '--transport',
      'fuse-native',
    )
    t.equal(failed.status, EXIT.ENVIRONMENT)
    t.equal(find(failed.stdout)?.state, 'fail')
  })
}
