/** The machine: what it is, and putting its caches into a known state. */
import { readFile, writeFile } from 'node:fs/promises'
import { availableParallelism, cpus, release } from 'node:os'
import { runOk } from '../../test/support/run.js'

const DROP_ALL = '3'

export class Machine {
  private constructor(readonly mayDropCaches: boolean) {}

  static async inspect(): Promise<Machine> {
    const permitted = await writeFile('/proc/sys/vm/drop_caches', DROP_ALL).then(
      () => true,
      () => false,
    )
    return new Machine(permitted)
  }

  /** Nothing of the files below `dir` is in memory afterwards, where that is permitted. */
  async dropCaches(dir: string): Promise<void> {
    if (!this.mayDropCaches) return
    await runOk('sync', ['--file-system', dir])
    await writeFile('/proc/sys/vm/drop_caches', DROP_ALL)
  }

  /** For rows that need what is not permitted. */
  get cacheNote(): { note?: string } {
    return this.mayDropCaches ? {} : { note: 'page cache not dropped: not permitted' }
  }

  /** One line. */
  async description(dir: string): Promise<string> {
    const model = cpus()[0]?.model.trim() ?? 'unknown processor'
    const { stdout } = await runOk('df', ['--output=fstype', dir])
    const fileSystem = stdout.split('\n')[1]
    const load = (await readFile('/proc/loadavg', 'utf8')).split(' ')[0]
    return `${availableParallelism()} x ${model}, Linux ${release()}, Node ${process.version}, ${fileSystem}, load ${load}`
  }
}
