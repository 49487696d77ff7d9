/**
 * `cidfs import <file|->`: a CAR into the store, its roots pinned.
 *
 * Through the daemon when one runs: one process writes a store. Without one it is opened here.
 */
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { Command } from 'commander'
import { CidfsError, messageOf } from '../../core/errors.js'
import type { ImportProgress, ImportResult } from '../../daemon/control-protocol.js'
import { ControlClient } from '../control-client.js'
import { daemonOrState } from '../find-daemon.js'
import { count, formatBytes, note, print, printJson, startProgress } from '../output.js'

interface Flags {
  state?: string
  json?: boolean
}

export function importCommand(): Command {
  return new Command('import')
    .description('verify a CAR (version 1 or 2), keep its blocks, pin its roots; prints the roots')
    .argument('<file>', 'a .car file, - for standard input')
    .option('--state <DIR>', 'state directory of the daemon, or to open when none runs')
    .option('--json', 'print roots, blocks and bytes as JSON')
    .action(async (file: string, flags: Flags) => {
      const { car, totalBytes } = await openCar(file)
      const result = await importWithProgress(car, totalBytes, flags.state).finally(() => car.destroy())
      if (flags.json === true) return printJson(result)
      for (const root of result.roots) print(root)
      note(`${count(result.blocks, 'block')}, ${formatBytes(result.bytes)} imported`)
    })
}

async function importWithProgress(
  car: Readable,
  totalBytes: number | undefined,
  state: string | undefined,
): Promise<ImportResult> {
  const target = await daemonOrState(state)
  const bar = startProgress('bytes')
  const onProgress = ({ blocks, position }: ImportProgress) =>
    bar.update(position, totalBytes, count(blocks, 'block'))
  try {
    if ('daemon' in target) return await new ControlClient(target.daemon).importCar(car, onProgress)
    const { importOffline } = await import('../offline-store.js') // LMDB and all
    return await importOffline(target.stateDir, car, onProgress)
  } finally {
    bar.stop()
  }
}

async function openCar(file: string): Promise<{ car: Readable; totalBytes: number | undefined }> {
  if (file === '-') return { car: process.stdin, totalBytes: undefined }
  try {
    const stats = await stat(file)
    if (stats.isDirectory()) throw new Error('is a directory')
    return { car: createReadStream(file, { highWaterMark: 1024 * 1024 }), totalBytes: stats.size }
  } catch (err) {
    throw new CidfsError('NOT_FOUND', `cannot read ${file}: ${messageOf(err)}`, { path: file, cause: err })
  }
}
