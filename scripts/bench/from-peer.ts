/** A Kubo contender that has to get everything from the other Kubo. */
import { emptyReader, type Kubos } from './daemons.js'
import type { Measured } from './probe.js'
import type { Contender } from './row.js'
import type { Setting } from './setting.js'

export function fromPeer(
  setting: Setting,
  kubos: Kubos,
  name: string,
  measure: () => Promise<Measured>,
): Contender {
  const prepare = async () => {
    await emptyReader(kubos)
    await setting.dropCaches()
  }
  return { name, prepare, measure, pids: () => [kubos.reader.node.pid] }
}
