/**
 * Names that stay local: swap and backup files of editors, downloads that have not ended.
 *
 * Invariant: a file or symlink with such a name is neither queued nor published, and no part of its directory;
 * folders are never local. Which nodes are local is on record, changed in the transaction that changes the name,
 * so that a start finds their content, and finds out whom another list of names concerns.
 * Why: they exist for seconds, dozens of them for one save; each would be published, with every directory above.
 */
import type { Database } from 'lmdb'
import type { Store } from '../store/store.js'
import { INO_BYTES, inoKey, keyIno } from './keys.js'
import type { StagingNode } from './node.js'

/** vim; browsers, rsync and wget-like tools; Chromium; editors' backups. */
export const DEFAULT_LOCAL_NAMES: readonly string[] = ['.*.sw?', '*.part', '*.crdownload', '*~']

/** Shorter than the keys of nodes. */
const LIST_KEY = Buffer.from('list')

export class LocalNames {
  readonly #records: Database<string, Buffer>
  readonly #pattern: RegExp
  readonly #list: string

  /** @param globs with `*` and `?`, matched against whole names */
  constructor(store: Store, globs: readonly string[] = DEFAULT_LOCAL_NAMES) {
    this.#records = store.env.openDB({ name: 'staging:local', keyEncoding: 'binary' })
    this.#pattern = patternOf(globs)
    this.#list = globs.join('\n')
  }

  /** Whether a node is of those that stay local, by its present name. */
  covers({ parent, type, name }: Pick<StagingNode, 'parent' | 'type' | 'name'>): boolean {
    return parent !== 0 && type !== 'directory' && this.#pattern.test(Buffer.from(name).toString())
  }

  has(ino: number): boolean {
    return this.#records.doesExist(inoKey(ino))
  }

  /** Puts on record whether a node is local. */
  record(ino: number, isLocal: boolean): void {
    if (isLocal) this.#records.putSync(inoKey(ino), '')
    else this.#records.removeSync(inoKey(ino))
  }

  /** Those on record. */
  *inos(): Generator<number> {
    for (const key of this.#records.getKeys({ start: inoKey(0) }))
      if (key.length === INO_BYTES) yield keyIno(key)
  }

  /** Whether the records were made with another list of names. */
  get isNewList(): boolean {
    return this.#records.get(LIST_KEY) !== this.#list
  }

  saveList(): void {
    this.#records.putSync(LIST_KEY, this.#list)
  }
}

function patternOf(globs: readonly string[]): RegExp {
  const alternatives = globs.map(glob =>
    glob
      .replace(/[\\^$.+()[\]{}|]/g, '\\$&')
      .replaceAll('*', '.*')
      .replaceAll('?', '.'),
  )
  return globs.length === 0 ? /^(?!)/ : new RegExp(`^(?:${alternatives.join('|')})$`, 'su')
}
