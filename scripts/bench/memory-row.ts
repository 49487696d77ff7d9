/** Memory of the daemons: when they start, and the most they took in all rows that ran. Runs last. */
import type { Contender, Row } from './row.js'
import type { Setting } from './setting.js'

export async function memory(setting: Setting): Promise<Row> {
  const { cidfs } = setting
  const contenders: Contender[] = [{ name: 'cidfs', measure: () => cidfs.memory.figures() }]
  if (setting.withKubo) {
    const { memory } = await setting.kubos()
    contenders.push({ name: 'Kubo', measure: () => memory.figures() })
  }
  for (const contender of contenders) contender.rounds = 1
  const outputs = [
    { key: 'start', title: 'memory (RSS) at the start', unit: 'bytes' } as const,
    { key: 'peak', title: 'memory (RSS) at its peak', unit: 'bytes' } as const,
  ]
  return { name: 'memory', outputs, contenders }
}
