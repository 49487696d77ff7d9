/** The programs people use, on a tree that is also on the local disk: they must not see a difference. */
import { randomInt } from 'node:crypto'
import { readFile, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { parseCid } from '../../src/core/cid.js'
import { Dag, link } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { Mount } from '../support/mount.js'
import { type RunResult, run, runOk } from '../support/run.js'
import { tempDir } from '../support/temp.js'
import { makeTree, sampleFiles } from './tree.js'

t.setTimeout(110_000)

const gateway = await TestGateway.start(t)
const mount = await Mount.start(t, { gateways: [gateway.url] })
const dag = new Dag(gateway)
const local = await tempDir(t)
const tree = await makeTree(dag, local)
await symlink('sizes/4096', join(local, 'link'))
await symlink('nowhere', join(local, 'dangling'))
const target = (text: string) => dag.node({ type: 'symlink', data: Buffer.from(text) })
const here = `ipfs/${await withLinks()}`

/** The tree with two symbolic links in its root, which the importer cannot make. */
async function withLinks() {
  const children = await runOk('ls', ['-A', mount.path('ipfs', `${tree}`)])
  const names = children.stdout.trim().split('\n')
  const cids = await Promise.all(
    names.map(name => mount.json<{ cid: string }>(['cid', mount.path('ipfs', `${tree}`, name)])),
  )
  const entries = names.map((name, i) => link(parseCid(cids[i]!.cid), name, 1))
  return dag.directory([...entries, link(target('sizes/4096'), 'link'), link(target('nowhere'), 'dangling')])
}

/**
 * Runs a shell script in a directory. It changes there by itself: starting a process in a directory that has to be
 * fetched would wait for the gateway in this very process.
 */
async function inDir(dir: string, script: string): Promise<RunResult> {
  return await run('sh', ['-c', `cd "$0" && ${script}`, dir], { env: { ...process.env, LC_ALL: 'C.UTF-8' } })
}

/** Output of a script in the mounted tree and in the local one. */
async function both(script: string): Promise<[string, string]> {
  const [mounted, plain] = [await inDir(mount.path(here), script), await inDir(local, script)]
  for (const { status, stderr } of [mounted, plain]) if (status !== 0) throw new Error(`${script}: ${stderr}`)
  return [mounted.stdout, plain.stdout]
}

t.test('find, ls -R, du and stat see the same names, types and sizes', async t => {
  const format = '%p %y %l\\n'
  const [found, expected] = await both(`find . -printf '${format}' | sort`)
  t.equal(found, expected, 'find')
  const [files, plainFiles] = await both("find . -type f -printf '%p %s\\n' | sort")
  t.equal(files, plainFiles, 'sizes')
  const [listed, plainListed] = await both('ls -AR')
  t.equal(listed, plainListed, 'ls -R')
  const { stdout } = await mount.run('ls', ['-lR', here])
  t.match(stdout, / 3500000 /)
  const [apparent, plainApparent] = await both('find . -type f -print0 | du -cb --files0-from=- | tail -1')
  t.equal(apparent, plainApparent, 'du -b')
})

t.test('ls -i and stat agree on inode numbers, listed or not', async t => {
  const { stdout: listed } = await inDir(mount.path(here, 'sizes'), 'ls -Ui | sort -k2')
  const { stdout: asked } = await inDir(mount.path(here, 'sizes'), "stat -c '%i %n' * | sort -k2")
  const words = (text: string) => text.trim().split(/\s+/)
  t.same(words(listed), words(asked))
})

t.test('cat, sha256sum and diff -r read the same bytes', async t => {
  const [cat, plainCat] = await both('find . -type f -print0 | sort -z | xargs -0 cat | sha256sum')
  t.equal(cat, plainCat)
  const [sums, plainSums] = await both('find . -type f -print0 | sort -z | xargs -0 sha256sum --')
  t.equal(sums, plainSums)
  const { stdout } = await mount.run('diff', ['-r', '--no-dereference', here, local])
  t.equal(stdout, '')
})

t.test('cp -r, tar and rsync -a copy the tree whole', async t => {
  const copies = await tempDir(t)
  await mount.run('cp', ['-r', here, join(copies, 'cp')])
  await mount.run('sh', [
    '-c',
    'mkdir "$1" && tar cf - -C "$0" . | tar xf - -C "$1"',
    here,
    join(copies, 'tar'),
  ])
  await mount.run('rsync', ['-a', `${here}/`, join(copies, 'rsync')])
  for (const copy of ['cp', 'tar', 'rsync']) {
    const { stdout } = await runOk('diff', ['-r', '--no-dereference', join(copies, copy), local])
    t.equal(stdout, '', copy)
    await runOk('chmod', ['-R', 'u+w', join(copies, copy)]) // directories are 0555 here, as there
  }
  const { stdout } = await mount.run('rsync', ['-ain', '--checksum', `${here}/`, join(copies, 'rsync')])
  t.equal(stdout.replaceAll(/^\..*\n/gm, ''), '', 'a second rsync would transfer nothing')
})

t.test('grep -r finds what is there', async t => {
  const [found, expected] = await both('grep -rl needle . ; grep -rc "file 123:" many | sort')
  t.equal(found, expected)
  t.match(found, 'kůň')
})

t.test('dd reads any range, buffered and direct', async t => {
  const content = await readFile(join(local, 'sizes', '3500000'))
  const file = `${here}/sizes/3500000`
  for (let i = 0; i < 20; i++) {
    const [offset, length] = [randomInt(content.length), randomInt(1, 300_000)]
    const flags = ['skip_bytes,count_bytes', ...(i % 2 === 0 ? ['direct'] : [])].join(',')
    const args = [
      `if=${file}`,
      'bs=64K',
      `skip=${offset}`,
      `count=${length}`,
      `iflag=${flags}`,
      'status=none',
    ]
    const { bytes } = await mount.run('dd', args)
    t.ok(bytes.equals(content.subarray(offset, offset + length)), `${length} bytes at ${offset} (${flags})`)
  }
})

const PYTHON = `
import json, mmap, os, sys
root = sys.argv[1]
walked = sorted(os.path.relpath(os.path.join(d, f), root) for d, _, fs in os.walk(root) for f in fs)
big = os.path.join(root, 'sizes', '3500000')
with open(big, 'rb') as f:
    f.seek(-10, os.SEEK_END); tail = f.read()
    f.seek(1_048_570); middle = f.read(12)
    position = f.tell()
    with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m: mapped = m[1_048_570:1_048_582]; size = len(m)
with open(os.path.join(root, 'žluťoučký kůň')) as f: lines = f.readlines()
kinds = sorted((e.name, e.is_dir(follow_symlinks=False), e.is_symlink()) for e in os.scandir(root))
attributes = os.listxattr(big)
print(json.dumps(dict(walked=walked, tail=tail.hex(), middle=middle.hex(), position=position, mapped=mapped.hex(),
    size=size, lines=lines, kinds=kinds, attributes=attributes, cid=os.getxattr(big, 'user.ipfs.cid').decode(),
    access=[os.access(big, os.R_OK), os.path.exists(os.path.join(root, 'absent'))])))
`

t.test('Python opens, seeks, maps, walks and reads attributes', async t => {
  const { stdout } = await mount.run('python3', ['-c', PYTHON, here])
  const content = Buffer.from(sampleFiles().get('sizes/3500000')!)
  const found = JSON.parse(stdout)
  t.same(found.walked, [...sampleFiles().keys(), 'dangling', 'link'].sort(byCodePoint))
  t.equal(found.tail, content.subarray(-10).toString('hex'))
  t.equal(found.middle, content.subarray(1_048_570, 1_048_582).toString('hex'))
  t.equal(found.mapped, found.middle)
  t.equal(found.position, 1_048_582)
  t.equal(found.size, content.length)
  t.same(found.lines, ['needle in a haystack\n'])
  t.same(
    found.kinds.map(([name]: [string]) => name),
    ['-rf', 'dangling', 'link', 'many', 'sizes', 'žluťoučký kůň'],
  )
  t.same(found.access, [true, false])
  t.ok(found.attributes.includes('user.ipfs.cid'))
  t.match(found.cid, /^bafy/)
})

function byCodePoint(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}

t.test('nothing can be changed: every attempt says that the file system is read-only', async t => {
  const attempts = [
    'echo x > new',
    'echo x >> -rf',
    'rm -f -- -rf',
    'mkdir d',
    'mv link other',
    'ln -s a b',
    'touch ./-rf',
    'chmod 777 ./-rf',
  ]
  for (const script of attempts) {
    const { status, stderr } = await inDir(mount.path(here), script)
    t.not(status, 0, script)
    t.match(stderr, /[Rr]ead-only file system/, script)
  }
})
