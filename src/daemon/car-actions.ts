/**
 * Import and export of CARs on a store, for the daemon and for the commands that open a store themselves.
 *
 * Invariant: an import is reported only after a flush: what it brought survives a power failure, and its roots
 * are pinned.
 */
import type { BlockReader } from '../core/blocks.js'
import { type CID, isIdentity } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { exportCar } from '../store/car-export.js'
import { importCar } from '../store/car-import.js'
import type { Store } from '../store/store.js'
import { links } from '../unixfs/inspect.js'
import type { ImportProgress, ImportResult } from './control-protocol.js'

/** Owner of the pins that an import makes. */
export const IMPORT_OWNER = 'import'

/**
 * Keeps the blocks of a CAR and pins its roots. `used` gets the containers that must stay until then.
 * @throws CidfsError `BAD_CAR`, `UNSUPPORTED_HASH`, `INTERRUPTED`, `NO_SPACE`; blocks before the fault stay.
 */
export async function importAndPin(
  store: Store,
  car: AsyncIterable<Uint8Array>,
  onProgress: (progress: ImportProgress) => void,
  signal?: AbortSignal,
  used?: Set<number>,
): Promise<ImportResult> {
  const { roots, blocks, bytes } = await importCar(store, car, { onProgress, signal, used })
  store.transaction(() => {
    for (const root of roots) if (!isIdentity(root)) store.pins.add(root, IMPORT_OWNER)
  })
  await store.flush()
  return { roots: roots.map(String), blocks, bytes }
}

/** The chunks of a CARv1 of a whole DAG, of UnixFS and other codecs; what `read` throws ends it. */
export function exportDag(root: CID, read: BlockReader, signal?: AbortSignal): AsyncIterable<Uint8Array> {
  return exportCar(root, read, links, { signal })
}

/** Reads what is held, and nothing else. @throws CidfsError `UNREACHABLE` */
export function heldBlocks(store: Store): BlockReader {
  return {
    get(cid) {
      const bytes = store.get(cid)
      if (bytes !== undefined) return bytes
      const message = `block ${cid} is not held here, and no daemon runs that could fetch it`
      throw new CidfsError('UNREACHABLE', message, { cid: cid.toString() })
    },
  }
}
