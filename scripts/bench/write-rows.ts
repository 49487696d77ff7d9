/** Writing the large file piece by piece, without publishing it. */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Seconds } from './probe.js'
import { writeAll } from './probe.js'
import type { Contender, Row } from './row.js'
import type { Setting } from './setting.js'

/** So that nothing is published while something is measured; and the files are removed at once. */
const NEVER = ['--settle', '1h']

/** The same daemon where the kernel does not write to the disk by itself. */
const ORDINARY = 'passthrough off'

/** `/mfs` of Kubo takes so much only: a rate is a rate. */
const MFS_PART = 4

export async function writes(setting: Setting, requestBytes: number, fsync: boolean): Promise<Row> {
  const { bigBytes: sizeBytes } = setting.sizes
  const scope = setting.newScope()
  const mount = await setting.cidfs.start(scope, { args: NEVER })
  const ordinary = await setting.cidfs.start(scope, { args: [...NEVER, '--passthrough', 'off'] })
  const write = (dir: string, bytes = sizeBytes) => writer(join(dir, 'written'), bytes, requestBytes, fsync)
  const contenders: Contender[] = [
    { name: 'cidfs', ...write(mount.path('staging')), pids: () => [mount.pid] },
    { name: ORDINARY, ...write(ordinary.path('staging')), pids: () => [ordinary.pid] },
    { name: 'raw', ...write(setting.dir) },
  ]
  if (setting.withKubo) {
    const { node, mfs } = (await setting.kubos()).provider
    const { measure, finish } = write(mfs, sizeBytes / MFS_PART)
    const scaled = async () => ({ seconds: (await measure()).seconds! * MFS_PART })
    contenders.push({ name: 'Kubo', measure: scaled, finish, pids: () => [node.pid] })
  }
  const size = requestBytes >= 2 ** 20 ? `${requestBytes / 2 ** 20} MiB` : `${requestBytes / 1024} KiB`
  const title = `write ${size} at a time${fsync ? ', fsync' : ''}`
  const name = `write-${size.replace(' ', '-')}${fsync ? '-fsync' : ''}`
  return {
    name,
    outputs: [
      { key: 'seconds', title, unit: 'rate', sizeBytes },
      { key: 'seconds', title: `${title}, ${ORDINARY}`, unit: 'rate', sizeBytes, ours: ORDINARY },
    ],
    contenders,
    end: () => scope.end(),
  }
}

function writer(path: string, sizeBytes: number, requestBytes: number, fsync: boolean) {
  return {
    measure: (): Promise<Seconds> => writeAll(path, sizeBytes, requestBytes, fsync),
    finish: () => rm(path, { force: true }),
  }
}
