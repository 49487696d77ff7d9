/** How much a store holds, in what. */
import * as fs from 'node:fs'
import type { BlockIndex } from './block-index.js'
import type { Containers } from './containers.js'

export interface Usage {
  packs: { count: number; bytes: number }
  /** Sealed ones. */
  objects: { count: number; bytes: number }
  indexBytes: number
  blocks: number
}

export function usageOf(containers: Containers, index: BlockIndex, indexPath: string): Usage {
  const usage: Usage = {
    packs: { count: 0, bytes: 0 },
    objects: { count: 0, bytes: 0 },
    indexBytes: fs.statSync(indexPath).size,
    blocks: index.count,
  }
  for (const { kind, sealed, length } of containers.values()) {
    if (kind === 'object' && !sealed) continue
    const part = kind === 'pack' ? usage.packs : usage.objects
    part.count++
    part.bytes += length
  }
  return usage
}
