/** `import` and `export`, with a daemon and without one. */
import { readdir, readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CarReader } from '@ipld/car'
import t from 'tap'
import { EXIT } from '../../src/cli/exit-codes.js'
import { sampleCar, writeCar } from '../support/car-files.js'
import { TestGateway } from '../support/gateway.js'
import { Mount } from '../support/mount.js'
import { mainFile } from '../support/root.js'
import { run } from '../support/run.js'
import { tempDir } from '../support/temp.js'

function cidfs(args: string[], input?: Uint8Array) {
  return run(process.execPath, [mainFile, ...args], input === undefined ? {} : { input })
}

/** CIDs of the blocks of a CAR, sorted. */
async function cidsOf(car: Uint8Array): Promise<string[]> {
  const cids: string[] = []
  for await (const cid of (await CarReader.fromBytes(car)).cids()) cids.push(cid.toString())
  return cids.sort()
}

t.test('without a daemon: import, then export gives the same blocks back', async t => {
  const dir = await tempDir(t)
  const state = ['--state', join(dir, 'state')]
  const { path, root } = await sampleCar(dir)
  const ROOT = root.toString()
  const imported = await cidfs(['import', path, ...state])
  t.match(imported, { status: 0, stdout: `${ROOT}\n`, stderr: /blocks, .* imported/ })
  const out = join(dir, 'out.car')
  t.match(await cidfs(['export', ROOT, '-o', out, ...state]), { status: 0, stdout: '' })
  const bytes = await readFile(out)
  t.same(await cidsOf(bytes), [...new Set(await cidsOf(await readFile(path)))].sort())
  const toStdout = await cidfs(['export', ROOT, ...state])
  t.ok(toStdout.bytes.equals(bytes), 'standard output is the same')
  const { stdout } = await cidfs(['import', '-', '--json', '--state', join(dir, 'other')], bytes)
  t.match(JSON.parse(stdout), { roots: [ROOT], blocks: Number, bytes: Number })
})

t.test('with a daemon: what is imported is readable in the mount, pinned, and exported again', async t => {
  const mount = await Mount.start(t)
  const state = ['--state', mount.stateDir]
  const { path, root } = await sampleCar(await tempDir(t))
  const ROOT = root.toString()
  t.match(await mount.cli(['import', path, ...state]), { status: 0, stdout: `${ROOT}\n` })
  t.ok((await readdir(mount.path('ipfs', ROOT))).length > 0)
  t.ok((await readdir(mount.path('ipfs'))).includes(ROOT))
  const exported = await mount.cli(['export', ROOT, ...state])
  t.equal(exported.status, 0, exported.stderr)
  t.ok((await cidsOf(exported.bytes)).includes(ROOT))
  t.match(await mount.cli(['cid', mount.path('ipfs', ROOT)]), { status: 0, stdout: `${ROOT}\n` })
})

t.test('with a daemon: export fetches what is missing', async t => {
  const gateway = await TestGateway.start(t)
  const { path, root } = await sampleCar(await tempDir(t))
  await gateway.addCar(path)
  const mount = await Mount.start(t, { gateways: [gateway.url] })
  const exported = await mount.cli(['export', String(root), '--state', mount.stateDir])
  t.equal(exported.status, 0, exported.stderr)
  t.same(await cidsOf(exported.bytes), [...new Set(await cidsOf(await readFile(path)))].sort())
})

t.test('an export that cannot be completed leaves no file', async t => {
  const dir = await tempDir(t)
  const state = ['--state', join(dir, 'state')]
  const { path, root, blocks } = await sampleCar(dir)
  await writeCar(
    path,
    root,
    blocks.filter(({ bytes }) => bytes.length !== 1 << 20),
  )
  const { stdout } = await cidfs(['import', path, ...state])
  const failed = await cidfs(['export', stdout.trim(), '-o', join(dir, 'out.car'), ...state])
  t.match(failed, { status: EXIT.UNAVAILABLE, stdout: '', stderr: /^cidfs: block .* is not held here.*\n$/ })
  t.same(await readdir(dir), ['sample.car', 'state'])
})

t.test('a file that is no CAR, truncated, or not there is refused with one line', async t => {
  const dir = await tempDir(t)
  const state = ['--state', join(dir, 'state')]
  const bad = join(dir, 'bad.car')
  await writeFile(bad, 'this is not a CAR at all')
  t.match(await cidfs(['import', bad, ...state]), {
    status: EXIT.BAD_DATA,
    stdout: '',
    stderr: /^cidfs: .+\n$/,
  })
  const bytes = await readFile((await sampleCar(dir)).path)
  await writeFile(bad, bytes)
  await truncate(bad, bytes.length - 5)
  t.match(await cidfs(['import', bad, ...state]), {
    status: EXIT.BAD_DATA,
    stderr: /^cidfs: .*truncated.*\n$/,
  })
  bytes[bytes.length - 1] = bytes[bytes.length - 1]! ^ 1
  await writeFile(bad, bytes)
  t.match(await cidfs(['import', bad, ...state]), {
    status: EXIT.BAD_DATA,
    stderr: /^cidfs: .*match its hash.*\n$/,
  })
  t.match(await cidfs(['import', join(dir, 'none.car'), ...state]), {
    status: EXIT.FAILED,
    stderr: /^cidfs: .*none.car/,
  })
  t.match(await cidfs(['import', dir, ...state]), { status: EXIT.FAILED, stderr: /^cidfs: .*is a directory/ })
})

t.test('a bad CAR sent to a daemon is refused with the same line, and the daemon goes on', async t => {
  const mount = await Mount.start(t)
  const sent = await mount.cli(['import', '-', '--state', mount.stateDir], {
    input: Buffer.alloc(8 << 20, 1),
  })
  t.match(sent, { status: EXIT.BAD_DATA, stdout: '', stderr: /^cidfs: .*not a CAR.*\n$/ })
  const { path } = await sampleCar(await tempDir(t))
  t.match(await mount.cli(['import', path, '--state', mount.stateDir]), { status: 0 })
})
