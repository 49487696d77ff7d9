/** Real Kubos: read from over RPC and gateway, published to, gone and back. */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { PathCid, StatusReport } from '../../src/daemon/control-protocol.js'
import { waitFor, xattr } from '../mount/staged.js'
import { pattern } from '../support/dag.js'
import { KuboNode, missingKubo } from '../support/kubo.js'
import { Mount, type MountOptions } from '../support/mount.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'

t.setTimeout(110_000)
const skip = await missingKubo()
const MIB = 1024 * 1024

/** A Kubo whose RPC is found at the same address after a restart. */
async function kuboWithSocket(t: Test): Promise<{ kubo: KuboNode; address: string }> {
  const socket = join(await tempDir(t), 'rpc.sock')
  const kubo = await KuboNode.start(t, {
    profiles: ['unixfs-v1-2025'],
    config: { Addresses: { API: ['/ip4/127.0.0.1/tcp/0', `/unix${socket}`] } },
  })
  await kubo.ipfs(['pin', 'rm', ...(await kubo.pins())]) // an empty folder, from the start
  return { kubo, address: `unix:${socket}` }
}

async function published(mount: Mount, name: string): Promise<string> {
  await waitFor(mount, [mount.path('staging', name)])
  return (await mount.json<PathCid>(['cid', mount.path('staging', name)])).cid!
}

async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path)) hash.update(chunk)
  return hash.digest('hex')
}

/** A tree with links, a folder large enough to be sharded, and a large file in leaves of the old sort. */
async function makeContent(dir: string): Promise<{ tree: string; large: string }> {
  const [tree, large] = [join(dir, 'tree'), join(dir, 'large')]
  await mkdir(join(tree, 'many'), { recursive: true })
  await mkdir(join(tree, 'empty'))
  await symlink('file', join(tree, 'link'))
  await writeFile(join(tree, 'file'), pattern(3 * MIB + 1))
  await writeFile(join(tree, 'žluťoučký'), 'kůň\n')
  for (let i = 0; i < 2500; i++) {
    const name = createHash('sha256').update(`${i}`).digest('hex')
    await writeFile(join(tree, 'many', name), `${i}`)
  }
  await writeFile(large, pattern(32 * MIB, 7))
  return { tree, large }
}

const PB_LEAVES = ['--cid-version=0', '--raw-leaves=false', '--chunker=size-262144']

t.test('what a Kubo has is read from its RPC alone, and from its gateway alone', { skip }, async t => {
  const kubo = await KuboNode.start(t)
  const { tree, large } = await makeContent(await tempDir(t))
  const root = await kubo.add(tree)
  const file = await kubo.add(large, PB_LEAVES)
  const ways: [string, MountOptions][] = [
    ['rpc', { kubo: kubo.rpcUrl }],
    ['gateway', { gateways: [`${kubo.gatewayUrl}`] }],
  ]
  for (const [way, options] of ways) {
    const mount = await Mount.start(t, options)
    await mount.run('diff', ['-r', '--no-dereference', `ipfs/${root}`, tree], { timeoutMs: 60_000 })
    t.equal((await mount.run('readlink', [`ipfs/${root}/link`])).stdout.trim(), 'file', way)
    t.equal(await sha256(mount.path('ipfs', file)), await sha256(large), `${way}: a file of dag-pb leaves`)
    const { sources } = await mount.json<StatusReport>(['status', mount.dir])
    t.equal(sources.length, 1, `${way} is the only source`)
    t.ok(sources[0]!.blocks > 2500, `${way}: ${sources[0]!.blocks} blocks came from it`)
    t.match(await mount.cli(['cid', mount.path('ipfs', root, 'many')]), { status: 0, stdout: /^bafy|^Qm/ })
    await mount.stop()
  }
})

t.test('what is dropped into staging is pinned in a Kubo, and another one can read it', { skip }, async t => {
  const { kubo, address } = await kuboWithSocket(t)
  const other = await KuboNode.start(t)
  await other.connect(kubo)
  const mount = await Mount.start(t, { kubo: address })
  const data = pattern(5 * MIB + 11, 3)
  await writeFile(mount.path('staging', 'file'), data)
  await mount.run('sh', [
    '-c',
    'mkdir -p staging/dir/sub; echo nested > staging/dir/sub/f; ln -s sub/f staging/dir/l',
  ])
  const file = await published(mount, 'file')
  await waitFor(mount, [mount.path('staging', 'dir', 'sub', 'f')])
  const dir = await published(mount, 'dir')
  t.same((await kubo.pins()).sort(), [dir, file].sort())
  t.match((await kubo.ipfs(['pin', 'ls', '--names', file])).stdout, /file/, 'under its name')
  t.equal(Buffer.compare(await other.cat(`/ipfs/${file}`), data), 0)
  t.equal((await other.cat(`/ipfs/${dir}/sub/f`)).toString(), 'nested\n')
  t.equal((await other.ipfs(['ls', `/ipfs/${dir}`])).stdout.trim().split('\n').length, 2)

  await mount.run('sh', ['-c', 'echo new > staging/tmp; mv staging/tmp staging/file'])
  const renamed = await published(mount, 'file')
  await until('the old content is unpinned', async () => !(await kubo.pins()).includes(file))
  t.same((await kubo.pins()).sort(), [dir, renamed].sort(), 'renamed over')
  await mount.run('sh', ['-c', 'echo newer > staging/file; cp staging/file staging/twin'])
  const newer = await published(mount, 'file')
  await published(mount, 'twin')
  await until('the old content is unpinned', async () => !(await kubo.pins()).includes(renamed))
  await mount.run('rm', ['-r', 'staging/dir', 'staging/file'])
  await until('the folder is unpinned', async () => !(await kubo.pins()).includes(dir))
  t.same(await kubo.pins(), [newer], 'the twin needs it')
  await mount.run('rm', ['staging/twin'])
  await until('nothing is pinned', async () => (await kubo.pins()).length === 0)
})

t.test('a Kubo that is down loses nothing: what it missed comes when it is back', { skip }, async t => {
  const { kubo, address } = await kuboWithSocket(t)
  const mount = await Mount.start(t, { kubo: address })
  await mount.run('sh', ['-c', 'echo old > staging/changed; echo gone > staging/removed'])
  const [old, removed] = [await published(mount, 'changed'), await published(mount, 'removed')]
  t.same((await kubo.pins()).sort(), [old, removed].sort())
  await kubo.stop()

  await mount.run('sh', [
    '-c',
    'echo new > staging/changed; rm staging/removed; mkdir staging/d; echo x > staging/d/f',
  ])
  const failed = await mount.cli(['wait', mount.path('staging', 'changed')])
  t.match(failed, { status: 1, stderr: /staging\/changed: kubo: / })
  t.equal(await xattr(mount, 'staging/changed', 'user.ipfs.state'), 'failed')
  t.match(await xattr(mount, 'staging/changed', 'user.ipfs.error'), /^kubo: .*\(tried \d+ times\)$/)
  await until('the nested file says so as well', async () => {
    return (await xattr(mount, 'staging/d/f', 'user.ipfs.state')) === 'failed'
  })
  const { staging } = await mount.json<StatusReport>(['status', mount.dir])
  t.ok(staging.failed >= 2, `${staging.failed} failed`)
  t.match(staging.lastError, /^kubo: /)
  t.match(await mount.cli(['status', mount.dir]), { stdout: /failed \(last: kubo: / })
  const cid = await xattr(mount, 'staging/changed', 'user.ipfs.cid')
  t.equal((await mount.run('cat', [`ipfs/${cid}`])).stdout, 'new\n', 'published here all the same')

  await mount.stop()
  const again = await Mount.start(t, { kubo: address, stateDir: mount.stateDir })
  t.match(await again.cli(['wait', again.path('staging')]), { status: 1 }, 'a restart forgets nothing')
  await kubo.startDaemon()
  const dir = await until(
    'everything is pinned',
    async () => {
      const { status } = await again.cli(['wait', again.path('staging')])
      return status === 0 ? published(again, 'd') : undefined
    },
    60_000,
  )
  await until('what is gone is unpinned', async () => (await kubo.pins()).length === 2)
  t.same((await kubo.pins()).sort(), [cid, dir].sort())
})
