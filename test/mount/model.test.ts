/**
 * The model test: whatever programs do in `staging/`, they see what they would see on a local disk.
 *
 * Random sequences of operations run in a folder of the mount and in one of the disk, side by side (model.py);
 * every result, the trees in between and the bytes at the end are the same, while everything is being published.
 * CIDFS_MODEL_RUNS: how many sequences; CIDFS_MODEL_SEED: of an earlier run.
 */
import { join } from 'node:path'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { Mount } from '../support/mount.js'
import { packageRoot } from '../support/root.js'
import { tempDir } from '../support/temp.js'
import { supported } from '../support/transport.js'
import { LineProgram } from './line-program.js'
import { operations, REGRESSIONS } from './model-operations.js'
import { isSound } from './staged.js'

const RUNS = Number(process.env.CIDFS_MODEL_RUNS ?? 300)
const SEED = Number(process.env.CIDFS_MODEL_SEED ?? Date.now() % 2 ** 31)
const LENGTH = 60
const TIME_LIMIT_MS = Math.max(90_000, RUNS * 500)
/** The answer of model.py. */
const SAME = 'null'

t.setTimeout(TIME_LIMIT_MS + 25_000)

/** The program that runs sequences in a new mount and on the disk. */
async function startModel(t: Test, args: string[]): Promise<{ mount: Mount; model: LineProgram }> {
  const mount = await Mount.start(t, { args })
  const script = join(packageRoot, 'test', 'mount', 'model.py')
  const model = LineProgram.start(t, 'python3', [script, mount.path('staging'), await tempDir(t)])
  return { mount, model }
}

t.test('what once was different stays the same', async t => {
  const { model } = await startModel(t, ['--settle', '0ms'])
  const sequences = supported(REGRESSIONS, ['a folder that is removed while open has no links'])
  for (const [name, sequence] of Object.entries(sequences)) {
    t.equal(await model.ask(sequence), SAME, name)
  }
})

for (const args of [
  ['--settle', '0ms', '--passthrough', 'off'],
  ['--settle', '30ms', '--passthrough', 'auto'],
]) {
  const runs = Math.ceil(RUNS / 2)
  t.test(`${runs} random sequences with ${args.join(' ')}, seed ${SEED}`, async t => {
    const { mount, model } = await startModel(t, args)
    const sequence = fc.array(operations, { minLength: LENGTH, maxLength: LENGTH })
    const property = fc.asyncProperty(sequence, async steps => {
      const found = await model.ask(steps.filter(step => step !== null))
      if (found !== SAME) throw new Error(found)
    })
    const result = await fc.check(property, {
      numRuns: runs,
      seed: SEED,
      interruptAfterTimeLimit: TIME_LIMIT_MS,
    })
    const steps = result.counterexample?.[0].filter(step => step !== null)
    t.notOk(result.failed, JSON.stringify(steps) ?? 'no difference', { error: `${result.errorInstance}` })
    t.notOk(result.interrupted, 'all of them ran in time')
    await isSound(t, mount)
  })
}
