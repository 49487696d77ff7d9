/** The CIDs of what is staged are those of `ipfs add` and of the stock importer with the same profile. */
import { createHash } from 'node:crypto'
import { mkdir, readFile, symlink, truncate, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import type { PathCid } from '../../src/daemon/control-protocol.js'
import { pattern } from '../support/dag.js'
import { KuboNode, missingKubo } from '../support/kubo.js'
import { Mount } from '../support/mount.js'
import { tempDir } from '../support/temp.js'
import { imported } from '../unixfs/importer.js'
import { MemoryBlocks } from '../unixfs/support.js'
import { waitFor } from './staged.js'

t.setTimeout(110_000)

const MIB = 1024 * 1024
const SIZES = [0, 1, 65_536, 65_537, MIB - 1, MIB, MIB + 1, 2 * MIB, 8 * MIB - 1, 8 * MIB + 1]
const SHARDED_ENTRIES = 2500

type Files = Map<string, Uint8Array>

/** Files around every boundary of chunks and of what is handled as small, and names of every sort. */
function ordinaryFiles(): Files {
  const files: Files = new Map()
  for (const size of SIZES) files.set(`sizes/${size}`, pattern(size, size + 1))
  for (const name of [
    'žluťoučký kůň',
    '日本語.txt',
    '👩‍👩‍👧',
    ' leading',
    'a\nb',
    '-rf',
    'ZZ',
    'aa',
    '"quoted"',
  ]) {
    files.set(`names/${name}`, Buffer.from(name))
  }
  files.set('deep/a/b/c/d/e/f', Buffer.from('deep'))
  files.set('twin of sizes-1', pattern(1, 2))
  return files
}

/** A directory whose plain block would exceed the threshold of 256 KiB. */
function manyFiles(): Files {
  const name = (i: number): string => createHash('sha256').update(`${i}`).digest('hex')
  return new Map(Array.from({ length: SHARDED_ENTRIES }, (_, i) => [`many/${name(i)}`, Buffer.from(`${i}`)]))
}

async function write(dir: string, files: Files): Promise<void> {
  for (const [path, content] of files) {
    await mkdir(dirname(join(dir, path)), { recursive: true })
    await writeFile(join(dir, path), content)
  }
}

async function published(mount: Mount, ...names: string[]): Promise<string> {
  await waitFor(mount, [mount.path('staging', ...names)])
  return (await mount.json<PathCid>(['cid', mount.path('staging', ...names)])).cid!
}

async function importer(files: Files): Promise<string> {
  const source = [...files].map(([path, content]) => ({ path: `root/${path}`, content }))
  return `${(await imported(source, new MemoryBlocks())).cid}`
}

async function kubo(t: Test): Promise<KuboNode> {
  return KuboNode.init(t, { profiles: ['unixfs-v1-2025'] })
}

t.test('a tree of every sort', { skip: await missingKubo() }, async t => {
  const mount = await Mount.start(t)
  const node = await kubo(t)
  const local = join(await tempDir(t), 'root')
  const files = ordinaryFiles()
  await write(local, files)
  await mount.run('cp', ['-r', local, 'staging/root'])
  const plain = await published(mount, 'root')
  t.equal(plain, await importer(files), 'the importer')
  t.equal(plain, await node.add(local, ['--only-hash']), 'ipfs add')

  await mkdir(join(local, 'empty'))
  await symlink('../sizes/1', join(local, 'deep/link'))
  await symlink('nowhere/ž', join(local, 'dangling'))
  await mount.run('rsync', ['-a', `${local}/`, 'staging/root'])
  t.equal(
    await published(mount, 'root'),
    await node.add(local, ['--only-hash']),
    'with links and empty folders',
  )
  for (const size of SIZES) {
    const content = files.get(`sizes/${size}`)!
    const alone = await published(mount, 'root', 'sizes', `${size}`)
    t.equal(alone, `${(await imported([{ content }], new MemoryBlocks())).cid}`, `${size} bytes`)
    const found = await readFile(mount.path('ipfs', alone))
    t.equal(Buffer.compare(found, content), 0, `${size} bytes are read back`)
  }
})

t.test('a directory above the threshold is sharded, and one below it again is not', async t => {
  const mount = await Mount.start(t)
  const files = manyFiles()
  await write(mount.path('staging'), files)
  const cid = await published(mount, 'many')
  t.equal(cid, await directoryOf(files))
  t.equal((await mount.run('sh', ['-c', `ls ipfs/${cid} | wc -l`])).stdout.trim(), `${SHARDED_ENTRIES}`)
  await mount.run('diff', ['-r', `ipfs/${cid}`, 'staging/many'])
  const kept = new Map([...files].slice(0, 1000))
  const gone = [...files.keys()].slice(1000)
  await mount.run('xargs', ['-d', '\n', 'rm'], { cwd: mount.path('staging'), input: gone.join('\n') })
  t.equal(await published(mount, 'many'), await directoryOf(kept))
})

/** Of the one folder that all of the files are in. */
async function directoryOf(files: Files): Promise<string> {
  const source = [...files].map(([path, content]) => ({ path, content }))
  return `${(await imported(source, new MemoryBlocks())).cid}`
}

t.test('the same directory as ipfs add makes it', { skip: await missingKubo() }, async t => {
  const mount = await Mount.start(t)
  const node = await kubo(t)
  const local = await tempDir(t)
  await write(local, manyFiles())
  await mount.run('cp', ['-r', join(local, 'many'), 'staging/many'])
  t.equal(await published(mount, 'many'), await node.add(join(local, 'many'), ['--only-hash']))
})

/** As `ipfs add --only-hash` with the profile says of that many zeros. */
const ZEROS: [number, string][] = [
  [1024 * MIB, 'bafybeibqawkaltgjfdebq4no6nmfcvkcw7k52xqzclkwfmrkn6oxw7srmy'],
  [1024 * MIB + 1, 'bafybeigx4uyebjbq65346xh6cjrt6yshbdudzudhnqecwbzvymslxj7gje'],
]

t.test('files at the limit of one node of 1024 links', async t => {
  const mount = await Mount.start(t)
  for (const [size, cid] of ZEROS) {
    await writeFile(mount.path('staging', `${size}`), '')
    await truncate(mount.path('staging', `${size}`), size)
    t.equal(await published(mount, `${size}`), cid, `${size} zeros`)
  }
  const last = await mount.run('tail', ['-c', '3', `ipfs/${ZEROS[1]![1]}`])
  t.same([...last.bytes], [0, 0, 0])
})
