/**
 * The model test: whatever programs do in `staging/`, they see what they would see on a local disk.
 *
 * Random sequences of operations run in a folder of the mount and in one of the disk, side by side (model.py);
 * every result, the trees in between and the bytes at the end are the same, while everything is being published.
 * CIDFS_MODEL_RUNS: how many sequences; CIDFS_MODEL_SEED: of an earlier run.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { Mount } from '../support/mount.js'
import { packageRoot } from '../support/root.js'
import { atEnd, tempDir } from '../support/temp.js'
import { type Operation, operations, REGRESSIONS } from './model-operations.js'

const RUNS = Number(process.env.CIDFS_MODEL_RUNS ?? 300)
const SEED = Number(process.env.CIDFS_MODEL_SEED ?? Date.now() % 2 ** 31)
const LENGTH = 60
const SEQUENCE_TIMEOUT_MS = 20_000

t.setTimeout(Math.max(110_000, RUNS * 1000))

/** The program that runs sequences in a new mount and on the disk. */
class Model {
  private constructor(
    private readonly child: ChildProcessByStdio<Writable, Readable, null>,
    private readonly lines: AsyncIterator<string>,
    readonly mount: Mount,
  ) {}

  static async start(t: Test, settle: string): Promise<Model> {
    const mount = await Mount.start(t, { args: ['--settle', settle] })
    const script = join(packageRoot, 'test', 'mount', 'model.py')
    const child = spawn('python3', [script, mount.path('staging'), await tempDir(t)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const ended = once(child, 'exit')
    atEnd(t, async () => {
      child.stdin.end()
      await ended
    })
    return new Model(child, createInterface({ input: child.stdout })[Symbol.asyncIterator](), mount)
  }

  /** What was not the same, as JSON; undefined when everything was. */
  async difference(sequence: readonly Operation[]): Promise<string | undefined> {
    this.child.stdin.write(`${JSON.stringify(sequence)}\n`)
    const timer = setTimeout(() => this.child.kill('SIGKILL'), SEQUENCE_TIMEOUT_MS)
    const { done, value } = await this.lines.next()
    clearTimeout(timer)
    if (done) throw new Error('model.py ended, or was too slow')
    return value === 'null' ? undefined : value
  }
}

t.test('what once was different stays the same', async t => {
  const model = await Model.start(t, '0ms')
  for (const [name, sequence] of Object.entries(REGRESSIONS)) {
    t.equal(await model.difference(sequence), undefined, name)
  }
})

for (const [settle, runs] of [
  ['0ms', Math.ceil(RUNS / 2)],
  ['30ms', Math.floor(RUNS / 2)],
] as const) {
  t.test(`${runs} random sequences, published after ${settle}, seed ${SEED}`, async t => {
    const model = await Model.start(t, settle)
    t.comment(`CIDFS_MODEL_SEED=${SEED}`)
    const sequence = fc.array(operations, { minLength: LENGTH, maxLength: LENGTH })
    const property = fc.asyncProperty(sequence, async steps => {
      const found = await model.difference(steps.filter(step => step !== null))
      if (found !== undefined) throw new Error(found)
    })
    const result = await fc.check(property, { numRuns: runs, seed: SEED, interruptAfterTimeLimit: 90_000 })
    const steps = result.counterexample?.[0].filter(step => step !== null)
    t.notOk(result.failed, JSON.stringify(steps) ?? 'no difference', { error: `${result.errorInstance}` })
    t.notOk(result.interrupted, 'all of them ran in time')
  })
}
