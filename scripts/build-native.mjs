/**
 * Compiles native/keeper*.c into the program build/cidfs-keeper, and the other native/*.c into build/cidfs.node.
 *
 * Calls the C compiler directly: node-gyp would download headers from the network, the package
 * `node-api-headers` brings them. Nothing is done when sources, headers, flags and compiler are the same as last
 * time; the compiler writes to a temporary name, so that a concurrent reader never loads half a file.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const COMMON_FLAGS = ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror']
const FLAGS = [
  ...COMMON_FLAGS,
  ...['-fPIC', '-fvisibility=hidden', '-pthread', '-shared'],
  // A thread that is blocked in the kernel may outlive the environment that loaded the addon.
  '-Wl,-z,nodelete',
]

const KEEPER = /^keeper/

/** Builds the keeper and the addon; returns the addon's path. Throws an Error of one line when that is impossible. */
export function buildNative() {
  const sources = readdirSync(join(root, 'native')).sort()
  const [keeper, addon] = [
    sources.filter(name => KEEPER.test(name)),
    sources.filter(name => !KEEPER.test(name)),
  ]
  buildOne('cidfs-keeper', keeper, COMMON_FLAGS)
  const include = headersDirectory()
  return buildOne('cidfs.node', addon, [...FLAGS, `-I${include}`])
}

function buildOne(name, sources, flags) {
  const target = join(root, 'build', name)
  const stamp = `${target}.hash`
  const compiler = process.env.CC ?? 'cc'
  const hash = hashOf(sources, [compiler, ...flags])
  if (existsSync(target) && existsSync(stamp) && readFileSync(stamp, 'utf8') === hash) return target
  mkdirSync(dirname(target), { recursive: true })
  const temporary = `${target}.${process.pid}`
  try {
    const files = sources.filter(file => file.endsWith('.c')).map(file => join(root, 'native', file))
    compile(compiler, [...flags, '-o', temporary, ...files])
    renameSync(temporary, target)
    writeFileSync(stamp, hash)
  } finally {
    rmSync(temporary, { force: true })
  }
  return target
}

function headersDirectory() {
  try {
    return createRequire(join(root, 'package.json'))('node-api-headers').include_dir
  } catch {
    throw new Error('the package node-api-headers is not installed: run `npm ci`')
  }
}

function hashOf(sources, parameters) {
  const hash = createHash('sha256').update(JSON.stringify([process.arch, ...parameters]))
  for (const name of sources) hash.update(name).update(readFileSync(join(root, 'native', name)))
  return hash.digest('hex')
}

function compile(compiler, args) {
  const { status, signal, error } = spawnSync(compiler, args, { stdio: 'inherit' })
  if (error?.code === 'ENOENT') {
    throw new Error(`there is no C compiler (${compiler}): apt-get install build-essential`)
  }
  if (error) throw error
  if (status !== 0) throw new Error(`${compiler} failed with ${signal ?? `status ${status}`}`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    buildNative()
  } catch (err) {
    console.error(`build-native: ${err.message}`)
    process.exitCode = 1
  }
}
