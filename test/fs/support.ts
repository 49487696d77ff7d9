/** The file system without a transport: driven by calls, over a store and a network of the test's own. */
import { readSync } from 'node:fs'
import { join } from 'node:path'
import { type CID, keyOf } from '../../src/core/cid.js'
import { CidfsError } from '../../src/core/errors.js'
import type { MaybePromise } from '../../src/core/maybe-promise.js'
import { CidFileSystem } from '../../src/fs/cid-file-system.js'
import { errnoOf } from '../../src/fs/errno.js'
import {
  type Context,
  type DirectoryEntry,
  type DirectorySink,
  type Entry,
  type Notifier,
  type ReadResult,
  ROOT_INO,
} from '../../src/fs/file-system.js'
import { type BlockNetwork, BlockService } from '../../src/sources/block-service.js'
import { NameResolver, type NameResolverOptions } from '../../src/sources/names.js'
import type { FetchOptions } from '../../src/sources/worker-client.js'
import type { Backend } from '../../src/staging/backend.js'
import { contentCopier } from '../../src/staging/copy-content.js'
import { DirectoryNames } from '../../src/staging/directory-names.js'
import { NameKeys } from '../../src/staging/name-keys.js'
import { NamePublisher } from '../../src/staging/name-publisher.js'
import { NameRecords } from '../../src/staging/name-records.js'
import { NamedPins } from '../../src/staging/named-pins.js'
import { Staging } from '../../src/staging/staging.js'
import { Store } from '../../src/store/store.js'
import { OWNER } from '../staging/support.js'
import { QUIET } from '../store/support.js'
import { Dag } from '../support/dag.js'
import { atEnd, type Owner, tempDir } from '../support/temp.js'

/** Blocks that others have: those of a test, less what it takes away. */
export class TestNetwork implements BlockNetwork {
  unavailable: string | undefined
  readonly blocks = new Map<string, Uint8Array>()
  readonly requests: string[] = []
  /** Fetches wait for their signal while it is set. */
  hang = false

  add(cid: CID, bytes: Uint8Array): this {
    this.blocks.set(keyOf(cid), bytes)
    return this
  }

  remove(cid: CID): void {
    this.blocks.delete(keyOf(cid))
  }

  count(cid: CID): number {
    return this.requests.filter(key => key === keyOf(cid)).length
  }

  async fetch(cid: CID, options: FetchOptions = {}): Promise<Uint8Array> {
    this.requests.push(keyOf(cid))
    await new Promise(resolve => setImmediate(resolve))
    if (this.hang) await new Promise(resolve => options.signal?.addEventListener('abort', resolve))
    if (options.signal?.aborted) throw new CidfsError('INTERRUPTED', 'interrupted')
    const block = this.blocks.get(keyOf(cid))
    if (block === undefined) throw new CidfsError('UNREACHABLE', `nobody has ${cid}`, { cid: `${cid}` })
    return block
  }

  raise(): void {}
}

const NO_NAMES: NameResolverOptions = {
  network: {
    unavailable: 'no network in this test',
    find: async () => ({ record: undefined, problems: [] }),
    publish: async () => [],
  },
  dns: undefined,
  offline: false,
  deadlineMs: 1000,
}

export interface WorldOptions {
  dir?: string
  resume?: boolean
  backend?: Backend
  network?: TestNetwork
  /** Nobody can be asked for a name when absent. */
  names?: (store: Store) => NameResolver
  /** Publishes nothing until `staging.start()`. */
  idle?: boolean
}

export interface Invalidation {
  ino: number
  name?: string
}

export class World {
  readonly dag: Dag
  readonly invalidations: Invalidation[] = []
  private closed = false

  private constructor(
    readonly dir: string,
    readonly store: Store,
    readonly network: TestNetwork,
    readonly blocks: BlockService,
    readonly staging: Staging,
    readonly pins: NamedPins,
    readonly fs: CidFileSystem,
  ) {
    this.dag = new Dag(network)
  }

  /** Ends with the test. */
  static async open(t: Owner, options: WorldOptions = {}): Promise<World> {
    const { resume = false, network = new TestNetwork(), backend } = options
    const dir = options.dir ?? join(await tempDir(t), 'state')
    const store = await Store.open(dir, QUIET)
    const blocks = new BlockService(store, network, { readDeadlineMs: 10_000 })
    const copyContent = contentCopier(store, blocks)
    const staging = new Staging(store, { owner: OWNER, settleMs: 0, copyContent, backend, resume })
    const controlFiles = { status: () => '{}\n' }
    const pins = new NamedPins(store, blocks)
    const names = options.names?.(store) ?? new NameResolver(store, NO_NAMES)
    const whoHas = async (cid: CID) => `{"cid":"${cid}"}\n`
    const publishing = { keys: new NameKeys(dir), records: new NameRecords(store), resolver: names }
    const publisher = new NamePublisher({ ...publishing, store, network: NO_NAMES.network })
    const directoryNames = new DirectoryNames({ staging, ...publishing, publisher })
    const parts = { store, blocks, staging, pins, names, directoryNames, whoHas }
    const fs = new CidFileSystem({ ...parts, controlFiles, resume })
    const world = new World(dir, store, network, blocks, staging, pins, fs)
    atEnd(t, () => world.close(true))
    fs.start(world.#notifier)
    if (options.idle !== true) staging.start()
    if (options.idle !== true) pins.start()
    return world
  }

  readonly #notifier: Notifier = {
    invalidateInode: ino => void this.invalidations.push({ ino }),
    invalidateEntry: (ino, name) => void this.invalidations.push({ ino, name: Buffer.from(name).toString() }),
  }

  /** `unmounted` false: another daemon will go on serving the same mount. */
  async close(unmounted: boolean): Promise<void> {
    if (this.closed) return
    this.closed = true
    await Promise.all([this.staging.stop(), this.pins.stop()])
    this.fs.stop(unmounted)
    await this.store.close()
  }

  /** What a request would be answered: the entry of a path from the root. @throws what `lookup` throws */
  async entry(path: string): Promise<Entry> {
    let entry: Entry | undefined
    for (const name of path.split('/')) {
      const parent = entry === undefined ? ROOT_INO : entry.attributes.ino
      const found = await this.fs.lookup(parent, Buffer.from(name), context())
      if (found.attributes === undefined) throw new CidfsError('NOT_FOUND', path)
      entry = found
    }
    return entry!
  }

  async ino(path: string): Promise<number> {
    return (await this.entry(path)).attributes.ino
  }

  async read(ino: number, offset = 0, sizeBytes = 1 << 20): Promise<Buffer> {
    const { fh } = await this.fs.open(ino, 0, context())
    try {
      return bytesOf(await this.fs.read(ino, fh, offset, sizeBytes, context()))
    } finally {
      await this.fs.release(ino, fh, 0)
    }
  }

  /** All entries, a few at a time as the kernel asks. */
  async list(ino: number, plus = false, perReply = 3): Promise<Listed[]> {
    const { fh } = await this.fs.opendir(ino, 0, context())
    const all: Listed[] = []
    for (let offset = 0; ; ) {
      const sink = new Sink(perReply)
      await this.fs.readdir(ino, fh, offset, plus, sink, context())
      if (sink.entries.length === 0) break
      all.push(...sink.entries)
      offset = sink.entries.at(-1)!.nextOffset
    }
    await this.fs.releasedir(ino, fh)
    return all
  }

  async names(ino: number): Promise<string[]> {
    const listed = await this.list(ino)
    return listed.map(entry => Buffer.from(entry.name).toString()).filter(name => !/^\.\.?$/.test(name))
  }

  async xattr(ino: number, name: string): Promise<string> {
    return Buffer.from(await this.fs.getxattr(ino, name, context())).toString()
  }

  /** A new file in `staging/`, written and closed. */
  async stage(name: string, data: Uint8Array | string, parent?: number): Promise<number> {
    const into = parent ?? (await this.ino('staging'))
    const { entry, opened } = await this.fs.create(into, Buffer.from(name), 0o644, O_RDWR, context())
    const { ino } = entry.attributes
    await this.fs.write(ino, opened.fh, 0, Buffer.from(data), O_RDWR, context())
    await this.fs.release(ino, opened.fh, O_RDWR)
    return ino
  }
}

export const O_WRONLY = 0o1
export const O_RDWR = 0o2

export type Listed = DirectoryEntry & { attributes?: Entry | undefined }

/** Takes `capacity` entries. */
export class Sink implements DirectorySink {
  readonly entries: Listed[] = []

  constructor(readonly capacity = Number.POSITIVE_INFINITY) {}

  add(entry: DirectoryEntry): boolean {
    return this.addPlus(entry, undefined)
  }

  addPlus(entry: DirectoryEntry, attributes: Entry | undefined): boolean {
    if (this.entries.length >= this.capacity) return false
    this.entries.push({ ...entry, attributes })
    return true
  }
}

export function context(signal = new AbortController().signal): Context {
  return { uid: 1000, gid: 1000, pid: 1, signal }
}

/** What the transport would send, and gives back. */
export function bytesOf(result: ReadResult): Buffer {
  if (result instanceof Uint8Array) return Buffer.from(result)
  try {
    return Buffer.concat(
      result.ranges.map(({ fd, offset, length }) => {
        const part = Buffer.alloc(length)
        return part.subarray(0, readSync(fd, part, 0, length, offset))
      }),
    )
  } finally {
    result.release()
  }
}

/** The errno a call ends with; 0 when it ends well. */
export async function errno(call: () => MaybePromise<unknown>): Promise<number> {
  try {
    await call()
    return 0
  } catch (err) {
    return errnoOf(err)
  }
}
