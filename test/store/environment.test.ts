import { join } from 'node:path'
import t from 'tap'
import { Environment } from '../../src/store/environment.js'
import { StateDirectory } from '../../src/store/state-directory.js'
import { distRoot } from '../support/root.js'
import { run } from '../support/run.js'
import { type Owner, tempDir } from '../support/temp.js'

async function openEnvironment(t: Owner): Promise<Environment> {
  const state = StateDirectory.open(await tempDir(t))
  const env = new Environment(state)
  t.teardown(async () => {
    await env.close()
    state.close()
  })
  return env
}

// lmdb 3.0 to 3.5 give pages out twice under just these loads (`mp->mp_pgno != pgno`); 2.9 does not
const LOADS: [seed: number, operations: number][] = [
  [5, 40_000],
  [30, 30_000],
  [1, 20_000],
]
for (const [seed, operations] of LOADS) {
  t.test(
    `a long mixed load leaves every value as it was written (seed ${seed})`,
    { timeout: 60_000 },
    async t => {
      const child = join(distRoot, 'test', 'store', 'environment-load.js')
      const args = [child, await tempDir(t), `${seed}`, `${operations}`]
      const { status, signal, stderr } = await run(process.execPath, args, { timeoutMs: 50_000 })
      t.equal(status, 0, `${signal ?? ''} ${stderr}`)
    },
  )
}

t.test('what is written in a transaction is visible in it, and gone with it', async t => {
  const env = await openEnvironment(t)
  const db = env.binary('mine')
  const undone: string[] = []
  const [key, value] = [Uint8Array.of(1), Uint8Array.of(2)]
  const attempt = () =>
    env.transaction(() => {
      db.putSync(key, value)
      env.onRollback(() => undone.push('first'))
      env.transaction(() => env.onRollback(() => undone.push('second')))
      t.same(new Uint8Array(db.get(key) ?? []), value)
      throw new Error('no')
    })
  t.throws(attempt, /no/)
  t.equal(db.get(key), undefined)
  t.same(undone, ['second', 'first'])
})

t.test('a removal tells whether there was something', async t => {
  const env = await openEnvironment(t)
  const db = env.binary('mine')
  db.putSync(Uint8Array.of(0), Uint8Array.of(1))
  t.ok(db.removeSync(Uint8Array.of(0)))
  t.notOk(db.removeSync(Uint8Array.of(0)))
})

t.test('a state is captured once', async t => {
  const env = await openEnvironment(t)
  env.transaction(() => env.binary('mine').putSync(Uint8Array.of(0), Uint8Array.of(1)))
  const state = env.capture()
  t.ok(state)
  if (state !== undefined) await env.persist(state)
  t.equal(env.capture(), undefined)
})
