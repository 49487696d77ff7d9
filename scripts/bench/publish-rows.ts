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
import { hashAll, type Measured, publish, timeCommand } from './probe.js'
import type { Contender, Row } from './row.js'
import type { Setting } from './setting.js'

/** Times as fast as `ipfs add`. */
const FLOOR = 1.5
/** Kubo's `/mfs` takes its time. */
const MFS_LIMIT_S = 20

export async function publishBig(setting: Setting): Promise<Row> {
  const source = await setting.bigToPublish()
  const sizeBytes = setting.sizes.bigBytes
  const cores = availableParallelism()
  const contenders = [
    freshMount(setting, 'cidfs', {}, mount => publish(source, mount.path('staging', 'big'), true)),
    rawCopy(setting, source),
    ...(setting.withKubo ? await addTo(setting, source) : []),
    { name: `SHA-256 on ${cores} cores`, measure: async () => settled(await hashAll(source, cores)) },
  ].map(contender => renewed(contender, async () => renewBig(source, sizeBytes)))
  const rate = { unit: 'rate', sizeBytes } as const
  const outputs = [
    { ...rate, key: 'settled', title: 'publish, from close to pinned', floor: FLOOR },
    { ...rate, key: 'total', title: 'publish, cp included' },
  ]
  return { name: 'publish-big', outputs, contenders }
}

export async function publishSmall(setting: Setting): Promise<Row> {
  const source = join(setting.dir, 'tree-to-publish')
  const contenders = [
    freshMount(setting, 'cidfs', {}, mount => publish(source, mount.path('staging', 'tree'), true)),
    rawCopy(setting, source),
    ...(setting.withKubo ? [...(await addTo(setting, source)), await copyToMfs(setting, source)] : []),
  ].map(contender => renewed(contender, () => makeDirectory(source, setting.sizes.files)))
  const outputs = [
    { key: 'copy', title: 'small files, cp -r', unit: 'milliseconds', theirs: '/mfs' } as const,
    { key: 'total', title: 'small files, cp -r and pinned', unit: 'milliseconds' } as const,
  ]
  return { name: 'publish-small', outputs, contenders }
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
    measure: () => publish(source, target, false),
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
  return 'seconds' in measured ? { settled: measured.seconds!, total: measured.seconds! } : measured
}

async function copyToMfs(setting: Setting, source: string): Promise<Contender> {
  const { node, mfs } = (await setting.kubos()).provider
  const target = (round: number) => join(mfs, `tree-${round}`)
  return {
    name: '/mfs',
    measure: async round => {
      const options = { limitSeconds: MFS_LIMIT_S }
      const measured = await timeCommand(['cp', '-r', source, target(round)], options)
      return 'seconds' in measured ? { copy: measured.seconds!, total: measured.seconds! } : measured
    },
    pids: () => [node.pid],
  }
}
