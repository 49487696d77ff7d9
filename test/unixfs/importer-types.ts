import type { ReadableStorage } from 'ipfs-unixfs-exporter'
import type { WritableStorage } from 'ipfs-unixfs-importer'

/** What the stock importer and exporter need of a block store. */
export type Importer = WritableStorage & ReadableStorage
