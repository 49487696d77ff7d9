/**
 * What the transports do differently: executes the table "Transports" of docs/SEMANTICS.md over both.
 *
 * A row that has no command is a test here, of the same name: over the native transport it shows what should be, over
 * fuse-native what is instead.
 */
import { readFile } from 'node:fs/promises'
import { constants } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { FileSystem } from '../../src/fs/file-system.js'
import type { Session } from '../../src/fs/session.js'
import { FuseSession } from '../../src/fuse/session.js'
import { FuseNativeSession } from '../../src/fuse-native/session.js'
import { ended, sh, start, temporaryDirectory } from '../fuse/fixture.js'
import { MemoryFileSystem } from '../fuse/memory-file-system.js'
import { Dag, pattern } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { Mount } from '../support/mount.js'
import { mainFile, packageRoot } from '../support/root.js'
import { run } from '../support/run.js'
import type { Transport } from '../support/transport.js'
import { until } from '../support/until.js'

t.setTimeout(90_000)

const TRANSPORTS: readonly Transport[] = ['native', 'fuse-native']

interface Row {
  what: string
  /** Empty: a test of that name. */
  command: string
  /** By transport: what is printed, the name of an error, or undefined where it depends on the machine. */
  expected: Record<Transport, string | undefined>
}

/** Rows of four columns below the heading "Transports". */
function rowsOf(markdown: string): Row[] {
  const [, section = ''] = markdown.split('## Transports')
  const rows = section.split('\n').map(line => line.split(/(?<!\\)\|/).map(cell => cell.trim()))
  return rows.filter(isRow).map(([, what, command, native, other]) => ({
    what: what!,
    command: (/^`(.*)`$/.exec(command!)?.[1] ?? '').replaceAll('\\|', '|'),
    expected: { native: resultOf(native!), 'fuse-native': resultOf(other!) },
  }))
}

function isRow(cells: string[]): boolean {
  return cells.length === 6 && cells[1] !== 'what' && !cells[1]!.startsWith('---')
}

function resultOf(cell: string): string | undefined {
  if (cell === '``') return ''
  return /^`(.*)`$/.exec(cell)?.[1] ?? /^E[A-Z]+$/.exec(cell)?.[0]
}

const rows = rowsOf(await readFile(join(packageRoot, 'docs', 'SEMANTICS.md'), 'utf8'))
const tests = new Set<string>()

/** What tools print for an errno. */
async function strerror(name: string): Promise<string> {
  const errno = constants.errno[name as keyof typeof constants.errno]
  return (await run('python3', ['-c', `import os; print(os.strerror(${errno}))`])).stdout.trim()
}

/** `during OP command…` in scripts: how many requests of that kind the command made. */
const PRELUDE = `
cidfs() { node "$MAIN" "$@"; }
count() { cidfs status --state "$STATE" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["fuse"]["operations"].get(sys.argv[1], 0))' $1; }
during() { local op=$1 before=$(count $1); shift; "$@" > /dev/null; echo $(($(count $op) - before)); }
`

async function publish(mount: Mount, name: string): Promise<string> {
  await mount.cli(['wait', mount.path('staging', name)])
  return (await mount.json<{ cid: string }>(['cid', mount.path('staging', name)])).cid
}

async function environment(mount: Mount): Promise<Record<string, string>> {
  await mount.run('sh', [
    '-c',
    `mkdir staging/many staging/dir; for i in $(seq 100); do echo $i > staging/many/$i; done
    echo hello | tee staging/hello > staging/dir/a; head -c 4194304 /dev/urandom > staging/big`,
  ])
  return {
    ...{ MAIN: mainFile, STATE: mount.stateDir },
    FILE: await publish(mount, 'hello'),
    DIR: await publish(mount, 'dir'),
    MANY: await publish(mount, 'many'),
    BIG: await publish(mount, 'big'),
  }
}

for (const transport of TRANSPORTS) {
  t.test(`the rows of the table hold over ${transport}`, async t => {
    const mount = await Mount.start(t, { transport, args: ['--passthrough', 'off', '--allow-other'] })
    const env = { ...process.env, ...(await environment(mount)) }
    for (const { what, command, expected } of rows.filter(row => row.command !== '')) {
      const result = expected[transport]
      if (result === undefined) continue
      const done = await mount.run('bash', ['-c', `${PRELUDE}\n{ ${command}\n} || true`], { env })
      if (!/^E[A-Z]+$/.test(result)) t.equal(done.stdout.trim(), result, `${what}: ${done.stderr}`)
      else t.match(done.stderr, await strerror(result), what)
    }
    const { stdout } = await mount.cli(['status', mount.dir])
    t.equal(stdout.includes('fuse-native'), transport === 'fuse-native', 'status tells which one it is')
  })
}

/** A row without a command, over each transport. */
function differs(start: string, test: (t: Test, transport: Transport) => Promise<void>): void {
  tests.add(start)
  for (const transport of TRANSPORTS) t.test(`${start}: ${transport}`, t => test(t, transport))
}

async function mounted(
  t: Test,
  transport: Transport,
  fs: FileSystem,
): Promise<{ dir: string; session: Session }> {
  const dir = temporaryDirectory(t)
  const session = await (transport === 'native' ? FuseSession : FuseNativeSession).mount(dir, fs)
  t.teardown(async () => {
    await session.unmount({ lazyAfterMs: 500 })
    await session.closed
  })
  return { dir, session }
}

/** A program that holds a file open, and says what is in it whenever it gets a line. */
const READER = `
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
for _ in sys.stdin: print(os.pread(fd, 100, 0).decode(), flush=True)`

differs('notifications', async (t, transport) => {
  const fs = new MemoryFileSystem({ ttlMs: 60_000 })
  const ino = fs.addFile('f', Buffer.from('before'))
  const { dir } = await mounted(t, transport, fs)
  const reader = start('python3', ['-c', READER, `${dir}/f`])
  const result = ended(reader)
  let said = ''
  reader.stdout!.on('data', text => {
    said += text
  })
  reader.stdin!.write('\n')
  await until('it was read', () => said.includes('before\n'))
  fs.nodes.get(ino)!.data = Buffer.from('AFTER!')
  fs.notifier!.invalidateInode(ino, 0, 0)
  const seen = async () => {
    said = ''
    reader.stdin!.write('\n')
    return await until('it was read again', () => (said.endsWith('\n') ? said.trim() : undefined))
  }
  if (transport === 'native') await until('the change is seen', async () => (await seen()) === 'AFTER!')
  else t.equal(await seen(), 'before', 'an open file shows what was read before')
  reader.stdin!.end()
  t.equal((await result).status, 0)
  t.equal(await sh(`cat ${dir}/f`), 'AFTER!', 'the next open shows what is there')
})

differs('interrupts', async (t, transport) => {
  let answer = (_bytes: Uint8Array) => {}
  const fs = new MemoryFileSystem()
  let waiting = false
  const reader = (_offset: number, _size: number, ctx: { signal: AbortSignal }) => {
    waiting = true
    return new Promise<Uint8Array>((resolve, reject) => {
      answer = resolve
      ctx.signal.addEventListener('abort', () => reject(ctx.signal.reason))
    })
  }
  fs.addFile('f', { sizeBytes: 10, reader })
  fs.addFile('well', Buffer.from('well'))
  const { dir } = await mounted(t, transport, fs)
  const program = start('cat', [`${dir}/f`])
  let over = false
  const result = ended(program).finally(() => {
    over = true
  })
  await until('it reads', () => waiting)
  program.kill('SIGINT')
  if (transport === 'fuse-native') {
    t.equal(await sh(`cat ${dir}/well`), 'well', 'others are served')
    t.notOk(over, 'it waits for the answer')
    answer(Buffer.from('0123456789'))
  }
  t.equal((await result).signal, 'SIGINT')
})

differs('a block that is missing', async (t, transport) => {
  const gateway = await TestGateway.start(t)
  const dag = new Dag(gateway)
  const size = 1000
  const leaves = Array.from({ length: 20 }, (_, i) => ({ cid: dag.raw(pattern(size, i)), sizeBytes: size }))
  const { cid } = dag.file(leaves)
  gateway.remove(leaves[10]!.cid)
  const mount = await Mount.start(t, { transport, gateways: [gateway.url] })
  const path = mount.path('ipfs', `${cid}`)
  const read = async (leaf: number) => {
    const args = [`if=${path}`, `bs=${size}`, 'count=1', `skip=${leaf}`, 'status=none']
    return (await run('dd', args)).bytes.equals(pattern(size, leaf))
  }
  // bytes 10,000 to 11,000 are missing, of the page from 8192 to 12,288
  t.notOk(await read(10))
  t.equal(await read(9), transport === 'native')
  t.ok(await read(13), 'what lies in other pages can be read')
})

t.test('every row of the table has its test', async t => {
  t.ok(rows.length > 15, `${rows.length} rows`)
  for (const { what, command } of rows) {
    t.ok(command !== '' || [...tests].some(start => what.startsWith(start)), what)
  }
  for (const start of tests)
    t.ok(
      rows.some(({ what }) => what.startsWith(start)),
      start,
    )
})
