/** A disk that is full, a limit that is reached, a floor that holds: what was accepted stays and is published. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { EXIT } from '../../src/cli/exit-codes.js'
import { type SampleCar, writeCar } from '../support/car-files.js'
import { Dag, pattern } from '../support/dag.js'
import { Mount } from '../support/mount.js'
import { diskUse, freeBytes, smallDisk } from '../support/small-disk.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'
import { fill, goesOn, isKept, MIB, report, skip } from './filling.js'
import { isSound, waitFor } from './staged.js'

t.setTimeout(110_000)

const VARIANTS = [
  { name: 'a full disk, passthrough off', type: 'tmpfs', args: ['--passthrough', 'off'], partBytes: MIB },
  { name: 'a full disk, passthrough auto', type: 'ext4', args: [], partBytes: MIB },
  { name: 'a full disk, small files', type: 'ext4', args: ['--passthrough', 'off'], partBytes: 12_000 },
  { name: 'a limit, passthrough off', limit: 40, args: ['--passthrough', 'off'], partBytes: MIB },
  { name: 'a limit, passthrough auto', limit: 40, args: [], partBytes: MIB },
] as const

for (const { name, args, partBytes, ...variant } of VARIANTS) {
  t.test(`${name}: what was accepted stays, is published, and goes for more`, { skip }, async t => {
    const isDisk = 'type' in variant
    const disk = isDisk ? await smallDisk(t, 64, variant.type) : await tempDir(t)
    const limit = isDisk ? [] : ['--max-size', `${variant.limit}MiB`]
    const mount = await Mount.start(t, { stateDir: join(disk, 'state'), args: [...args, ...limit] })
    await writeFile(mount.path('staging', 'before'), 'before')
    await waitFor(mount, [mount.path('staging')])
    const accepted = await fill(mount, partBytes)
    t.ok(Object.keys(accepted).length > 4, `${Object.keys(accepted).length} files`)
    if (!isDisk) t.ok((await diskUse(mount.stateDir)) <= variant.limit * MIB, 'the limit is kept')
    await isKept(t, mount, accepted)
    t.equal((await mount.run('cat', ['staging/before'])).stdout, 'before')
    await goesOn(t, mount, accepted)
    await isSound(t, mount)
    if (!isDisk) t.ok((await diskUse(mount.stateDir)) <= variant.limit * MIB, 'and is still')
    await mount.stop()
  })
}

t.test('the floor stays free, and df and status say what is left', { skip }, async t => {
  const disk = await smallDisk(t, 64, 'tmpfs')
  const args = ['--min-free', '24MiB', '--passthrough', 'off']
  const mount = await Mount.start(t, { stateDir: join(disk, 'state'), args })
  const df = async () => {
    const { stdout } = await mount.run('df', ['--output=size,avail', '--block-size=1', mount.dir])
    return stdout.split('\n')[1]!.trim().split(/\s+/).map(Number) as [number, number]
  }
  const [size, available] = await df()
  t.equal(size, 64 * MIB)
  t.ok(available > 36 * MIB && available <= 40 * MIB, `${available} bytes available`)
  const accepted = await fill(mount)
  t.ok((await freeBytes(disk)) >= 24 * MIB, 'the floor is free')
  const { space } = await report(mount)
  t.match(space, { minFreeBytes: 24 * MIB, maxBytes: null, full: true })
  t.ok((await df())[1] < MIB)
  t.match(
    (await mount.cli(['status', mount.dir])).stdout,
    /space .*full: writes are refused; 24\.0 MiB stay free/,
  )
  await isKept(t, mount, accepted)
  await goesOn(t, mount, accepted)
  t.equal((await report(mount)).space.full, false)
  await mount.stop()
})

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
    [4, EXIT.OK],
  ] as const) {
    const blocks: SampleCar['blocks'] = []
    const dag = new Dag({ add: (cid, bytes) => blocks.push({ cid, bytes }) })
    const root = await dag.import([{ content: pattern(sizeMib * MIB, sizeMib) }])
    const { path } = await writeCar(join(dir, `${sizeMib}.car`), root, blocks)
    const result = await mount.cli(['import', path, '--state', mount.stateDir])
    t.equal(result.status, status, result.stderr)
    if (status !== EXIT.OK) t.match(result.stderr, /^cidfs: no space left: .*--max-size[^\n]*\n$/)
    t.ok((await diskUse(mount.stateDir)) <= 32 * MIB)
    await until('there is room for more', async () => (await report(mount)).space.availableBytes > 16 * MIB)
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
