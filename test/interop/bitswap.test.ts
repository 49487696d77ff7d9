/** Real Kubos as neighbours, over bitswap alone: read from, served, killed in the middle. */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { PathCid, StatusReport } from '../../src/daemon/control-protocol.js'
import { waitFor } from '../mount/staged.js'
import { pattern } from '../support/dag.js'
import { KuboNode, missingKubo } from '../support/kubo.js'
import { Mount } from '../support/mount.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'

t.setTimeout(110_000)
const skip = await missingKubo()
const MIB = 1024 * 1024
const LARGE_BYTES = 256 * MIB

async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path)) hash.update(chunk)
  return hash.digest('hex')
}

/** Mounted with these neighbours and nobody else. */
async function mountWith(t: Test, kubos: KuboNode[]): Promise<Mount> {
  const addresses = (await Promise.all(kubos.map(kubo => kubo.addresses()))).map(([address]) => address!)
  const mount = await Mount.start(t, { args: addresses.flatMap(address => ['--peer', address]) })
  return mount
}

async function fromPeers(mount: Mount): Promise<StatusReport['sources'][number]> {
  const { sources } = await mount.json<StatusReport>(['status', mount.dir])
  if (sources.length !== 1 || sources[0]!.kind !== 'peer') throw new Error(JSON.stringify(sources))
  return sources[0]!
}

/** What each connected neighbour has sent, the busiest first. */
async function blocksByPeer(mount: Mount): Promise<{ peerId: string; blocks: number }[]> {
  const { node } = await mount.json<StatusReport>(['status', mount.dir])
  return (node?.bitswap?.peers ?? []).sort((a, b) => b.blocks - a.blocks)
}

/** Two of three neighbours, both of which are being read from, with much left to read. */
async function killBusiest(t: Test, mount: Mount, kubos: KuboNode[]): Promise<void> {
  const peers = (await blocksByPeer(mount)).slice(0, 2)
  t.equal(peers.length, 2)
  t.ok(
    peers.every(({ blocks }) => blocks > 0),
    'they share the work',
  )
  const ids = await Promise.all(kubos.map(kubo => kubo.peerId()))
  const busiest = kubos.filter((_, i) => peers.some(({ peerId }) => peerId === ids[i]))
  t.equal(busiest.length, 2)
  for (const { pid } of busiest) process.kill(pid, 'SIGKILL')
  const { bytes } = await fromPeers(mount)
  t.ok(bytes < 72 * MIB, `${Math.round(bytes / MIB)} MiB had come`)
}

/** A tree with links, and a folder large enough to be sharded. */
async function makeTree(dir: string): Promise<string> {
  const tree = join(dir, 'tree')
  await mkdir(join(tree, 'many'), { recursive: true })
  await mkdir(join(tree, 'empty'))
  await symlink('file', join(tree, 'link'))
  await writeFile(join(tree, 'file'), pattern(3 * MIB + 1))
  await writeFile(join(tree, 'žluťoučký'), 'kůň\n')
  for (let i = 0; i < 2500; i++) {
    await writeFile(join(tree, 'many', createHash('sha256').update(`${i}`).digest('hex')), `${i}`)
  }
  return tree
}

/** Random content, written in pieces. */
async function makeFile(path: string, sizeBytes: number): Promise<void> {
  const file = await open(path, 'w')
  for (let at = 0; at < sizeBytes; at += 8 * MIB) await file.write(pattern(8 * MIB, at + 1))
  await file.close()
}

t.test(
  'a tree, a sharded folder and a file of dag-pb leaves are read from a Kubo by bitswap alone',
  { skip },
  async t => {
    const kubo = await KuboNode.start(t)
    const dir = await tempDir(t)
    const tree = await makeTree(dir)
    await makeFile(join(dir, 'leaves'), 32 * MIB)
    const root = await kubo.add(tree)
    const leaves = await kubo.add(join(dir, 'leaves'), [
      '--cid-version=0',
      '--raw-leaves=false',
      '--chunker=size-262144',
    ])
    const mount = await mountWith(t, [kubo])
    await mount.run('diff', ['-r', '--no-dereference', `ipfs/${root}`, tree], { timeoutMs: 60_000 })
    t.equal(await sha256(mount.path('ipfs', leaves)), await sha256(join(dir, 'leaves')), 'dag-pb leaves')
    const { blocks, errors, lastError } = await fromPeers(mount)
    t.ok(blocks > 2500, `${blocks} blocks came from it`)
    t.equal(errors, 0, `${lastError}`)
  },
)

t.test('256 MiB are read from a Kubo by bitswap alone', { skip }, async t => {
  const kubo = await KuboNode.start(t, { profiles: ['unixfs-v1-2025'] })
  const file = join(await tempDir(t), 'large')
  await makeFile(file, LARGE_BYTES)
  const cid = await kubo.add(file)
  const mount = await mountWith(t, [kubo])
  const begin = performance.now()
  t.equal(await sha256(mount.path('ipfs', cid)), await sha256(file))
  t.comment(`${Math.round(performance.now() - begin)} ms, hashing both`)
  const { bytes, errors, lastError } = await fromPeers(mount)
  t.ok(bytes >= LARGE_BYTES)
  t.equal(errors, 0, `${lastError}`)
})

t.test('what is dropped into staging is read by a Kubo, by bitswap alone', { skip }, async t => {
  const kubo = await KuboNode.start(t)
  const mount = await Mount.start(t, {
    args: ['--listen', '/ip4/127.0.0.1/tcp/0', '--peer', (await kubo.addresses())[0]!],
  })
  const data = pattern(20 * MIB + 11, 3)
  await writeFile(mount.path('staging', 'large'), data)
  await mount.run('sh', [
    '-c',
    'mkdir -p staging/dir/sub; echo nested > staging/dir/sub/f; ln -s sub/f staging/dir/l',
  ])
  const published = async (name: string): Promise<string> => {
    await waitFor(mount, [mount.path('staging', name)])
    return (await mount.json<PathCid>(['cid', mount.path('staging', name)])).cid!
  }
  const [large, dir] = [await published('large'), await published('dir')]
  t.equal(Buffer.compare(await kubo.cat(`/ipfs/${large}`), data), 0)
  t.equal((await kubo.cat(`/ipfs/${dir}/sub/f`)).toString(), 'nested\n')
  t.equal((await kubo.ipfs(['ls', `/ipfs/${dir}`])).stdout.trim().split('\n').length, 2)

  const wanted = kubo.cat(
    `/ipfs/${await kubo.ipfs(['add', '-Q', '--only-hash', '--cid-version=1'], { input: 'later' }).then(({ stdout }) => stdout.trim())}`,
  )
  await writeFile(mount.path('staging', 'later'), 'later')
  t.equal((await wanted).toString(), 'later', 'what it asked for before it was here, it gets when it comes')
})

t.test(
  'three neighbours hold a file: two are killed in the middle of a read, and the bytes arrive',
  { skip },
  async t => {
    const file = join(await tempDir(t), 'file')
    await makeFile(file, 80 * MIB)
    const kubos: KuboNode[] = []
    let cid = ''
    for (let i = 0; i < 3; i++) {
      const kubo = await KuboNode.start(t, { profiles: ['unixfs-v1-2025'] })
      cid = await kubo.add(file)
      kubos.push(kubo)
    }
    const mount = await mountWith(t, kubos)
    await until('all are connected', async () => {
      const { node } = await mount.json<StatusReport>(['status', mount.dir])
      return node?.peers.filter(peer => peer.bitswap).length === 3
    })
    const hash = createHash('sha256')
    let read = 0
    for await (const chunk of createReadStream(mount.path('ipfs', cid))) {
      hash.update(chunk)
      if (read < 4 * MIB && (read += chunk.length) >= 4 * MIB) await killBusiest(t, mount, kubos)
    }
    t.equal(hash.digest('hex'), await sha256(file))
    await until('one is left', async () => (await blocksByPeer(mount)).length === 1)
  },
)
