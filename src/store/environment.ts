/**
 * The LMDB environment of the state directory: databases, transactions, durability.
 *
 * Invariant: one thread writes, and only with the synchronous calls (`putSync`, `removeSync`, and anything
 * inside `transaction`), so that what was written is visible to the next read and survives the death of the
 * process. `persist` makes it survive the death of the machine as well.
 * Why not lmdb's asynchronous `put`: reads do not see it until it is committed, and each commit syncs.
 */
import * as fs from 'node:fs'
import { type Database, open, type RootDatabase } from 'lmdb'
import { CidfsError, codeOf, messageOf } from '../core/errors.js'
import {
  type CapturedState,
  checkMetaPages,
  currentBootId,
  damaged,
  IndexSnapshot,
  restoreAfterReboot,
} from './index-snapshot.js'
import { type StateDirectory, syncDirectorySync } from './state-directory.js'

/** Room for the databases of the upper layers. */
const MAX_DATABASES = 64
/** Address space, not memory; the map grows beyond it when it must. */
const INITIAL_MAP_BYTES = 1024 * 1024 * 1024
/** A disk with less is full: that of tmpfs grows by pages, others by larger blocks. */
const FULL_BYTES = 1024 * 1024
/** lmdb-js: commit before returning. Whether it syncs is a property of the environment (it does not). */
const SYNCHRONOUS_COMMIT = 2

/** A database of the environment whose keys and values are bytes. */
export type BinaryDatabase = Database<Uint8Array, Uint8Array>

export class Environment {
  /** For the upper layers' own databases. */
  readonly root: RootDatabase
  /** Whether the index went back to its last synced state because the machine was booted. */
  readonly restored: boolean
  readonly #snapshot: IndexSnapshot
  readonly #path: string
  #onCommit: () => void = () => {}
  #onFull: () => void = () => {}
  /** How to take back what was changed in memory by the transaction under way; undefined outside one. */
  #undo: (() => void)[] | undefined

  /**
   * @param bootId tells one boot of the machine from another
   * @throws CidfsError `STORE_DAMAGED`.
   */
  constructor(state: StateDirectory, bootId: string = currentBootId()) {
    this.#path = state.indexPath
    this.restored = restoreAfterReboot(state.indexPath, state.snapshotPath, bootId)
    checkMetaPages(state.indexPath)
    this.root = openRoot(state.indexPath)
    this.#snapshot = this.#guard(() => this.#protect(state, bootId))
    for (const file of [state.indexPath, `${state.indexPath}-lock`]) fs.chmodSync(file, 0o600)
    syncDirectorySync(state.path)
  }

  /** `listener` is called after each commit of `transaction`. */
  set onCommit(listener: () => void) {
    this.#onCommit = listener
  }

  /** `listener` is called when there was no room for a transaction. */
  set onFull(listener: () => void) {
    this.#onFull = listener
  }

  /** Opens or creates a database of bytes; keys are ordered by their bytes. */
  binary(name: string): BinaryDatabase {
    return this.#guard(() => this.root.openDB({ name, encoding: 'binary', keyEncoding: 'binary' }))
  }

  /** Opens or creates a database of JSON values under numbers below 2^32. */
  numbered<V>(name: string): Database<V, number> {
    return this.#guard(() => this.root.openDB({ name, encoding: 'json', keyEncoding: 'uint32' }))
  }

  /** Opens or creates a database of JSON values under names. */
  named<V>(name: string): Database<V, string> {
    return this.#guard(() => this.root.openDB({ name, encoding: 'json' }))
  }

  /**
   * All writes of `fn` or, when it throws, none. `fn` may not be asynchronous. Inside another transaction it
   * is part of that one, and an error has to end both.
   * @throws CidfsError `NO_SPACE`, `STORE_DAMAGED`, and what `fn` throws.
   */
  transaction<T>(fn: () => T): T {
    if (this.#undo !== undefined) return fn()
    const undo: (() => void)[] = []
    this.#undo = undo
    try {
      const result = this.root.transactionSync(() => refusePromise(fn()), SYNCHRONOUS_COMMIT)
      this.#onCommit()
      return result
    } catch (err) {
      for (const step of undo.reverse()) step()
      const translated = this.#translate(err)
      if (codeOf(translated) === 'NO_SPACE') this.#onFull()
      throw translated
    } finally {
      this.#undo = undefined
    }
  }

  /** `step` takes something back in memory if the transaction under way fails. */
  onRollback(step: () => void): void {
    this.#undo?.push(step)
  }

  /** The state as of now, to be made the safe one by `persist`; undefined when it is already. */
  capture(): CapturedState | undefined {
    return this.#guard(() => this.#snapshot.capture())
  }

  /** When it resolves, the captured state is on disk. One at a time. */
  persist(state: CapturedState): Promise<void> {
    return this.#snapshot.persist(state)
  }

  async close(): Promise<void> {
    this.#snapshot.close()
    await this.root.close()
  }

  #protect(state: StateDirectory, bootId: string): IndexSnapshot {
    try {
      return new IndexSnapshot(this.root, state.indexPath, state.snapshotPath, bootId)
    } catch (err) {
      void this.root.close()
      throw err
    }
  }

  #guard<T>(fn: () => T): T {
    try {
      return fn()
    } catch (err) {
      throw this.#translate(err)
    }
  }

  #translate(err: unknown): unknown {
    if (err instanceof CidfsError) return err
    const message = messageOf(err)
    if (/no space|ENOSPC|EDQUOT|quota/i.test(message)) {
      return new CidfsError('NO_SPACE', `no space for the index: ${message}`, {
        path: this.#path,
        cause: err,
      })
    }
    if (/input\/output error/i.test(message)) return this.#ioError(err)
    return /MDB_\w+/.test(message) ? damaged(this.#path, message, err) : err
  }

  /** LMDB says that, too, when the disk has taken only a part of a page: it was full. */
  #ioError(cause: unknown): CidfsError {
    const { bavail, bsize } = fs.statfsSync(this.#path)
    const isFull = bavail * bsize < FULL_BYTES
    return new CidfsError(isFull ? 'NO_SPACE' : 'IO', `cannot write the index: ${messageOf(cause)}`, {
      path: this.#path,
      cause,
    })
  }
}

function openRoot(path: string): RootDatabase {
  try {
    return open({
      path,
      noSync: true,
      overlappingSync: false,
      noSubdir: true,
      maxDbs: MAX_DATABASES,
      mapSize: INITIAL_MAP_BYTES,
    })
  } catch (err) {
    throw damaged(path, messageOf(err), err)
  }
}

/**
 * The least key behind `key` in a database of bytes, to go on from there. (lmdb's `exclusiveStart` is not in
 * every version; and where no start is given, some begin at the key 05.)
 */
export function keyBehind(key: Uint8Array): Uint8Array {
  const next = new Uint8Array(key.length + 1)
  next.set(key)
  return next
}

/** The least key of a database of bytes. */
export const FIRST_KEY = Uint8Array.of(0)

/** lmdb would keep the transaction open until the promise settles, over other people's writes. */
function refusePromise<T>(result: T): T {
  if (result instanceof Promise) throw new CidfsError('INVALID', 'a transaction cannot be asynchronous')
  return result
}
