/** A staging tree over a store of its own, written to as the file system writes. */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { CID } from '../../src/core/cid.js'
import { CidfsError, codeOf } from '../../src/core/errors.js'
import type { Backend } from '../../src/staging/backend.js'
import { type CopyContent, contentCopier } from '../../src/staging/copy-content.js'
import { currentCid, STAGING_ROOT_INO, type StagingNode } from '../../src/staging/node.js'
import { Staging } from '../../src/staging/staging.js'
import type { SpaceLimits } from '../../src/store/space.js'
import { Store } from '../../src/store/store.js'
import { FileTable } from '../../src/unixfs/file-table.js'
import { QUIET } from '../store/support.js'
import { atEnd, type Owner, tempDir } from '../support/temp.js'
import { until } from '../support/until.js'

export const OWNER = { uid: 1000, gid: 1000 }
export const ROOT = STAGING_ROOT_INO

export interface StageOptions {
  dir?: string
  settleMs?: number
  backend?: Backend
  copyContent?: CopyContent
  resume?: boolean
  /** Of another boot of the machine than the last: what was not synced is gone. */
  bootId?: string
  localNames?: readonly string[]
  space?: SpaceLimits
  /** Publishes nothing until `staging.start()`. */
  idle?: boolean
}

export function bytes(text: string): Uint8Array {
  return Buffer.from(text)
}

/** Bytes that differ from one seed to the next and from chunk to chunk. */
export function content(sizeBytes: number, seed = 1): Uint8Array {
  const words = new Uint32Array(Math.ceil(sizeBytes / 4))
  let state = seed * 2654435761
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    words[i] = state
  }
  return new Uint8Array(words.buffer, 0, sizeBytes)
}

export class Stage {
  private constructor(
    readonly store: Store,
    readonly staging: Staging,
    readonly dir: string,
  ) {}

  private closed = false

  /** Ends with the test. */
  static async open(t: Owner, options: StageOptions = {}): Promise<Stage> {
    const dir = options.dir ?? join(await tempDir(t), 'state')
    const { bootId, space } = options
    const storeOptions = {
      ...QUIET,
      ...(bootId === undefined ? {} : { bootId }),
      ...(space === undefined ? {} : { space }),
    }
    const store = await Store.open(dir, storeOptions)
    const blocks = { get: (cid: CID) => blockOf(store, cid) }
    const { settleMs = 0, copyContent = contentCopier(store, blocks), backend, resume = false } = options
    const localNames = options.localNames === undefined ? {} : { localNames: options.localNames }
    const staging = new Staging(store, {
      owner: OWNER,
      settleMs,
      copyContent,
      backend,
      resume,
      ...localNames,
    })
    const stage = new Stage(store, staging, dir)
    atEnd(t, () => stage.close())
    if (options.idle !== true) staging.start()
    return stage
  }

  /** As a daemon that ends well. */
  async close(): Promise<void> {
    if (this.closed) return
    this.closed = true
    await this.staging.stop()
    await this.store.close()
  }

  /** As a daemon that is killed: what was in memory only is lost. */
  async crash(): Promise<void> {
    this.closed = true
    const { contents } = this.staging
    contents.saveAll = () => {} // neither the timer nor `stop` may store what a crash would have lost
    await this.staging.stop()
    await this.store.close()
  }

  mkdir(name: string, parent = ROOT): number {
    return this.staging.createDirectory(parent, bytes(name), 0o755, OWNER).ino
  }

  create(name: string, parent = ROOT): number {
    const { ino } = this.staging.createFile(parent, bytes(name), 0o644, OWNER, true)
    this.staging.open(ino, true, false)
    return ino
  }

  /** A new file, written and closed. */
  async write(name: string, data: Uint8Array | string, parent = ROOT): Promise<number> {
    const ino = this.create(name, parent)
    await this.staging.contents.write(ino, 0, Buffer.from(data), false)
    this.staging.close(ino, true)
    return ino
  }

  /** Opens an existing file, writes at `offset`, closes. */
  async rewrite(ino: number, data: Uint8Array | string, offset = 0, truncate = false): Promise<void> {
    this.staging.open(ino, true, truncate)
    await this.staging.contents.write(ino, offset, Buffer.from(data), false)
    this.staging.close(ino, true)
  }

  node(ino: number): StagingNode {
    return this.staging.names.get(ino)
  }

  lookup(name: string, parent = ROOT): StagingNode | undefined {
    return this.staging.names.lookup(parent, bytes(name))
  }

  list(parent = ROOT): string[] {
    return [...this.staging.names.entries(parent)].map(item => Buffer.from(item.name).toString())
  }

  state(ino: number): string {
    return this.staging.publicationOf(this.node(ino)).state
  }

  /** The CID, once everything about the node is published. */
  async cid(ino: number): Promise<CID> {
    await until(`node ${ino} is pinned`, () => this.state(ino) === 'pinned')
    return currentCid(this.node(ino))!
  }

  /** Nothing is left to publish. */
  async idle(): Promise<void> {
    await until('the queue is empty', () => [...this.staging.queue.jobs()].length === 0)
  }

  /** The content of a file as a reader of the mount gets it. */
  async read(ino: number): Promise<Uint8Array> {
    const { sizeBytes } = this.node(ino)
    const working = this.staging.contents.read(ino, 0, sizeBytes)
    if (working !== undefined) {
      try {
        const { fd, offset, length } = working.range
        return (await readFile(`/proc/self/fd/${fd}`)).subarray(offset, offset + length)
      } finally {
        working.release()
      }
    }
    const cid = currentCid(this.node(ino))
    return cid === undefined ? new Uint8Array(0) : this.readCid(cid)
  }

  /** The content under a CID, out of the store. */
  async readCid(cid: CID): Promise<Uint8Array> {
    const blocks = { get: (block: CID) => blockOf(this.store, block) }
    const table = FileTable.open(cid, blocks.get(cid))
    const result = new Uint8Array(table.sizeBytes)
    for (const span of await table.spans(0, table.sizeBytes, blocks)) {
      const data =
        span.cid === undefined
          ? span.inline
          : blocks.get(span.cid).subarray(span.dataOffset, span.dataOffset + span.length)
      result.set(data, span.start)
    }
    return result
  }

  objectExists(container: number): boolean {
    try {
      return existsSync(this.store.objectPath(container))
    } catch (err) {
      if (codeOf(err) === 'INVALID') return false
      throw err
    }
  }
}

function blockOf(store: Store, cid: CID): Uint8Array {
  const block = store.get(cid)
  if (block === undefined) throw new CidfsError('UNREACHABLE', `${cid} is not held`)
  return block
}

/** A back-end in memory that fails and waits on demand, and remembers what it was told in order. */
export class FakeBackend implements Backend {
  readonly name = 'fake'
  readonly pinned = new Set<string>()
  readonly calls: string[] = []
  /** Thrown by each call while it is set. */
  broken: string | undefined
  /** Calls wait for it. */
  gate: Promise<void> | undefined
  active = 0

  async publish(cid: CID, label: string, signal: AbortSignal): Promise<void> {
    await this.#call(`pin ${label} ${cid}`, signal)
    this.pinned.add(cid.toString())
  }

  async unpublish(cid: CID, signal: AbortSignal): Promise<void> {
    await this.#call(`unpin ${cid}`, signal)
    this.pinned.delete(cid.toString())
  }

  async #call(what: string, signal: AbortSignal): Promise<void> {
    this.calls.push(what)
    this.active++
    try {
      await Promise.race([this.gate, aborted(signal)])
      await new Promise(resolve => setImmediate(resolve))
      if (signal.aborted) throw new CidfsError('INTERRUPTED', 'interrupted')
      if (this.broken !== undefined) throw new CidfsError('BACKEND', this.broken)
    } finally {
      this.active--
    }
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise(resolve => signal.addEventListener('abort', () => resolve(), { once: true }))
}

/** FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE */
export const PUNCH_HOLE = 0x03
