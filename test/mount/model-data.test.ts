/**
 * The model test of content: a file that is written, cut, mapped and punched holds what a copy in memory holds,
 * while it is published again and again, in every mount that comes after, and under its CIDs.
 *
 * CIDFS_MODEL_RUNS: how many sequences; CIDFS_MODEL_SEED: of an earlier run.
 */
import { join } from 'node:path'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { Mount, type MountOptions } from '../support/mount.js'
import { packageRoot } from '../support/root.js'
import { tempDir } from '../support/temp.js'
import { isNative } from '../support/transport.js'
import { LineProgram } from './line-program.js'
import { isSound } from './staged.js'

type Operation = readonly [string, ...number[]]

const RUNS = Number(process.env.CIDFS_MODEL_RUNS ?? 100)
const SEED = Number(process.env.CIDFS_MODEL_SEED ?? Date.now() % 2 ** 31)
const LENGTH = 60
const TIME_LIMIT_MS = Math.max(60_000, RUNS * 1000)
/** Sequences that go on with files of an earlier mount. */
const LATER = 10
const SAME = 'null'

t.setTimeout(TIME_LIMIT_MS + 50_000)

const seed = fc.integer({ min: 0, max: 255 })
const position = fc.oneof(
  { arbitrary: fc.integer({ min: 0, max: 10_000 }), weight: 4 },
  { arbitrary: fc.constantFrom(4095, 4096, 65_535, 65_536, 65_537, 131_072), weight: 3 },
  { arbitrary: fc.constantFrom(1_048_575, 1_048_576, 1_048_577, 2_097_153, 2_500_000), weight: 2 },
)
/** Keeping the size or not; punching needs the former. */
const fallocateMode = fc.constantFrom(0, 1, 2 | 1, 2 | 1, 0x10, 0x10 | 1)
const positive = position.map(length => length + 1)

const of = (weight: number, operation: string, ...args: fc.Arbitrary<number>[]) => ({
  arbitrary: fc.tuple(fc.constant(operation), ...args) as unknown as fc.Arbitrary<Operation>,
  weight,
})

const operations = fc.option(
  fc.oneof(
    of(8, 'pwrite', position, seed, position),
    of(5, 'pread', position, position),
    of(3, 'append', seed, position),
    of(4, 'truncate', position),
    of(1, 'by_path', position),
    of(1, 'empty'),
    ...(isNative ? [of(4, 'fallocate', fallocateMode, position, positive)] : []),
    of(2, 'map'),
    of(5, 'poke', position, seed, position),
    of(2, 'peek', position, position),
    of(1, 'msync'),
    of(1, 'unmap'),
    of(2, 'private', position, seed, position),
    of(1, 'fsync'),
    of(1, 'holes'),
    of(4, 'reopen'),
    of(3, 'publish'),
    of(2, 'whole'),
  ),
  { nil: null, freq: 1000 },
)
const sequences = fc.array(operations, { minLength: LENGTH, maxLength: LENGTH })

/** Sequences that once failed, by what was wrong. */
const REGRESSIONS: Record<string, Operation[]> = {
  'a published file is written to through a mapping': [
    ['pwrite', 0, 1, 200_000],
    ['publish'],
    ['poke', 100_000, 2, 50_000],
    ['publish'],
  ],
  'what is written to a hole through a mapping is no hole for lseek': [
    ['truncate', 1_000_000],
    ['poke', 500_000, 1, 1000],
    ['holes'],
    ['reopen'],
    ['poke', 800_000, 1, 1000],
    ['holes'],
    ['publish'],
  ],
}

interface Run {
  mount: Mount
  /** The answer about a file after some more operations. */
  change(file: string, steps: readonly (Operation | null)[]): Promise<string>
  end(): Promise<void>
}

/** Which reads and writes the kernel passes to us. */
const MODES = ['off', 'auto']

const argsOf = (passthrough: string): string[] => ['--settle', '0ms', '--passthrough', passthrough]

async function start(t: Test, shadows: string, options: MountOptions): Promise<Run> {
  const mount = await Mount.start(t, options)
  const script = join(packageRoot, 'test', 'mount', 'model-data.py')
  const program = LineProgram.start(t, 'python3', [
    script,
    mount.path('staging'),
    mount.path('ipfs'),
    shadows,
  ])
  return {
    mount,
    change: (file, steps) => program.ask({ file, operations: steps.filter(step => step !== null) }),
    end: async () => {
      await program.end()
      await mount.stop()
    },
  }
}

for (const [i, mode] of MODES.entries()) {
  t.test(`what once was different stays the same, passthrough ${mode}`, async t => {
    const run = await start(t, await tempDir(t), { args: argsOf(mode) })
    for (const [name, steps] of Object.entries(REGRESSIONS)) {
      t.equal(await run.change(`r${Object.keys(REGRESSIONS).indexOf(name)}`, steps), SAME, name)
    }
  })

  t.test(`random sequences, and more of them after restarts, passthrough ${mode}, seed ${SEED}`, async t => {
    const [shadows, state] = [await tempDir(t), join(await tempDir(t), 'state')]
    let run = await start(t, shadows, { stateDir: state, args: argsOf(mode) })
    const files = await fresh(t, run)
    for (const restart of [1, 2]) {
      await run.end()
      run = await start(t, shadows, { stateDir: state, args: argsOf(MODES[(i + restart) % 2]!) })
      for (const file of files) t.equal(await run.change(file, []), SAME, `restart ${restart}: ${file}`)
      const later = fc.sample(sequences, { numRuns: LATER, seed: SEED + restart })
      for (const [i, steps] of later.entries()) {
        t.equal(await run.change(files[i % files.length]!, steps), SAME, JSON.stringify(steps))
      }
      await isSound(t, run.mount)
    }
  })
}

/** Sequences on files of their own; returns the names of these. */
async function fresh(t: Test, run: Run): Promise<string[]> {
  const files: string[] = []
  const property = fc.asyncProperty(sequences, async steps => {
    files.push(`f${files.length}`)
    const found = await run.change(files.at(-1)!, steps)
    if (found !== SAME) throw new Error(found)
  })
  const runs = Math.ceil(RUNS / MODES.length)
  const result = await fc.check(property, {
    numRuns: runs,
    seed: SEED,
    interruptAfterTimeLimit: TIME_LIMIT_MS,
  })
  const steps = result.counterexample?.[0].filter(step => step !== null)
  t.notOk(result.failed, JSON.stringify(steps) ?? 'no difference', { error: `${result.errorInstance}` })
  t.notOk(result.interrupted, 'all of them ran in time')
  return files
}
