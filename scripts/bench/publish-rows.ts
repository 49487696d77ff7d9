/**
 * Publishing: a large file, and many small ones.
 *
 * Invariant: nobody has a block of it before, and everybody keeps it safe: what cidfs calls pinned is on the disk,
 * Kubo syncs its blocks, and a raw copy is measured until it is synced. The copy itself is a figure of its own.
 */

import { rm } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { makeDirectory, renewBig } from './content.js'
import { freshMount } from './fresh-mount.js'
import { hashAll, type Measured, publish, type Seconds, timeCommand } from './probe.js'
import type { Contender, Row } from './row.js'
import type { Setting } from './setting.js'

/** Times as fast as `ipfs add`. */
const FLOOR = 2.5
/** Kubo's `/mfs` takes its time. */
const MFS_LIMIT_S = 20

export async function publishBig(setting: Setting): Promise<Row> {
  const source = await setting.bigToPublish()
  const sizeBytes = setting.sizes.bigBytes
  const cores = availableParallelism()
  const hashing = `SHA-256 on ${cores} cores`
  const contenders = [
    freshMount(setting, 'cidfs', {}, mount => publish(source, mount.path('staging', 'big'), true)),
    rawCopy(setting, source),
    ...(setting.withKubo ? await addTo(setting, source) : []),
    { name: hashing, measure: async () => settled(await hashAll(source, cores)) },
  ].map(contender => renewed(contender, async () => renewBig(source, sizeBytes)))
  const rate = { unit: 'rate', sizeBytes } as const
  const outputs = [
    { ...rate, key: 'settled', title: 'publish, from close to pinned', floor: FLOOR },
    { ...rate, key: 'settled', title: `the same; in Kubo's place ${hashing}`, theirs: hashing },
    { ...rate, key: 'total', title: 'publish, cp included' },
  ]
  return { name: 'publish-big', outputs, contenders }
}

/** Into a daemon that has just started, and then, of the same kind, into the same: JavaScript is slow at first. */
export async function publishSmall(setting: Setting): Promise<Row> {
  const sources = ['first', 'second'].map(name => join(setting.dir, `tree-to-publish-${name}`))
  const source = sources[0]!
  const contenders = [
    freshMount(setting, 'cidfs', {}, mount => publishBoth(sources, mount.path('staging'))),
    rawCopy(setting, source),
    ...(setting.withKubo ? [...(await addTo(setting, source)), await copyToMfs(setting, source)] : []),
  ].map(contender => renewed(contender, () => makeAll(sources, setting.sizes.files)))
  const inTime = { unit: 'milliseconds' } as const
  const outputs = [
    { ...inTime, key: 'copy', title: 'small files, cp -r', theirs: '/mfs' },
    { ...inTime, key: 'copyAgain', title: 'small files, cp -r, a second tree', theirs: '/mfs' },
    { ...inTime, key: 'total', title: 'small files, cp -r and pinned' },
    { ...inTime, key: 'totalAgain', title: 'small files, cp -r and pinned, a second tree' },
  ]
  return { name: 'publish-small', outputs, contenders }
}

async function publishBoth(sources: string[], staging: string): Promise<Measured> {
  const measured: Seconds[] = []
  for (const [i, source] of sources.entries()) {
    const one = await publish(source, join(staging, `tree-${i}`), true)
    if ('exceeded' in one) return one
    measured.push(one as Seconds)
  }
  const [first, second] = measured
  return { ...first, copyAgain: second!.copy!, totalAgain: second!.total! }
}

async function makeAll(dirs: string[], files: number): Promise<void> {
  for (const dir of dirs) await makeDirectory(dir, files)
}

/** Of those to whom it is all one. */
function sameAgain(measured: Measured): Measured {
  if ('exceeded' in measured) return measured
  const { copy, total } = measured as Seconds
  return { ...measured, ...(copy === undefined ? {} : { copyAgain: copy }), totalAgain: total! }
}

/** New content before each measurement. */
function renewed(contender: Contender, renew: () => Promise<unknown>): Contender {
  const prepare = async (round: number) => {
    await renew()
    await contender.prepare?.(round)
  }
  return { ...contender, prepare }
}

function rawCopy(setting: Setting, source: string): Contender {
  const target = join(setting.dir, 'raw-copy')
  return {
    name: 'raw',
    measure: async () => sameAgain(await publish(source, target, false)),
    finish: () => rm(target, { recursive: true, force: true }),
  }
}

async function addTo(setting: Setting, source: string): Promise<Contender[]> {
  const { node } = (await setting.kubos()).provider
  const offline = await setting.kuboWithoutDaemon()
  const argv = ['add', '-r', '-Q', source]
  const pids = () => [node.pid]
  return [
    { name: 'Kubo', measure: async () => settled(await timeCommand(node.command(argv))), pids },
    { name: 'ipfs add, no daemon', measure: async () => settled(await timeCommand(offline.command(argv))) },
  ]
}

/** Has no copy that comes first. */
function settled(measured: Measured): Measured {
  if (!('seconds' in measured)) return measured
  return sameAgain({ settled: measured.seconds!, total: measured.seconds! })
}

async function copyToMfs(setting: Setting, source: string): Promise<Contender> {
  const { node, mfs } = (await setting.kubos()).provider
  const target = (round: number) => join(mfs, `tree-${round}`)
  return {
    name: '/mfs',
    measure: async round => {
      const options = { limitSeconds: MFS_LIMIT_S }
      const measured = await timeCommand(['cp', '-r', source, target(round)], options)
      if (!('seconds' in measured)) return measured
      return sameAgain({ copy: measured.seconds!, total: measured.seconds! })
    },
    pids: () => [node.pid],
  }
}
