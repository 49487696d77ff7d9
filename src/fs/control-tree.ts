/**
 * `.cidfs/`: read-only files that tell about the daemon.
 *
 * Invariant: one open sees one text, made when it is first read. Sizes are not known before, so the files
 * bypass the page cache (as those of /proc do). The files of its directories belong to other trees.
 */
import { CidfsError } from '../core/errors.js'
import type { MaybePromise } from '../core/maybe-promise.js'
import type {
  Attributes,
  Context,
  DirectorySink,
  Entry,
  Fh,
  Ino,
  NegativeEntry,
  Opened,
  ReadResult,
} from './file-system.js'
import { CONTROL_INO, EXISTS_INO, FIRST_CONTROL_FILE_INO, ROOT_INO } from './ino.js'
import { listFixed } from './listing.js'
import { OpenTexts, textAttributes } from './open-texts.js'
import {
  DT_DIR,
  DT_REG,
  FOREVER_MS,
  foreverEntry,
  plainAttributes,
  ReadOnlyTree,
  readOnly,
  S_IFDIR,
  wantsWriting,
} from './tree.js'

/** File name to the function that makes its text. */
export type ControlFiles = Readonly<Record<string, () => MaybePromise<string>>>

const DIRECTORIES = new Map<string, Ino>([['exists', EXISTS_INO]])

export class ControlTree extends ReadOnlyTree {
  readonly #names: string[]
  readonly #files: ControlFiles
  readonly #open = new OpenTexts()

  constructor(files: ControlFiles) {
    super()
    this.#files = files
    this.#names = Object.keys(files)
  }

  override lookup(_parent: Ino, name: Uint8Array): Entry | NegativeEntry {
    const text = Buffer.from(name).toString()
    const directory = DIRECTORIES.get(text)
    if (directory !== undefined) return foreverEntry(plainAttributes(directory, S_IFDIR | 0o555, 0))
    const index = this.#names.indexOf(text)
    if (index < 0) return { attributes: undefined, entryTtlMs: FOREVER_MS }
    return foreverEntry(textAttributes(FIRST_CONTROL_FILE_INO + index))
  }

  override getattr(ino: Ino): { attributes: Attributes; ttlMs: number } {
    if (ino === CONTROL_INO)
      return { attributes: plainAttributes(ino, S_IFDIR | 0o555, 0), ttlMs: FOREVER_MS }
    this.#nameOf(ino)
    return { attributes: textAttributes(ino), ttlMs: FOREVER_MS }
  }

  override readdir(_ino: Ino, _fh: Fh, offset: number, plus: boolean, sink: DirectorySink): void {
    const files = this.#names.map((name, index) => ({
      name: Buffer.from(name),
      ino: FIRST_CONTROL_FILE_INO + index,
      type: DT_REG,
    }))
    const directories = [...DIRECTORIES].map(([name, ino]) => ({
      name: Buffer.from(name),
      ino,
      type: DT_DIR,
    }))
    listFixed(CONTROL_INO, ROOT_INO, [...files, ...directories], offset, plus, sink)
  }

  override open(ino: Ino, flags: number): Opened {
    if (wantsWriting(flags)) throw readOnly()
    this.#nameOf(ino)
    return { fh: this.#open.open(), directIo: true }
  }

  override read(
    ino: Ino,
    fh: Fh,
    offset: number,
    sizeBytes: number,
    _ctx: Context,
  ): MaybePromise<ReadResult> {
    return this.#open.read(fh, offset, sizeBytes, () => this.#files[this.#nameOf(ino)]!())
  }

  override release(_ino: Ino, fh: Fh): void {
    this.#open.release(fh)
  }

  #nameOf(ino: Ino): string {
    const name = this.#names[ino - FIRST_CONTROL_FILE_INO]
    if (name === undefined) throw new CidfsError('STALE', `no control file ${ino}`)
    return name
  }
}
