/**
 * `npm run bench`: measures cidfs beside the raw file system and Kubo, in one run, and prints a table.
 *
 * Invariant: whatever happens (an error, Ctrl-C, the time limit), everything that was started ends before this
 * process does. Status 0: all rows ran, and met their floors where `--check` asks; else 1; 130 after Ctrl-C.
 */
import { writeFile } from 'node:fs/promises'
import { findKubo } from '../../test/support/kubo.js'
import type { Transport } from '../../test/support/transport.js'
import { FULL, QUICK } from './content.js'
import { Machine } from './machine.js'
import { type Options, readOptions, USAGE } from './options.js'
import { isMet, type RowResult, runRow } from './row.js'
import { ROWS, type RowMaker } from './rows.js'
import { Setting } from './setting.js'
import { toMarkdown, toTransportTable } from './table.js'
import { type Scope, Workbench } from './workbench.js'

const ROUNDS = 3
/** Of the whole run; it takes about five minutes for each transport. */
const LIMIT_MS = 30 * 60_000
const INTERRUPTED_STATUS = 130

/** @returns the exit status. */
export async function bench(args: string[]): Promise<number> {
  let options: Options
  try {
    options = readOptions(args)
  } catch (err) {
    console.error(`bench: ${(err as Error).message}\n${USAGE}`)
    return 1
  }
  const workbench = await Workbench.open()
  const guard = endOnSignals(workbench)
  try {
    return await measure(workbench, options)
  } catch (err) {
    if (!guard.ended) console.error(`bench: ${(err as Error).message}`)
    return 1
  } finally {
    if ((await guard.finish()) > 0) process.exitCode = 1
  }
}

async function measure(workbench: Workbench, options: Options): Promise<number> {
  const withKubo = options.kubo && (await findKubo()) !== undefined
  if (options.kubo && !withKubo) {
    const message = 'there is no Kubo to compare with: node scripts/kubo.mjs builds it'
    if (options.check) throw new Error(message)
    console.error(message)
  }
  const makers = ROWS.filter(({ name, needsKubo }) => options.only.test(name) && (withKubo || !needsKubo))
  if (makers.length === 0) throw new Error(`no row's name matches --only ${options.only.source}`)
  const machine = await Machine.inspect()
  const description = await machine.description(workbench.dir)
  const sizes = options.quick ? QUICK : FULL
  const rounds = options.quick ? 1 : ROUNDS
  const over = async (transport: Transport, contenders: Contenders): Promise<RowResult[]> => {
    const scope = workbench.scope()
    const setting = new Setting({ bench: workbench, scope, machine, sizes, withKubo, transport })
    const results = await runRows(makers, setting, rounds, contenders)
    await endAll(scope)
    return results
  }
  const { transport } = options
  const results = await over(transport === 'both' ? 'native' : transport, 'all')
  console.log(`\n${description}\n\n${toMarkdown(results)}`)
  if (transport === 'both') {
    console.log(`\n${toTransportTable(results, await over('fuse-native', 'cidfs'))}`)
  }
  if (options.json !== undefined) await writeJson(options.json, results, { description, sizes })
  return options.check && !allMet(results) ? 1 : 0
}

/** Whether the others are measured, too. */
type Contenders = 'all' | 'cidfs'

async function endAll(scope: Scope): Promise<void> {
  const [error] = await scope.end()
  if (error !== undefined) throw error
}

async function runRows(
  makers: RowMaker[],
  setting: Setting,
  rounds: number,
  contenders: Contenders,
): Promise<RowResult[]> {
  const results: RowResult[] = []
  for (const { name, make } of makers) {
    const start = performance.now()
    const row = await make(setting)
    if (contenders === 'cidfs') row.contenders = row.contenders.filter(isOurs)
    try {
      results.push(await runRow(row, rounds))
    } finally {
      await row.end?.()
    }
    const seconds = (performance.now() - start) / 1000
    console.error(`${name} (${seconds.toFixed(0)} s)`)
  }
  return results
}

function isOurs({ name }: { name: string }): boolean {
  return !['raw', 'Kubo', '/mfs'].includes(name) && !name.startsWith('ipfs ')
}

function allMet(results: RowResult[]): boolean {
  return results.every(result => result.row.outputs.every(output => isMet(result, output) !== false))
}

async function writeJson(path: string, results: RowResult[], facts: object): Promise<void> {
  const rows = results.map(({ row: { name, outputs, note }, results }) => ({ name, outputs, note, results }))
  await writeFile(path, `${JSON.stringify({ ...facts, rows }, null, 2)}\n`)
}

function messageOf(err: Error): string {
  return err.message
}

/** Ends the workbench on a signal or at the time limit, and then the process. */
function endOnSignals(workbench: Workbench) {
  let ended = false
  const stop = (why: string, status: number) => {
    if (ended) return
    ended = true
    console.error(`bench: ${why}, cleaning up`)
    void finish().then(() => process.exit(status))
  }
  const finish = async () => {
    const { errors, mounts } = await workbench.end()
    clearTimeout(timer)
    // a signal from the terminal ends the daemons as well, before we do
    const faults = [
      ...mounts.map(path => `${path} was still mounted`),
      ...(ended ? [] : errors.map(messageOf)),
    ]
    for (const fault of faults) console.error(`bench: while cleaning up: ${fault}`)
    return faults.length
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => stop(signal, INTERRUPTED_STATUS))
  const timer = setTimeout(() => stop(`not done after ${LIMIT_MS / 60_000} minutes`, 1), LIMIT_MS)
  return {
    get ended() {
      return ended
    },
    finish,
  }
}
