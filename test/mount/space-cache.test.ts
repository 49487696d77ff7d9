/** What the network brings, where there is little room: it is read in any case, and kept while it is in nobody's way. */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { Dag, pattern, sha256 } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { Mount } from '../support/mount.js'
import { runOk } from '../support/run.js'
import { freeBytes, smallDisk } from '../support/small-disk.js'
import { until } from '../support/until.js'
import { fill, isKept, MIB, report, skip, tryToWrite } from './filling.js'
import { isSound, waitFor } from './staged.js'

t.setTimeout(110_000)

t.test('what is cached goes for what is read and written, without anybody noticing', { skip }, async t => {
  const disk = await smallDisk(t, 64, 'ext4')
  const gateway = await TestGateway.start(t)
  const mount = await Mount.start(t, { stateDir: join(disk, 'state'), gateways: [gateway.url] })
  await mount.run('sh', ['-c', 'head -c 8000000 /dev/urandom > staging/mine'])
  await waitFor(mount, [mount.path('staging')])
  const dag = new Dag(gateway)
  for (let i = 1; i <= 16; i++) {
    const content = pattern(6 * MIB, i)
    const cid = await dag.import([{ content }])
    const { stdout } = await mount.run('sha256sum', [`ipfs/${cid}`])
    t.match(stdout, sha256(content), `file ${i}`)
    t.ok(await tryToWrite(mount, 'written', 2 * MIB), 'a full cache is in nobody’s way')
  }
  const { store } = await report(mount)
  t.ok(store.bytes < 56 * MIB, 'of 96 MiB that were read, not all is kept')
  t.ok((await freeBytes(disk)) > 0)
  await isSound(t, mount)
  await mount.stop()
})

t.test('what is read is served, and not kept, while own files fill the disk', { skip }, async t => {
  const disk = await smallDisk(t, 64, 'tmpfs')
  const gateway = await TestGateway.start(t)
  const args = ['--passthrough', 'off']
  const mount = await Mount.start(t, { stateDir: join(disk, 'state'), gateways: [gateway.url], args })
  const accepted = await fill(mount)
  const dag = new Dag(gateway)
  const content = pattern(9 * MIB, 7)
  const cid = await dag.import([{ content }])
  for (let i = 0; i < 2; i++) {
    const { stdout } = await mount.run('sha256sum', [`ipfs/${cid}`])
    t.match(stdout, sha256(content))
    await runOk('sh', ['-c', 'echo 1 > /proc/sys/vm/drop_caches'])
  }
  await mount.run('ln', ['-s', `${cid}`, 'pins/big'])
  const pin = mount.path('pins', 'big')
  const state = async () => (await xattrOfLink(mount, pin, 'ipfs.state')).trim()
  await until('the pin says that it failed', async () => (await state()) === 'failed', 30_000)
  t.match(await xattrOfLink(mount, pin, 'ipfs.error'), /no space left to keep/)
  await isKept(t, mount, accepted)
  for (const name of Object.keys(accepted).slice(0, 3)) await rm(mount.path('staging', name))
  await until('the pin is complete', async () => (await state()) === 'pinned', 30_000)
  await isSound(t, mount)
  await mount.stop()
})

async function xattrOfLink(mount: Mount, path: string, name: string): Promise<string> {
  const { stdout } = await mount.run('getfattr', [
    '-h',
    '--only-values',
    '--absolute-names',
    '-n',
    name,
    path,
  ])
  return stdout
}
