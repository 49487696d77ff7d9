/**
 * The registry of containers: the files that hold blocks, as packs or as objects.
 *
 * Invariant: an index entry counts only while its container is registered and covers its range (`covers`). So
 * a container and all its blocks go in one write, without a walk over the index; ids are never used again,
 * so an entry left behind can never come to mean other bytes.
 */
import type { Database } from 'lmdb'
import type { Location } from '../core/blocks.js'
import type { Environment } from './environment.js'
import type { StateDirectory } from './state-directory.js'

export type ContainerKind = 'pack' | 'object'

export interface Container {
  readonly id: number
  readonly kind: ContainerKind
  /** Nothing is added any more. */
  sealed: boolean
  /** Blocks lie below this offset (bytes). 0 for an object that is not sealed. */
  length: number
  /** Bytes known to be on disk; below `length` there is something to sync. */
  synced: number
}

type Stored = Omit<Container, 'id'>

interface Meta {
  /** Ids from here on were never used. */
  nextId: number
  /** The last `close` was complete. */
  clean: boolean
}

const FRESH: Meta = { nextId: 1, clean: true }

export class Containers {
  readonly #env: Environment
  readonly #state: StateDirectory
  readonly #records: Database<Stored, number>
  readonly #meta: Database<Meta, string>
  readonly #byId = new Map<number, Container>()
  #nextId: number
  /** Whether the last `close` was complete, so that nothing is to be repaired. */
  readonly wasClean: boolean

  constructor(env: Environment, state: StateDirectory) {
    this.#env = env
    this.#state = state
    this.#records = env.numbered('containers')
    this.#meta = env.named('meta')
    for (const { key, value } of this.#records.getRange({ start: 0 }))
      this.#byId.set(key, { id: key, ...value })
    const { nextId, clean } = this.#meta.get('containers') ?? FRESH
    this.#nextId = Math.max(nextId, ...[...this.#byId.keys()].slice(-1).map(last => last + 1))
    this.wasClean = clean && !env.restored
  }

  get(id: number): Container | undefined {
    return this.#byId.get(id)
  }

  values(): IterableIterator<Container> {
    return this.#byId.values()
  }

  /** Ids from here on belong to containers that do not exist yet. */
  get nextId(): number {
    return this.#nextId
  }

  path(container: Container): string {
    return container.kind === 'pack'
      ? this.#state.packPath(container.id)
      : this.#state.objectPath(container.id)
  }

  /** Whether the range of a location is in a container that still exists. */
  covers(location: Location): boolean {
    const container = this.#byId.get(location.container)
    return container !== undefined && location.offset + location.length <= container.length
  }

  /** Registers a new container; its file is the caller's to create. */
  create(kind: ContainerKind): Container {
    return this.#env.transaction(() => this.adopt(kind, this.#nextId))
  }

  /** Registers a container under an id that a file already has. */
  adopt(kind: ContainerKind, id: number): Container {
    const container: Container = { id, kind, sealed: false, length: 0, synced: 0 }
    this.#env.transaction(() => {
      this.#byId.set(id, container)
      // a pack was written to all the same and stays: the next flush records it
      if (kind === 'object') this.#env.onRollback(() => this.#byId.delete(id))
      this.#nextId = Math.max(this.#nextId, id + 1)
      this.record(container)
      this.#writeMeta(false)
    })
    return container
  }

  /** Writes down what is known about a container. */
  record({ id, kind, sealed, length, synced }: Container): void {
    this.#records.putSync(id, { kind, sealed, length, synced })
  }

  /** Forgets a container and with it its blocks. The file is the caller's to remove, once that is synced. */
  remove(container: Container): void {
    this.#env.transaction(() => {
      this.#byId.delete(container.id)
      this.#env.onRollback(() => this.#byId.set(container.id, container))
      this.#records.removeSync(container.id)
    })
  }

  /** Containers with bytes that may not be on disk. */
  unsynced(): Container[] {
    return [...this.#byId.values()].filter(container => container.synced < container.length)
  }

  markClean(clean: boolean): void {
    this.#env.transaction(() => this.#writeMeta(clean))
  }

  #writeMeta(clean: boolean): void {
    this.#meta.putSync('containers', { nextId: this.#nextId, clean })
  }
}
