/** What is fetched for what is read: as little as it takes, once, and in good time. */
import t, { type Test } from 'tap'
import { Dag, pattern, sha256 } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { Mount } from '../support/mount.js'
import { isNative } from '../support/transport.js'
import { until } from '../support/until.js'
import { ask, askOne } from './ask.js'
import { manyChildren } from './tree.js'

t.setTimeout(110_000)

const MIB = 1024 * 1024

async function served(t: Test, args: string[] = []) {
  const gateway = await TestGateway.start(t)
  const mount = await Mount.start(t, { gateways: [gateway.url], args })
  return { gateway, mount, dag: new Dag(gateway) }
}

t.test('eight readers of one file cause one fetch per block', async t => {
  const { gateway, mount, dag } = await served(t)
  gateway.fault = () => ({ delayMs: 30 })
  const content = pattern(12 * MIB + 5)
  const file = await dag.import([{ content }])
  const readers = Array.from({ length: 8 }, () => mount.run('sha256sum', [`ipfs/${file}`]))
  for (const { stdout } of await Promise.all(readers)) t.match(stdout, sha256(content))
  t.same(
    dag.cids.filter(cid => gateway.count(cid) !== 1).map(cid => `${cid}: ${gateway.count(cid)}`),
    [],
  )
})

t.test('one byte in the middle of a large file fetches the blocks above it, and no other', async t => {
  const { gateway, mount, dag } = await served(t)
  const content = pattern(20 * MIB)
  const file = await dag.import([{ content }])
  const offset = 10 * MIB + 4321
  const args = ['bs=1', 'count=1', `skip=${offset}`, 'iflag=skip_bytes', 'status=none']
  const { bytes } = await mount.run('dd', [`if=ipfs/${file}`, ...args])
  t.same([...bytes], [content[offset]])
  // the kernel reads ahead, which may reach into the next leaf
  t.ok(gateway.requests.length <= 3, `${gateway.requests.length} requests`)
})

t.test('random reads fetch no more than what the kernel asks for', async t => {
  const { gateway, mount, dag } = await served(t)
  const file = await dag.import([{ content: pattern(32 * MIB, 3) }])
  const offsets = [3, 9, 15, 21, 27].map(mib => mib * MIB + 100_000)
  await ask(
    offsets.map(offset => ({ op: 'read', path: mount.path('ipfs', `${file}`), offset, length: 5000 })),
  )
  t.ok(gateway.requests.length <= 1 + 2 * offsets.length, `${gateway.requests.length} requests`)
})

t.test('listing a directory fetches no children', async t => {
  const { gateway, mount, dag } = await served(t)
  const dir = manyChildren(dag, 60)
  const listed = await askOne({ op: 'list', path: mount.path('ipfs', `${dir}`) })
  t.equal(listed.names?.length, 60)
  await mount.run('ls', [`ipfs/${dir}`])
  t.same(gateway.requests, [`${dir}`])
})

t.test('ls -l of many children asks for them in batches', async t => {
  const { gateway, mount, dag } = await served(t)
  const delayMs = 20
  gateway.fault = () => ({ delayMs })
  const dir = manyChildren(dag, 500)
  const start = performance.now()
  const { stdout } = await mount.run('ls', ['-l', `ipfs/${dir}`])
  const elapsedMs = performance.now() - start
  t.equal(stdout.trim().split('\n').length, 501)
  t.ok(elapsedMs < (500 * delayMs) / 4, `${Math.round(elapsedMs)} ms, one by one would be ${500 * delayMs}`)
  t.ok(gateway.maxActive >= 8, `${gateway.maxActive} at a time`)
})

t.test('a sequential cold read is far ahead of the reader', async t => {
  const { gateway, mount, dag } = await served(t)
  const delayMs = 100
  gateway.fault = () => ({ delayMs })
  const content = pattern(64 * MIB, 5)
  const file = await dag.import([{ content }])
  const start = performance.now()
  const { stdout } = await mount.run('sh', ['-c', `cat ipfs/${file} | sha256sum`])
  const elapsedMs = performance.now() - start
  t.match(stdout, sha256(content))
  const serialMs = dag.cids.length * delayMs
  t.ok(gateway.maxActive >= 8, `${gateway.maxActive} at a time`)
  // over fuse-native the processor is what takes time
  t.ok(
    elapsedMs < serialMs / (isNative ? 3 : 1.2),
    `${Math.round(elapsedMs)} ms; the delays alone are ${serialMs}`,
  )
  t.equal(gateway.requests.length, dag.cids.length, 'nothing twice')
})

t.test('a read-ahead crosses the nodes of a deep file', async t => {
  const { gateway, mount, dag } = await served(t)
  gateway.fault = () => ({ delayMs: 30 })
  const { fixedSize } = await import('ipfs-unixfs-importer/chunker')
  const { balanced } = await import('ipfs-unixfs-importer/layout')
  const content = pattern(16 * MIB, 6)
  const file = await dag.import([{ content }], {
    chunker: fixedSize({ chunkSize: 64 * 1024 }),
    layout: balanced({ maxChildrenPerNode: 16 }),
  })
  const start = performance.now()
  const { stdout } = await mount.run('sha256sum', [`ipfs/${file}`])
  const elapsedMs = performance.now() - start
  t.match(stdout, sha256(content))
  t.ok(gateway.maxActive >= 8, `${gateway.maxActive} at a time`)
  t.ok(
    elapsedMs < (dag.cids.length * 30) / (isNative ? 4 : 1.2),
    `${Math.round(elapsedMs)} ms for ${dag.cids.length} blocks`,
  )
})

t.test('ls ipfs/ names what is pinned or held completely, and asks nobody', async t => {
  const { gateway, mount, dag } = await served(t)
  const whole = await dag.import([{ content: pattern(3 * MIB, 7) }])
  const part = await dag.import([{ content: pattern(3 * MIB, 8) }])
  const staged = mount.path('staging', 'pinned')
  await mount.run('sh', [
    '-c',
    `cat ipfs/${whole} > /dev/null; head -c 10 ipfs/${part}; echo pinned > staging/pinned`,
  ])
  await mount.cli(['wait', staged])
  const pinned = (await mount.cli(['cid', staged])).stdout.trim()
  const before = gateway.requests.length
  const names = await listing(mount, names => names.includes(`${whole}`) && names.includes(pinned))
  t.notOk(names.includes(`${part}`), 'what is held in part is not listed')
  t.equal(gateway.requests.length, before, 'nobody was asked')
})

/** `ls ipfs/`, once it is as expected: what is held is found in the background. */
function listing(mount: Mount, done: (names: string[]) => boolean): Promise<string[]> {
  return until('ls ipfs/ names them', async () => {
    const names = (await mount.run('ls', ['ipfs'])).stdout.trim().split('\n')
    return done(names) && names
  })
}
