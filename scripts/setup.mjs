/**
 * Makes a clone runnable: checks the machine, installs the packages, builds. Each step only when needed.
 *
 * Packages are installed without running their install scripts: those of `lmdb` and `msgpackr-extract` only
 * look for the binaries that they ship, and would compile or download what is missing.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { build } from './build.mjs'
import { isMain, Problem, root, run, script } from './steps.mjs'

const MIN_NODE = [20, 19]

export function setup() {
  if (process.platform !== 'linux') throw new Problem(`cidfs needs Linux; this is ${process.platform}`)
  checkNode()
  checkCompiler()
  install()
  build()
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major > MIN_NODE[0] || (major === MIN_NODE[0] && minor >= MIN_NODE[1])) return
  const wanted = MIN_NODE.join('.')
  throw new Problem(
    `Node ${wanted} or newer is needed, this is ${process.version}: see https://nodejs.org/en/download`,
  )
}

function checkCompiler() {
  const compiler = process.env.CC ?? 'cc'
  if (spawnSync(compiler, ['--version'], { stdio: 'ignore' }).status === 0) return
  throw new Problem(`a C compiler is needed (${compiler}): apt-get install build-essential`)
}

/** The stamp keeps a lock file that was merely touched, by a checkout say, from installing all again. */
function install() {
  const stamp = join(root, 'node_modules', '.cidfs-lock')
  const hash = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex')
  if (read(stamp) === hash) return
  if (!isNewer(join(root, 'node_modules', '.package-lock.json'), join(root, 'package-lock.json'))) {
    run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'])
  }
  writeFileSync(stamp, hash)
}

function isNewer(file, than) {
  const stats = statSync(file, { throwIfNoEntry: false })
  return stats !== undefined && stats.mtimeMs >= statSync(than).mtimeMs
}

function read(file) {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}

if (isMain(import.meta.url)) await script('setup', setup)
