/**
 * A row: the same work done by several contenders, in turns.
 *
 * Invariant: contenders alternate, each starting a round in its turn, so that what else the machine does meets all
 * of them; a figure is the median of its rounds. Only ratios within a row mean something.
 */

import type { Measured, Seconds } from './probe.js'
import { cpuSeconds } from './processes.js'
import { median } from './statistics.js'

/** `rate`: MiB/s of `sizeBytes`. `bytes`: the figure is no time but a size. */
export type Unit = 'rate' | 'milliseconds' | 'seconds' | 'bytes'

/** A line of the table: one figure of those that the contenders measure. */
export interface Output {
  key: string
  title: string
  unit: Unit
  sizeBytes?: number
  /** The contenders in the places of `cidfs` and `Kubo`. */
  ours?: string
  theirs?: string
  /** How many times as good as Kubo cidfs is to be. */
  floor?: number
  /** The most that the figure of cidfs is to be. */
  atMost?: number
}

export interface Contender {
  /** `cidfs`, `raw` and `Kubo` have columns of their own. */
  name: string
  /** Not measured. */
  prepare?(round: number): Promise<void>
  measure(round: number): Promise<Measured>
  finish?(round: number): Promise<void>
  /** Whose CPU time is measured. */
  pids?(): number[]
  /** Fewer than the row's: for what takes very long. */
  rounds?: number
}

export interface Row {
  name: string
  outputs: Output[]
  contenders: Contender[]
  /** What a reader must know, for example that caches were not dropped. */
  note?: string
  /** After the last round. */
  end?(): Promise<unknown>
}

export interface Result {
  name: string
  samples: Seconds[]
  /** CPU seconds of its daemons, by round. */
  cpu: number[]
  /** Seconds after which it was stopped. */
  exceeded?: number
}

export interface RowResult {
  row: Row
  results: Result[]
}

export async function runRow(row: Row, rounds: number): Promise<RowResult> {
  const results: Result[] = row.contenders.map(({ name }) => ({ name, samples: [], cpu: [] }))
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < row.contenders.length; i++) {
      const nth = (i + round) % row.contenders.length
      const [contender, result] = [row.contenders[nth]!, results[nth]!]
      if (round < (contender.rounds ?? rounds) && result.exceeded === undefined) {
        await runOnce(contender, round, result)
      }
    }
  }
  return { row, results }
}

async function runOnce(contender: Contender, round: number, result: Result): Promise<void> {
  try {
    await contender.prepare?.(round)
    const pids = contender.pids?.() ?? []
    const before = await cpuOf(pids)
    const measured = await contender.measure(round)
    if (pids.length > 0) result.cpu.push((await cpuOf(pids)) - before)
    if ('exceeded' in measured) result.exceeded = measured.exceeded as number
    else result.samples.push(measured)
  } catch (err) {
    throw new Error(`${contender.name}: ${(err as Error).message}`, { cause: err })
  } finally {
    await contender.finish?.(round)
  }
}

async function cpuOf(pids: number[]): Promise<number> {
  const times = await Promise.all(pids.map(cpuSeconds))
  return times.reduce((sum, seconds) => sum + seconds, 0)
}

/** The figure of a contender; undefined when it has none. `least`: it is that or more. */
export function figureOf(
  result: Result | undefined,
  key: string,
): { value: number; least: boolean } | undefined {
  if (result?.exceeded !== undefined) return { value: result.exceeded, least: true }
  const values = result?.samples.map(sample => sample[key]).filter(value => value !== undefined) ?? []
  return values.length === 0 ? undefined : { value: median(values), least: false }
}

/** How many times as good as `other` cidfs is (less time or space is better), and whether it may be more. */
export function ratioTo(
  { results }: RowResult,
  other: 'raw' | 'Kubo',
  { key, ours = 'cidfs', theirs = 'Kubo' }: Output,
): { value: number; least: boolean } | undefined {
  const find = (wanted: string) => results.find(result => result.name === wanted)
  const own = figureOf(find(ours), key)
  const others = figureOf(find(other === 'Kubo' ? theirs : other), key)
  if (own === undefined || others === undefined || own.least) return undefined
  return { value: others.value / own.value, least: others.least }
}

/** Undefined: there is no floor and no bound, or nothing to compare with. */
export function isMet(result: RowResult, output: Output): boolean | undefined {
  if (output.atMost !== undefined) return isWithin(result, output, output.atMost)
  const ratio = ratioTo(result, 'Kubo', output)
  return output.floor === undefined || ratio === undefined ? undefined : ratio.value >= output.floor
}

function isWithin(
  { results }: RowResult,
  { key, ours = 'cidfs' }: Output,
  atMost: number,
): boolean | undefined {
  const own = figureOf(
    results.find(({ name }) => name === ours),
    key,
  )
  return own && own.value <= atMost
}
