/**
 * The pins with names: `pins/`, `cidfs pin`.
 *
 * Invariant: a name, its pin in the store and what is known of its progress change in one transaction. A DAG is
 * pinned from the moment it is named, so nothing of it that is here or arrives is collected; `pinned` says that
 * all of it is here, and on the disk. What a pin replaces is given back when the new one is `pinned`, not before.
 * Fetching goes on after a restart, and after a failure with back-off: nothing is dropped.
 */
import { CID, isIdentity } from '../core/cid.js'
import { CidfsError, messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { type DagBlocks, type DagProgress, type DagResult, fetchDag } from '../sources/fetch-dag.js'
import { dagKey } from '../store/cid-key.js'
import type { Store } from '../store/store.js'
import { completeness } from '../store/walk.js'
import { links } from '../unixfs/inspect.js'
import { FIRST_RETRY_MS, retryDelayMs } from './back-off.js'
import type { Owner } from './namespace.js'
import { now, type Timestamp } from './node.js'
import { type PinRecord, PinRecords } from './pin-records.js'

const log = logger('staging:named-pins')

/** DAGs that are fetched at the same time; each of them fetches many blocks. */
const CONCURRENCY = 2

/** Begins every owner of a pin that this module makes in the store; its id follows. */
const OWNER_PREFIX = 'pin:'

export type PinState = 'queued' | 'fetching' | 'pinned' | 'failed'

export interface NamedPin {
  readonly ino: number
  readonly name: Buffer
  readonly cid: CID
  readonly uid: number
  readonly gid: number
  readonly mtime: Timestamp
  readonly ctime: Timestamp
  readonly state: PinState
  /** Blocks held of those known; undefined unless it is `fetching`. */
  readonly progress: DagProgress | undefined
  /** Attempts that have failed since it was last complete, and what the last one met. */
  readonly tries: number
  readonly error: string | undefined
}

/** Only what is present changes. */
export interface PinChanges {
  uid?: number
  gid?: number
  mtime?: Timestamp
}

export interface NamedPinsOptions {
  /** Milliseconds from a failure to the next attempt; doubles each time. */
  firstRetryMs?: number
}

interface Run {
  controller: AbortController
  progress: DagProgress
}

export class NamedPins {
  readonly #store: Store
  readonly #blocks: DagBlocks
  readonly #records: PinRecords
  readonly #firstRetryMs: number
  /** Pins that are not complete, and the clock time in milliseconds from which to try. */
  readonly #due = new Map<number, number>()
  readonly #running = new Map<number, Run>()
  #timer: NodeJS.Timeout | undefined
  #stopped = true
  #ended: (() => void) | undefined

  constructor(store: Store, blocks: DagBlocks, options: NamedPinsOptions = {}) {
    this.#store = store
    this.#blocks = blocks
    this.#records = new PinRecords(store)
    this.#firstRetryMs = options.firstRetryMs ?? FIRST_RETRY_MS
    for (const { ino, pinned } of this.#records.list()) if (!pinned) this.#due.set(ino, 0)
  }

  start(): void {
    this.#stopped = false
    this.#schedule()
  }

  /** Resolves when nothing runs any more; the rest is for the next start. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    for (const { controller } of this.#running.values()) controller.abort()
    if (this.#running.size > 0) await new Promise<void>(resolve => (this.#ended = resolve))
  }

  /**
   * Pins a DAG under a name; it is fetched from now on.
   * @throws CidfsError `EXISTS`, `NAME_TOO_LONG`.
   */
  create(name: Uint8Array, cid: CID, owner: Owner): NamedPin {
    if (this.#records.findNamed(name) !== undefined) throw new CidfsError('EXISTS', 'name is taken')
    const ino = this.#change(() => {
      const time = now()
      const at = this.#records.nextIno()
      const record = { ino: at, name: Buffer.from(name), cid: cid.bytes, mtime: time, ctime: time }
      this.#records.put({ ...record, uid: owner.uid, gid: owner.gid, pinned: false, tries: 0, old: [] })
      this.#hold(at, cid.bytes)
      return at
    })
    this.#queue(ino)
    return this.get(ino)
  }

  /** Unpins. @throws CidfsError `NOT_FOUND`. */
  remove(name: Uint8Array): void {
    const record = this.#existing(name)
    this.#change(() => this.#drop(record))
    this.#forget(record.ino)
  }

  /**
   * rename(2), `replace` false as with RENAME_NOREPLACE. What it replaces stays pinned until the other is complete.
   * @throws CidfsError `NOT_FOUND`, `EXISTS`, `NAME_TOO_LONG`.
   */
  rename(name: Uint8Array, newName: Uint8Array, replace: boolean): void {
    const record = this.#existing(name)
    const target = this.#records.findNamed(newName)
    if (target !== undefined && !replace) throw new CidfsError('EXISTS', 'name is taken')
    if (target?.ino === record.ino) return
    this.#change(() => {
      const inherited = target === undefined ? [] : [target.cid, ...target.old]
      if (target !== undefined) this.#drop(target)
      this.#records.remove(record)
      this.#records.put({
        ...record,
        name: Buffer.from(newName),
        ctime: now(),
        old: this.#inherit(record, inherited),
      })
    })
    if (target !== undefined) this.#forget(target.ino)
  }

  /** RENAME_EXCHANGE */
  exchange(name: Uint8Array, otherName: Uint8Array): void {
    const [a, b] = [this.#existing(name), this.#existing(otherName)]
    const time = now()
    this.#change(() => {
      this.#records.put({ ...a, name: b.name, ctime: time })
      this.#records.put({ ...b, name: a.name, ctime: time })
    })
  }

  /** What `record` has to keep pinned until it is complete itself. */
  #inherit(record: PinRecord, cids: Uint8Array[]): Uint8Array[] {
    if (record.pinned) return []
    const inherited = cids.filter(cid => !sameDag(cid, record.cid))
    for (const cid of inherited) this.#hold(record.ino, cid)
    return [...record.old, ...inherited]
  }

  setAttributes(ino: number, changes: PinChanges): NamedPin {
    const record = this.#record(ino)
    this.#store.transaction(() => this.#records.put({ ...record, ...changes, ctime: now() }))
    return this.get(ino)
  }

  /** @throws CidfsError `NAME_TOO_LONG`. */
  lookup(name: Uint8Array): NamedPin | undefined {
    const record = this.#records.findNamed(name)
    return record && this.#describe(record)
  }

  find(ino: number): NamedPin | undefined {
    const record = this.#records.find(ino)
    return record && this.#describe(record)
  }

  /** @throws CidfsError `STALE` for an id that is not (any more) a pin. */
  get(ino: number): NamedPin {
    return this.#describe(this.#record(ino))
  }

  /** The pin that has made a store's pin of this owner. */
  ofOwner(owner: string): NamedPin | undefined {
    const ino = owner.startsWith(OWNER_PREFIX) ? Number(owner.slice(OWNER_PREFIX.length)) : Number.NaN
    return Number.isSafeInteger(ino) ? this.find(ino) : undefined
  }

  /** Pins with ids above `after`, in the order in which they were made. */
  *list(after = 0): Generator<NamedPin> {
    for (const record of this.#records.list(after)) yield this.#describe(record)
  }

  /** Those that are not complete. */
  *pending(): Generator<NamedPin> {
    for (const ino of [...this.#due.keys()]) {
      const pin = this.find(ino)
      if (pin !== undefined) yield pin
    }
  }

  /** When a name was last made, changed or removed; undefined: never. */
  get changed(): Timestamp | undefined {
    return this.#records.changed
  }

  /** What failed is tried again now, whatever its back-off says. */
  retry(ino: number): void {
    if (this.#due.has(ino)) this.#queue(ino)
  }

  /** As `retry`, of all that have failed. */
  retryFailed(): void {
    for (const { ino, state } of [...this.pending()]) if (state === 'failed') this.retry(ino)
  }

  /** Blocks were lost: what was complete is looked through again, and what is missing is fetched. */
  recheck(): void {
    const complete = [...this.#records.list()].filter(({ pinned }) => pinned)
    this.#store.transaction(() => {
      for (const record of complete) this.#records.put({ ...record, pinned: false })
    })
    for (const { ino } of complete) this.#due.set(ino, 0)
    this.#schedule()
  }

  #existing(name: Uint8Array): PinRecord {
    const record = this.#records.findNamed(name)
    if (record === undefined) throw new CidfsError('NOT_FOUND', 'no such pin')
    return record
  }

  #record(ino: number): PinRecord {
    const record = this.#records.find(ino)
    if (record === undefined) throw new CidfsError('STALE', `no pin ${ino}`)
    return record
  }

  #describe(record: PinRecord): NamedPin {
    const { ino, pinned, tries, error } = record
    const run = this.#running.get(ino)
    const pending = run !== undefined ? 'fetching' : tries > 0 ? 'failed' : 'queued'
    return {
      ...record,
      name: Buffer.from(record.name),
      cid: CID.decode(record.cid),
      state: pinned ? 'pinned' : pending,
      progress: pinned ? undefined : run?.progress,
      tries,
      error,
    }
  }

  #change<T>(fn: () => T): T {
    return this.#store.transaction(() => {
      this.#records.changed = now()
      return fn()
    })
  }

  /** An identity CID is its own content: nothing can take it away. */
  #hold(ino: number, cid: Uint8Array): void {
    const decoded = CID.decode(cid)
    if (!isIdentity(decoded)) this.#store.pins.add(decoded, ownerOf(ino))
  }

  #release(ino: number, cids: Uint8Array[]): void {
    for (const cid of cids) this.#store.pins.remove(CID.decode(cid), ownerOf(ino))
  }

  #drop(record: PinRecord): void {
    this.#release(record.ino, [record.cid, ...record.old])
    this.#records.remove(record)
  }

  #forget(ino: number): void {
    this.#due.delete(ino)
    this.#running.get(ino)?.controller.abort()
  }

  #queue(ino: number): void {
    this.#due.set(ino, 0)
    this.#schedule()
  }

  #schedule(): void {
    if (this.#stopped || this.#running.size >= CONCURRENCY) return
    let dueMs = Number.POSITIVE_INFINITY
    for (const [ino, ms] of this.#due) if (ms < dueMs && !this.#running.has(ino)) dueMs = ms
    clearTimeout(this.#timer)
    if (dueMs === Number.POSITIVE_INFINITY) return
    this.#timer = setTimeout(() => this.#pump(), Math.max(0, dueMs - Date.now()))
  }

  #pump(): void {
    const nowMs = Date.now()
    for (const [ino, dueMs] of this.#due) {
      if (this.#stopped || this.#running.size >= CONCURRENCY) return
      if (dueMs > nowMs || this.#running.has(ino)) continue
      const run = { controller: new AbortController(), progress: { done: 0, known: 1 } }
      this.#running.set(ino, run)
      void this.#run(ino, run).finally(() => this.#finished(ino))
    }
    this.#schedule()
  }

  #finished(ino: number): void {
    this.#running.delete(ino)
    if (this.#stopped && this.#running.size === 0) this.#ended?.()
    this.#schedule()
  }

  async #run(ino: number, run: Run): Promise<void> {
    const { signal } = run.controller
    try {
      const root = CID.decode(this.#record(ino).cid)
      const onProgress = ({ done, known }: DagProgress) => void Object.assign(run.progress, { done, known })
      const result = await fetchDag(this.#blocks, root, links, { signal, onProgress })
      if (result.missed > 0) throw incomplete(result)
      await this.#confirm(ino, root, signal)
      await this.#store.flush()
      if (!signal.aborted) this.#complete(ino)
    } catch (err) {
      if (!signal.aborted) this.#failed(ino, messageOf(err))
    }
  }

  /**
   * Garbage collection may have passed by while the way to a block that is held was not: such a block was not
   * wanted then. From the second `#hold` on, one that runs keeps all of the DAG.
   */
  async #confirm(ino: number, root: CID, signal: AbortSignal): Promise<void> {
    if (!signal.aborted) this.#hold(ino, root.bytes)
    const found = await completeness(this.#store, root, links, { signal, stopAtFirstMissing: true })
    if (found.held) return
    if (this.#store.space.isFull)
      throw new CidfsError('NO_SPACE', 'no space left to keep all of it: unpin, or remove files')
    const message = `block ${found.firstMissing} was collected while others were fetched`
    throw new CidfsError('UNREACHABLE', message, { cid: `${found.firstMissing}` })
  }

  #complete(ino: number): void {
    const { error: _, ...record } = this.#record(ino)
    this.#store.transaction(() => {
      this.#release(ino, record.old)
      this.#records.put({ ...record, pinned: true, tries: 0, old: [] })
    })
    this.#due.delete(ino)
  }

  #failed(ino: number, error: string): void {
    const record = this.#record(ino)
    const tries = record.tries + 1
    log('%s: try %d: %s', record.name, tries, error)
    this.#due.set(ino, Date.now() + retryDelayMs(tries, this.#firstRetryMs))
    try {
      this.#store.transaction(() => this.#records.put({ ...record, tries, error }))
    } catch (err) {
      // a full disk: nobody is told why, and it is tried again all the same
      log('%s: %s', record.name, messageOf(err))
    }
  }
}

function ownerOf(ino: number): string {
  return `${OWNER_PREFIX}${ino}`
}

/** Whether the store counts them as one: version 0 and 1 of a CID are. */
function sameDag(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(dagKey(CID.decode(a)), dagKey(CID.decode(b))) === 0
}

/** Says the reason of the first, in the manner of a read that fails. */
function incomplete({ missed, firstMissed }: DagResult): Error {
  const others = missed > 1 ? ` (and ${missed - 1} more)` : ''
  return new CidfsError('UNREACHABLE', `${messageOf(firstMissed?.error)}${others}`)
}
