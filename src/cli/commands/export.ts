/**
 * `cidfs export <cid>`: a whole DAG as a CARv1.
 *
 * Invariant: an output file is complete or not there: it is written under a temporary name and renamed.
 */
import { createWriteStream } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { Command } from 'commander'
import { type CID, parseCid } from '../../core/cid.js'
import { CidfsError, messageOf } from '../../core/errors.js'
import { ControlClient } from '../control-client.js'
import { daemonOrState } from '../find-daemon.js'
import { formatBytes, note, startProgress } from '../output.js'

interface Flags {
  output?: string
  state?: string
}

export function exportCommand(): Command {
  return new Command('export')
    .description('a DAG as a CARv1; missing blocks are fetched when a daemon runs')
    .argument('<cid>', 'the root')
    .option('-o, --output <FILE>', 'write to FILE (default: standard output)')
    .option('--state <DIR>', 'state directory of the daemon, or to open when none runs')
    .action(async (text: string, { output, state }: Flags) => {
      const cid = parseCid(text)
      if (output === undefined && process.stdout.isTTY) {
        throw new CidfsError('INVALID', 'a CAR is not for a terminal; redirect it, or name a file with -o')
      }
      const car = await openCar(cid, state)
      if (output === undefined || output === '-') await pipeline(car, process.stdout)
      else await writeFile(car, output)
    })
}

async function openCar(cid: CID, state: string | undefined): Promise<AsyncIterable<Uint8Array>> {
  const target = await daemonOrState(state)
  if ('daemon' in target) return new ControlClient(target.daemon).exportCar(cid.toString())
  const { exportOffline } = await import('../offline-store.js') // LMDB and all
  return exportOffline(target.stateDir, cid)
}

async function writeFile(car: AsyncIterable<Uint8Array>, output: string): Promise<void> {
  const temporary = `${output}.${process.pid}.partial`
  const bar = startProgress('bytes')
  let bytes = 0
  try {
    const counted = counting(car, n => bar.update((bytes += n), undefined, 'written'))
    await pipeline(counted, createWriteStream(temporary, { flags: 'wx', flush: true }))
    await rename(temporary, output)
  } catch (err) {
    await rm(temporary, { force: true })
    throw err instanceof CidfsError
      ? err
      : new CidfsError('IO', `cannot write ${output}: ${messageOf(err)}`, { cause: err })
  } finally {
    bar.stop()
  }
  note(`${formatBytes(bytes)} written to ${output}`)
}

async function* counting(chunks: AsyncIterable<Uint8Array>, onBytes: (n: number) => void) {
  for await (const chunk of chunks) {
    onBytes(chunk.length)
    yield chunk
  }
}
