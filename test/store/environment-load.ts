/**
 * A long mixed load on an index, checked against a model; exits with status 0 when every value is as it was
 * written. Runs in a process of its own: a broken LMDB aborts.
 */
import { createHash } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Environment } from '../../src/store/environment.js'
import { type CapturedState, currentBootId } from '../../src/store/index-snapshot.js'
import { StateDirectory } from '../../src/store/state-directory.js'

const [dir = '', seed = '1', operations = '30000'] = process.argv.slice(2)
const state = StateDirectory.open(dir)
const env = new Environment(state, currentBootId())
const hashes = env.binary('hashes')
const texts = env.named<string>('texts')
const value = Buffer.alloc(16)
const numbers = new Set<number>()
const strings = new Map<string, string>()
let random = Math.imul(Number(seed), 2654435761) >>> 0 || 1
let captured: CapturedState | undefined

/** xorshift: the same load for the same seed. */
function below(limit: number): number {
  random = (random ^ (random << 13)) >>> 0
  random ^= random >>> 17
  random = (random ^ (random << 5)) >>> 0
  return random % limit
}

function key(n: number): Uint8Array {
  return createHash('sha256').update(`x${n}`).digest()
}

function add(n: number): void {
  hashes.putSync(key(n), value)
  numbers.add(n)
}

function remove(n: number): void {
  if (numbers.delete(n)) hashes.removeSync(key(n))
}

function write(name: string, text: string): void {
  texts.putSync(name, text)
  strings.set(name, text)
}

function addAndRemoveMany(base: number): void {
  const count = below(1000)
  env.transaction(() => {
    for (let i = 0; i < count; i++) add(1e7 + base * 1000 + i)
  })
  if (below(3) > 0) return
  env.transaction(() => {
    for (const n of [...numbers].slice(0, 500)) remove(n)
  })
}

async function step(i: number): Promise<void> {
  const kind = below(100)
  if (kind < 80) add(i)
  else if (kind < 90) remove(below(i + 1))
  else if (kind < 99) write(`k${below(3000)}`, 'v'.repeat(below(400)))
  else addAndRemoveMany(i)
  if (below(2000) === 0) {
    if (captured !== undefined) await env.persist(captured)
    captured = env.capture()
  }
  if (i % 16 === 0) env.root.getStats()
  if (i % 100 === 0) await nextTurn()
}

for (let i = 0; i < Number(operations); i++) await step(i)
if (captured !== undefined) await env.persist(captured)
const wrong =
  [...numbers].filter(n => hashes.get(key(n)) === undefined).length +
  [...strings].filter(([name, text]) => texts.get(name) !== text).length +
  Math.abs([...hashes.getKeys({ start: Uint8Array.of(0) })].length - numbers.size)
await env.close()
state.close()
if (wrong > 0) throw new Error(`${wrong} of ${numbers.size + strings.size} values are wrong`)
