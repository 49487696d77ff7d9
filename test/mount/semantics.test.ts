/**
 * Executes docs/SEMANTICS.md: each row with a command must have the result that it states.
 *
 * Rows run in order, in one mount: later ones use what earlier ones left.
 */
import { readFile } from 'node:fs/promises'
import { constants } from 'node:os'
import { join } from 'node:path'
import { base58btc } from 'multiformats/bases/base58'
import t from 'tap'
import { CODEC_DAG_PB, CODEC_RAW, cidOf, parseCid } from '../../src/core/cid.js'
import { Mount } from '../support/mount.js'
import { packageRoot } from '../support/root.js'
import { run } from '../support/run.js'
import { isNative } from '../support/transport.js'

t.setTimeout(180_000)

interface Row {
  what: string
  command: string
  result: string
}

/** Rows of three columns whose second and third are code, or whose third is the name of an error. */
function rowsOf(markdown: string): Row[] {
  const rows: Row[] = []
  for (const line of markdown.split('\n')) {
    const cells = line.split(/(?<!\\)\|/).map(cell => cell.trim().replaceAll('\\|', '|'))
    const command = /^`(.*)`$/.exec(cells[2] ?? '')?.[1]
    const result = /^`(.*)`$|^(E[A-Z]+)$/.exec(cells[3] ?? '')
    if (cells.length === 5 && command !== undefined && result !== null) {
      rows.push({ what: cells[1]!, command, result: result[1] ?? result[2]! })
    }
  }
  return rows
}

/** What tools print for an errno. */
async function strerror(name: string): Promise<string> {
  const errno = constants.errno[name as keyof typeof constants.errno]
  return (await run('python3', ['-c', `import os; print(os.strerror(${errno}))`])).stdout.trim()
}

async function published(mount: Mount, name: string): Promise<string> {
  await mount.cli(['wait', mount.path('staging', name)])
  return (await mount.json<{ cid: string }>(['cid', mount.path('staging', name)])).cid
}

const environment = async (mount: Mount): Promise<Record<string, string>> => {
  await mount.run('sh', ['-c', 'mkdir staging/dir && echo hello | tee staging/hello > staging/dir/a'])
  const FILE = await published(mount, 'hello')
  return {
    FILE,
    FILE_BASE58: parseCid(FILE).toString(base58btc),
    DIR: await published(mount, 'dir'),
    ABSENT: cidOf(CODEC_RAW, Buffer.from('this block is nowhere')).toString(),
    ABSENT_DIR: cidOf(CODEC_DAG_PB, Buffer.from('nor is this')).toString(),
  }
}

/** Rows that the table of transports has another result for. */
const DIFFERENT = [
  'a punched hole is zeros',
  'access times change only when they are set',
  'an exchange of names is one step',
]

t.test('the rows of docs/SEMANTICS.md hold', async t => {
  const all = rowsOf(await readFile(join(packageRoot, 'docs', 'SEMANTICS.md'), 'utf8'))
  t.ok(all.length > 30, 'the tables were found')
  for (const what of DIFFERENT)
    t.ok(
      all.some(row => row.what === what),
      `there is a row: ${what}`,
    )
  const rows = all.filter(({ what }) => isNative || !DIFFERENT.includes(what))
  const mount = await Mount.start(t)
  const env = await environment(mount)
  const expand = (text: string): string =>
    text.replace(/\$([A-Z_0-9]+)/g, (_, name: string) => env[name] ?? '')
  for (const { what, command, result } of rows) {
    const done = await run('bash', ['-c', command], { cwd: mount.dir, env: { ...process.env, ...env } })
    const title = `${what}: ${command}`
    if (/^E[A-Z]+$/.test(result)) {
      t.not(done.status, 0, title)
      t.match(done.stderr, await strerror(result), title)
    } else {
      t.equal(done.stdout.trim().replace(/\s+/g, ' '), expand(result), `${title}: ${done.stderr}`)
    }
  }
})
