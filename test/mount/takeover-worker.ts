/**
 * A program that uses a mount without a pause, and checks what it gets. Arguments: the directory `staging`, the path
 * of a file of `ipfs/` and the SHA-256 of its bytes. Ends with a line on standard input; prints how often it went
 * round, and how long its calls took when they took long, as JSON.
 */
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'

const [staging = '', file = '', digest = ''] = process.argv.slice(2)
const SLOW_MS = 50
const NAMES = Array.from({ length: 20 }, (_, i) => `entry-${i}`)

const slow: number[] = []
let ended = false

/** One call of the kernel, timed. */
function timed<T>(call: () => T): T {
  const start = performance.now()
  const result = call()
  const ms = performance.now() - start
  if (ms > SLOW_MS) slow.push(Math.round(ms))
  return result
}

function expect(what: string, actual: unknown, expected: unknown): void {
  if (actual !== expected) throw new Error(`${what}: ${String(actual)} instead of ${String(expected)}`)
}

function readImmutable(): void {
  const fd = timed(() => fs.openSync(file, 'r'))
  const hash = createHash('sha256')
  const buffer = Buffer.alloc(128 * 1024)
  for (;;) {
    const length = timed(() => fs.readSync(fd, buffer, 0, buffer.length, null))
    if (length === 0) break
    hash.update(buffer.subarray(0, length))
  }
  timed(() => fs.closeSync(fd))
  expect('content', hash.digest('hex'), digest)
}

/** Names come and go, each exactly once. */
function changeNames(dir: string, round: number): void {
  const sub = join(dir, `sub-${round}`)
  timed(() => fs.mkdirSync(sub))
  const [from, to] = [join(sub, 'from'), join(sub, 'to')]
  const fd = timed(() => fs.openSync(from, 'wx'))
  timed(() => fs.writeSync(fd, `round ${round}\n`))
  timed(() => fs.fsyncSync(fd))
  timed(() => fs.renameSync(from, to))
  timed(() => fs.closeSync(fd))
  expect(
    'renamed',
    timed(() => fs.readFileSync(to, 'utf8')),
    `round ${round}\n`,
  )
  timed(() => fs.symlinkSync('to', from))
  timed(() => fs.unlinkSync(from))
  timed(() => fs.unlinkSync(to))
  timed(() => fs.rmdirSync(sub))
}

function appended(round: number): string {
  return `${String(round).padStart(9, '0')}\n`
}

async function work(): Promise<void> {
  const dir = join(staging, 'loop')
  fs.mkdirSync(dir)
  for (const name of NAMES) fs.writeFileSync(join(dir, name), name)
  const log = fs.openSync(join(staging, 'log'), 'a')
  const gone = fs.openSync(join(staging, 'gone'), 'w+')
  fs.unlinkSync(join(staging, 'gone'))
  let round = 0
  for (; !ended; round++, await turn()) {
    expect('size', timed(() => fs.statSync(join(dir, 'entry-3'))).size, 7)
    expect(
      'names',
      timed(() => fs.readdirSync(dir))
        .sort()
        .join(),
      [...NAMES].sort().join(),
    )
    timed(() => fs.writeSync(log, appended(round)))
    if (round % 5 === 0) timed(() => fs.fsyncSync(log))
    timed(() => fs.writeSync(gone, appended(round), 0))
    const kept = Buffer.alloc(10)
    timed(() => fs.readSync(gone, kept, 0, 10, 0))
    expect('a file without a name', kept.toString(), appended(round))
    changeNames(dir, round)
    readImmutable()
  }
  fs.closeSync(log)
  fs.closeSync(gone)
  const lines = fs.readFileSync(join(staging, 'log'), 'utf8')
  expect('what was appended', lines, Array.from({ length: round }, (_, i) => appended(i)).join(''))
  process.stdout.write(`${JSON.stringify({ rounds: round, slow })}\n`)
}

process.stdin.once('data', () => {
  ended = true
  process.stdin.destroy()
})
await work()
