/**
 * Builds the Kubo that the interop tests run against, once, and prints its path.
 *
 * It is a Go module of its own (test/kubo/go.mod), built with the Go that is installed, or the toolchain that Go
 * (1.21 or newer) gets from its module proxy where that is too old. It lies in the cache directory of the user, where other clones find it too.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, isAbsolute, join } from 'node:path'
import { isMain, Problem, root, run, script } from './steps.mjs'

const MODULE = 'github.com/ipfs/kubo'
const GO_ENV = { ...process.env, GOFLAGS: '-mod=readonly' }

/** Where the binary is, or will be. */
export function kuboPath() {
  const cache = process.env.XDG_CACHE_HOME ?? ''
  const base = isAbsolute(cache) ? cache : join(homedir(), '.cache')
  return join(base, 'cidfs', `kubo-${kuboVersion()}`, 'ipfs')
}

/** The binary to test with: what the environment names, else the one that was built before, if any. */
export function findKubo() {
  const path = process.env.CIDFS_TEST_IPFS ?? kuboPath()
  return existsSync(path) ? path : undefined
}

function kuboVersion() {
  const line = goMod().find(text => text.trim().startsWith(`${MODULE} v`))
  if (line === undefined) throw new Problem(`test/kubo/go.mod does not require ${MODULE}`)
  return line.trim().split(' ')[1]
}

function goMod() {
  return readFileSync(join(root, 'test', 'kubo', 'go.mod'), 'utf8').split('\n')
}

/** Takes about five minutes the first time. */
export function buildKubo() {
  const target = kuboPath()
  if (existsSync(target)) return target
  checkGo()
  const temporary = `${target}.${process.pid}`
  mkdirSync(dirname(target), { recursive: true })
  try {
    const args = ['build', '-C', join(root, 'test', 'kubo'), '-o', temporary, `${MODULE}/cmd/ipfs`]
    run('go', args, { env: GO_ENV })
    renameSync(temporary, target)
  } finally {
    rmSync(temporary, { force: true })
  }
  return target
}

function checkGo() {
  const { status } = spawnSync('go', ['version'], { env: GO_ENV })
  if (status === 0) return
  throw new Problem('building Kubo needs Go 1.21 or newer: see https://go.dev/dl/')
}

if (isMain(import.meta.url)) await script('kubo', () => console.log(buildKubo()))
