/** A cidfs contender that begins every round with an empty state; `prepare` is not measured. */
import type { Mount, MountOptions } from '../../test/support/mount.js'
import type { Measured } from './probe.js'
import type { Contender } from './row.js'
import type { Setting } from './setting.js'

export function freshMount(
  setting: Setting,
  name: string,
  options: MountOptions,
  measure: (mount: Mount, round: number) => Promise<Measured>,
  prepare: (mount: Mount) => Promise<void> = async () => {},
): Contender {
  const scope = setting.newScope()
  let mount: Mount | undefined
  return {
    name,
    async prepare() {
      mount = await setting.cidfs.start(scope, options)
      await prepare(mount)
      await setting.dropCaches()
    },
    measure: round => measure(mount!, round),
    async finish() {
      const [error] = await scope.end()
      if (error !== undefined) throw error
    },
    pids: () => [mount!.pid],
  }
}
