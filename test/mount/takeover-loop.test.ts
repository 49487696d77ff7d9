/** A mount goes on however often its daemon dies: no call fails, none hangs, nothing happens twice. */
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { KeptMount } from '../support/kept-mount.js'
import { until } from '../support/until.js'
import { describePauses, type Outcome, SteadyProgram } from './steady-program.js'

t.setTimeout(300_000)

const KILLS = 200
/** Two mounts at a time: while one starts a daemon the other works. */
const MOUNTS = [[], ['--passthrough', 'off']]
/** From the moment a daemon serves to its death, at most. */
const LIFE_MS = 60

/** A third of the daemons dies before it serves. */
async function killOften(mount: KeptMount, kills: number): Promise<void> {
  for (let i = 0; i < kills; i++) {
    const before = await mount.kill()
    if (i % 3 === 0) await until('the next one starts', async () => (await mount.processes())[0] !== before)
    else await mount.served(before ?? 0)
    await sleep(Math.random() * LIFE_MS)
  }
}

async function torment(t: Test, args: string[], kills: number): Promise<Outcome> {
  const mount = await KeptMount.start(t, { args })
  const program = await SteadyProgram.start(t, mount)
  await killOften(mount, kills)
  return program.end()
}

t.test(`a program does not notice that daemons are killed ${KILLS} times`, async t => {
  const outcomes = await Promise.all(MOUNTS.map(args => torment(t, args, KILLS / MOUNTS.length)))
  for (const outcome of outcomes) {
    t.comment(describePauses(outcome))
    t.ok(outcome.rounds > 1, 'it has worked')
  }
})
