/**
 * Import, export and fsck where no daemon runs: the command opens the store itself, for as long as it works.
 *
 * Invariant: export and fsck never create a store. Another process that holds it is told from the lock.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { exportDag, heldBlocks, importAndPin } from '../daemon/car-actions.js'
import type { FsckProgress, FsckReport, ImportProgress, ImportResult } from '../daemon/control-protocol.js'
import { checkStore } from '../daemon/maintenance.js'
import { Store } from '../store/store.js'

/** As `importAndPin`. @throws CidfsError also `STATE_IN_USE`, `STATE_VERSION`. */
export async function importOffline(
  stateDir: string,
  car: AsyncIterable<Uint8Array>,
  onProgress: (progress: ImportProgress) => void,
): Promise<ImportResult> {
  const store = await Store.open(stateDir)
  try {
    return await importAndPin(store, car, onProgress)
  } finally {
    await store.close()
  }
}

/** As `checkStore`. @throws CidfsError also `NOT_RUNNING` when there is no store, `STATE_IN_USE`, `STATE_VERSION`. */
export async function fsckOffline(
  stateDir: string,
  repair: boolean,
  onProgress: (progress: FsckProgress) => void,
): Promise<FsckReport> {
  const store = await openExisting(stateDir)
  try {
    return await checkStore(store, { repair, onProgress })
  } finally {
    await store.close()
  }
}

/** The chunks of a CARv1. @throws CidfsError `UNREACHABLE` for a block that is not held. */
export async function* exportOffline(stateDir: string, cid: CID): AsyncGenerator<Uint8Array> {
  const store = await openExisting(stateDir)
  try {
    yield* exportDag(cid, heldBlocks(store))
  } finally {
    await store.close()
  }
}

function openExisting(stateDir: string): Promise<Store> {
  if (existsSync(join(stateDir, 'version'))) return Store.open(stateDir)
  throw new CidfsError('NOT_RUNNING', `no daemon runs, and there is no store in ${stateDir}`, {
    path: stateDir,
  })
}
