/** A disk that is full, a floor that holds: what was accepted stays and is published. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { Mount } from '../support/mount.js'
import { freeBytes, smallDisk } from '../support/small-disk.js'
import { fill, goesOn, isKept, MIB, report, skip } from './filling.js'
import { isSound, waitFor } from './staged.js'

t.setTimeout(110_000)

const VARIANTS = [
  { name: 'a full disk, passthrough off', type: 'tmpfs', args: ['--passthrough', 'off'], partBytes: MIB },
  { name: 'a full disk, passthrough auto', type: 'ext4', args: [], partBytes: MIB },
  { name: 'a full disk, small files', type: 'ext4', args: ['--passthrough', 'off'], partBytes: 12_000 },
] as const

for (const { name, type, args, partBytes } of VARIANTS) {
  t.test(`${name}: what was accepted stays, is published, and goes for more`, { skip }, async t => {
    const disk = await smallDisk(t, 64, type)
    const mount = await Mount.start(t, { stateDir: join(disk, 'state'), args: [...args] })
    await writeFile(mount.path('staging', 'before'), 'before')
    await waitFor(mount, [mount.path('staging')])
    const accepted = await fill(mount, partBytes)
    t.ok(Object.keys(accepted).length > 4, `${Object.keys(accepted).length} files`)
    await isKept(t, mount, accepted)
    t.equal((await mount.run('cat', ['staging/before'])).stdout, 'before')
    await goesOn(t, mount, accepted)
    await isSound(t, mount)
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
