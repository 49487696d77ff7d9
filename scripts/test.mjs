/**
 * `npm test [-- PART… ] [--jobs=N]`: setup, lint, then the tests; PART selects files by a part of their path.
 *
 * Tests on mounts run once for each transport (transports.mjs).
 * Ends with the plain line `N passed, N failed, N skipped`. With CI=true a skipped test is a failure.
 */
import { availableParallelism } from 'node:os'
import { join, relative } from 'node:path'
import { filesBelow } from './build.mjs'
import { findKubo } from './kubo.mjs'
import { setup } from './setup.mjs'
import { isMain, Problem, root, run, script } from './steps.mjs'
import { runsOf } from './transports.mjs'

async function test(args) {
  const jobs = Number(args.find(arg => arg.startsWith('--jobs='))?.slice('--jobs='.length) ?? defaultJobs())
  const parts = args.filter(arg => !arg.startsWith('--'))
  setup()
  run(join(root, 'node_modules', '.bin', 'biome'), ['check', '--error-on-warnings', '.'])
  const runs = select(parts)
  const kubo = findKubo()
  if (kubo !== undefined) process.env.CIDFS_TEST_IPFS = kubo
  const { runTests } = await import('./test-runner.mjs') // needs packages, which setup has just installed
  const results = await runTests(runs, { jobs })
  process.exitCode = summarise(results)
}

/** Mounts compete for the processor; more than this makes time limits meaningless. */
function defaultJobs() {
  return Math.min(4, availableParallelism())
}

function select(parts) {
  const tests = join(root, 'dist', 'test')
  const files = filesBelow(tests).filter(file => file.endsWith('.test.js'))
  const chosen = files.filter(file => {
    return parts.length === 0 || parts.some(part => relative(tests, file).includes(part.replace(/\.ts$/, '')))
  })
  if (chosen.length === 0) throw new Problem(`no test file has ${parts.join(' or ')} in its path`)
  return chosen.flatMap(file => {
    return runsOf(relative(tests, file)).map(({ suffix, env }) => ({ file, suffix, env }))
  })
}

function summarise(results) {
  const skipped = results.flatMap(({ name, skipped }) => skipped.map(line => `${name}: ${line}`))
  const failed = results.flatMap(({ name, failed }) => failed.map(line => `${name}: ${line}`))
  const passed = results.reduce((sum, result) => sum + result.passed, 0)
  for (const line of skipped) console.log(`skipped  ${line}`)
  for (const line of failed) console.log(`failed   ${line}`)
  const refused = process.env.CI === 'true' && skipped.length > 0
  if (refused) console.log('In CI every test must run: those that were skipped count as failed.')
  console.log(`${passed} passed, ${failed.length} failed, ${skipped.length} skipped`)
  return failed.length > 0 || refused ? 1 : 0
}

if (isMain(import.meta.url)) {
  await script('test', () => test(process.argv.slice(2)))
}
