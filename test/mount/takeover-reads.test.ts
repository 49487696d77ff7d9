/** Reads that wait for the network when the daemon dies. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { open, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { EXIT } from '../../src/cli/exit-codes.js'
import { Dag, pattern, sha256 } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { KeptMount, type KeptMountOptions } from '../support/kept-mount.js'
import { runOk } from '../support/run.js'
import { until } from '../support/until.js'

t.setTimeout(60_000)

async function setup(t: Test, options: KeptMountOptions) {
  const mount = await KeptMount.start(t, options)
  const crash = async () => mount.served((await mount.kill()) ?? 0)
  return { mount, crash }
}

/** Changes a byte of the block in whichever pack holds it. */
async function damagePacks(stateDir: string, block: Uint8Array): Promise<void> {
  const dir = join(stateDir, 'packs')
  for (const name of await readdir(dir)) {
    const at = (await readFile(join(dir, name))).indexOf(block.subarray(0, 64))
    if (at < 0) continue
    const file = await open(join(dir, name), 'r+')
    await file.write(Buffer.of(0xff ^ block[10]!), 0, 1, at + 10)
    await file.close()
    return
  }
  throw new Error('no pack holds the block')
}

t.test('a read that waits for the network is answered by the next daemon', async t => {
  const gateway = await TestGateway.start(t)
  const bytes = pattern(100_000)
  const cid = new Dag(gateway).raw(bytes)
  let hang = true
  gateway.fault = () => ({ hang })
  const { mount, crash } = await setup(t, { gateways: [gateway.url] })
  const reading = runOk('cat', [mount.path('ipfs', `${cid}`)])
  await until('the block was asked for', () => gateway.count(cid) > 0)
  hang = false
  await crash()
  t.equal(sha256((await reading).bytes), sha256(bytes))
})

t.test('a read that comes again can still be interrupted', async t => {
  const gateway = await TestGateway.start(t)
  const cid = new Dag(gateway).raw(pattern(1000))
  gateway.fault = () => ({ hang: true })
  const { mount, crash } = await setup(t, { gateways: [gateway.url] })
  const reader = spawn('cat', [mount.path('ipfs', `${cid}`)])
  const ended = once(reader, 'exit')
  await until('the block was asked for', () => gateway.count(cid) > 0)
  await crash()
  await until('and again', () => gateway.count(cid) > 1)
  reader.kill('SIGINT')
  t.same(await ended, [null, 'SIGINT'])
})

t.test('a daemon that cannot even die is succeeded: a thread of it waits for its own answer', async t => {
  const gateway = await TestGateway.start(t)
  const dag = new Dag(gateway)
  const [held, missing] = [pattern(200_000, 1), pattern(256 * 1024, 2)]
  const [bad, leaf] = [dag.raw(held), dag.raw(missing)]
  // opened as soon as its root is here: what waits then is a read, which has pages locked
  const { cid: file } = dag.file([
    { cid: leaf, sizeBytes: missing.length },
    { cid: leaf, sizeBytes: missing.length },
  ])
  const { mount, crash } = await setup(t, { gateways: [gateway.url] })
  await runOk('cat', [mount.path('ipfs', `${bad}`)])
  await damagePacks(mount.stateDir, held)
  gateway.fault = wanted => (wanted.equals(leaf) ? { hang: true } : undefined)
  const reading = runOk('cat', [mount.path('ipfs', `${file}`)])
  await until('the block was asked for', () => gateway.count(leaf) > 0)
  // it forgets the bad block, and with that all pages: those that are being read, too
  t.match(await mount.cli(['fsck', '--state', mount.stateDir, '--repair']), { status: EXIT.BAD_DATA })
  gateway.fault = () => undefined
  await crash()
  t.equal(sha256((await reading).bytes), sha256(Buffer.concat([missing, missing])))
})
