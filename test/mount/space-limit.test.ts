/** A limit that is reached (`--max-size`): what was accepted stays and is published, and the limit is kept. */
import { join } from 'node:path'
import t from 'tap'
import { EXIT } from '../../src/cli/exit-codes.js'
import { type SampleCar, writeCar } from '../support/car-files.js'
import { Dag, pattern } from '../support/dag.js'
import { Mount } from '../support/mount.js'
import { diskUse } from '../support/small-disk.js'
import { tempDir } from '../support/temp.js'
import { fill, goesOn, isKept, MIB } from './filling.js'
import { isSound } from './staged.js'

t.setTimeout(110_000)

const LIMIT_MIB = 40

for (const passthrough of ['auto', 'off']) {
  t.test(`what was accepted stays, is published, and goes for more, passthrough ${passthrough}`, async t => {
    const args = ['--max-size', `${LIMIT_MIB}MiB`, '--passthrough', passthrough]
    const mount = await Mount.start(t, { args })
    const accepted = await fill(mount)
    t.ok(Object.keys(accepted).length > 4, `${Object.keys(accepted).length} files`)
    t.ok((await diskUse(mount.stateDir)) <= LIMIT_MIB * MIB, 'the limit is kept')
    await isKept(t, mount, accepted)
    await goesOn(t, mount, accepted)
    await isSound(t, mount)
    t.ok((await diskUse(mount.stateDir)) <= LIMIT_MIB * MIB, 'and is still')
  })
}

t.test('df of a limited mount shows the limit', async t => {
  const mount = await Mount.start(t, { args: ['--max-size', '64MiB'] })
  const { stdout } = await mount.run('df', ['--output=size,avail', '--block-size=1M', mount.dir])
  const [size = 0, available = 0] = stdout.split('\n')[1]!.trim().split(/\s+/).map(Number)
  t.ok(size > 56 && size <= 64 && available > 50 && available < size, stdout)
})

t.test('a CAR that does not fit is refused, and what fits is imported', async t => {
  const mount = await Mount.start(t, { args: ['--max-size', '32MiB'] })
  const dir = await tempDir(t)
  for (const [sizeMib, status] of [
    [48, EXIT.ENVIRONMENT],
    [12, EXIT.OK],
  ] as const) {
    const blocks: SampleCar['blocks'] = []
    const dag = new Dag({ add: (cid, bytes) => blocks.push({ cid, bytes }) })
    const root = await dag.import([{ content: pattern(sizeMib * MIB, sizeMib) }])
    const { path } = await writeCar(join(dir, `${sizeMib}.car`), root, blocks)
    const result = await mount.cli(['import', path, '--state', mount.stateDir])
    t.equal(result.status, status, result.stderr)
    if (status !== EXIT.OK) t.match(result.stderr, /^cidfs: no space left: .*--max-size[^\n]*\n$/)
    t.ok((await diskUse(mount.stateDir)) <= 32 * MIB)
  }
})

t.test('sizes that are none are refused in one line', async t => {
  const dir = await tempDir(t)
  const mount = await Mount.start(t)
  for (const [option, value, hint] of [
    ['--max-size', '20', /must be a size with a unit/],
    ['--max-size', '1MiB', /at least "16MiB"/],
    ['--min-free', '100%', /a part of the disk like "5%"/],
    ['--min-free', 'much', /a size like "2GiB"/],
  ] as const) {
    const args = ['mount', '--isolated', '--state', join(dir, 'state'), option, value, dir]
    const { status, stderr } = await mount.cli(args)
    t.equal(status, 2, `${option} ${value}`)
    t.match(stderr, /^cidfs: [^\n]+\n$/)
    t.match(stderr, hint)
  }
})
