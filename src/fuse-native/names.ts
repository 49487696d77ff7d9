/**
 * From paths to node ids: libfuse speaks of paths, a file system of ids that are looked up and forgotten.
 *
 * Invariant: each `Name` stands for exactly one lookup of its node, which is given back when the name has left the
 * table and nobody holds it. The table is bounded; names that are held may exceed that. Names change only
 * through this transport, or have a time to live that says so.
 *
 * libfuse renames a file that is unlinked while it is open (`.fuse_hidden…`), because paths are all it has. Here the
 * file loses its name as it should, and its node is found under the hidden one until it is closed.
 */
import { CidfsError } from '../core/errors.js'
import { isPromise, type MaybePromise, then } from '../core/maybe-promise.js'
import { type Context, type Entry, type FileSystem, type Ino, ROOT_INO } from '../fs/file-system.js'
import { parsePath } from './paths.js'

const MAX_NAMES = 10_000
const HIDDEN = /^\.fuse_hidden[0-9a-f]{16}$/

/** A node that was looked up, by the name under which it was. */
export interface Name {
  readonly ino: Ino
  readonly key: string
  readonly expiresMs: number
  /** Handles and operations that need the node. */
  holds: number
  /** In the table. */
  known: boolean
}

export class Names {
  readonly #fs: FileSystem
  readonly #maxNames: number
  /** Least recently used first. */
  readonly #table = new Map<string, Name>()
  readonly #hidden = new Map<string, Name>()
  /** Hidden until a moment ago. */
  readonly #closed = new Set<string>()
  readonly #root: Name = { ino: ROOT_INO, key: '', expiresMs: Infinity, holds: 1, known: true }

  constructor(fs: FileSystem, maxNames = MAX_NAMES) {
    this.#fs = fs
    this.#maxNames = maxNames
  }

  /** Names that are kept although nobody may need them. */
  get size(): number {
    return this.#table.size
  }

  /** The node at `path`, held: `release` it. @throws CidfsError `NOT_FOUND`, and what lookups throw. */
  resolve(path: string, ctx: Context): MaybePromise<Name> {
    const names = parsePath(path)
    let at = this.hold(this.#root)
    for (const [i, name] of names.entries()) {
      const next = this.#step(at, name, ctx)
      if (isPromise(next)) return this.#resolveLater(next, names.slice(i + 1), ctx)
      at = next
    }
    return at
  }

  async #resolveLater(pending: Promise<Name>, names: Buffer[], ctx: Context): Promise<Name> {
    let at = await pending
    for (const name of names) at = await this.#step(at, name, ctx)
    return at
  }

  /** From a held directory to a held child; the directory is released, whatever happens. */
  #step(parent: Name, name: Buffer, ctx: Context): MaybePromise<Name> {
    return this.during(parent, () => this.#child(parent, name, ctx))
  }

  #child(parent: Name, name: Buffer, ctx: Context): MaybePromise<Name> {
    const key = keyOf(parent.ino, name)
    const known = this.#hidden.get(key) ?? this.#fresh(key)
    if (known !== undefined) return this.hold(known)
    return then(this.#fs.lookup(parent.ino, name, ctx), entry => {
      if (entry.attributes === undefined) throw new CidfsError('NOT_FOUND', 'no such name')
      return this.hold(this.add(key, entry))
    })
  }

  #fresh(key: string): Name | undefined {
    const name = this.#table.get(key)
    if (name === undefined || name.expiresMs <= performance.now()) return undefined
    this.#table.delete(key)
    this.#table.set(key, name)
    return name
  }

  /** Takes over the lookup that `entry` stands for. */
  add(key: string, entry: Entry): Name {
    this.#drop(this.#table.get(key))
    const expiresMs = performance.now() + entry.entryTtlMs
    const name = { ino: entry.attributes.ino, key, expiresMs, holds: 0, known: true }
    this.#table.set(key, name)
    for (const oldest of this.#table.values()) {
      if (this.#table.size <= this.#maxNames) break
      if (oldest !== name) this.#drop(oldest)
    }
    return name
  }

  hold(name: Name): Name {
    name.holds++
    return name
  }

  release(name: Name): void {
    if (--name.holds === 0 && !name.known) this.#fs.forget(name.ino, 1)
  }

  /** `work` while the node is held, which is released afterwards. */
  during<T>(name: Name, work: () => MaybePromise<T>): MaybePromise<T> {
    let pending = false
    try {
      const value = work()
      if (!isPromise(value)) return value
      pending = true
      return value.finally(() => this.release(name))
    } finally {
      if (!pending) this.release(name)
    }
  }

  /** The name stands for something else from now on, or for nothing. */
  forgetName(parent: Ino, name: Uint8Array): void {
    this.#drop(this.#table.get(keyOf(parent, name)))
  }

  #drop(name: Name | undefined): void {
    if (name === undefined) return
    this.#table.delete(name.key)
    name.known = false
    if (name.holds === 0) this.#fs.forget(name.ino, 1)
  }

  /** From now on `name` in `parent` leads to the node of `from`, until `unhide`. */
  hide(from: Name, parent: Ino, name: Uint8Array): void {
    this.#hidden.set(keyOf(parent, name), this.hold(from))
  }

  /** Whether `name` is or was a hidden one, which libfuse unlinks after the last close: then nothing is left to do. */
  unlinksHidden(parent: Ino, name: Uint8Array): boolean {
    const key = keyOf(parent, name)
    return this.#closed.delete(key) || this.#hidden.has(key)
  }

  /** Nothing of this node is open any more. */
  unhide(ino: Ino): void {
    for (const [key, name] of this.#hidden) {
      if (name.ino !== ino) continue
      this.#hidden.delete(key)
      // where the directory is gone too, libfuse does not come back for it
      if (this.#closed.size < MAX_NAMES) this.#closed.add(key)
      this.release(name)
    }
  }
}

/** Whether a rename to `name` is how libfuse unlinks a file that is open. */
export function isHiding(name: Uint8Array): boolean {
  return HIDDEN.test(Buffer.from(name).toString('latin1'))
}

export function keyOf(parent: Ino, name: Uint8Array): string {
  return `${parent}/${Buffer.from(name.buffer, name.byteOffset, name.length).toString('latin1')}`
}
