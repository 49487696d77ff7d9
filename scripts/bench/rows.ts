/** All rows, in the order of the table. A row is made when its turn comes. */
import { coldList, hotList, warmList } from './list-rows.js'
import { memory } from './memory-row.js'
import { coldReadFromPeer, streamFromPeer } from './peer-rows.js'
import { publishBig, publishSmall } from './publish-rows.js'
import { coldRead, hotRead, randomRead, warmRead } from './read-rows.js'
import type { Row } from './row.js'
import type { Setting } from './setting.js'
import { writes } from './write-rows.js'

export interface RowMaker {
  name: string
  make(setting: Setting): Promise<Row>
  /** Has nothing to say without a Kubo. */
  needsKubo?: boolean
}

const MIB = 2 ** 20
const PAGE = 4096

export const ROWS: readonly RowMaker[] = [
  { name: 'cold-read', make: coldRead, needsKubo: true },
  { name: 'cold-peer', make: coldReadFromPeer, needsKubo: true },
  { name: 'warm-read', make: warmRead },
  { name: 'hot-read', make: hotRead },
  { name: 'random-read', make: randomRead },
  { name: 'cold-list', make: coldList, needsKubo: true },
  { name: 'warm-list', make: warmList },
  { name: 'hot-list', make: hotList },
  { name: 'publish-big', make: publishBig },
  { name: 'publish-small', make: publishSmall },
  { name: 'write-1-MiB', make: setting => writes(setting, MIB, false) },
  { name: 'write-1-MiB-fsync', make: setting => writes(setting, MIB, true) },
  { name: 'write-4-KiB', make: setting => writes(setting, PAGE, false) },
  { name: 'write-4-KiB-fsync', make: setting => writes(setting, PAGE, true) },
  { name: 'stream-peer', make: streamFromPeer, needsKubo: true },
  { name: 'memory', make: memory },
]
