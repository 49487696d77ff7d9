/**
 * `.cidfs/exists/<cid>`: who has a block, asked when the file is read.
 *
 * Invariant: any CID is a file here, and one open sees one answer, made at its first read; a read that is
 * interrupted asks nobody any more. Nothing is listed: there is no end to it.
 */
import { hash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { type CID, tryParseCid } from '../core/cid.js'
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
} from './file-system.js'
import { CONTROL_INO, EXISTS_INO, FIRST_EXISTS_INO } from './ino.js'
import { listFixed } from './listing.js'
import { OpenTexts, textAttributes } from './open-texts.js'
import {
  FOREVER_MS,
  foreverEntry,
  plainAttributes,
  ReadOnlyTree,
  readOnly,
  S_IFDIR,
  wantsWriting,
} from './tree.js'

/** Who has a CID, as a line of JSON; ends with `INTERRUPTED` when `signal` is aborted. */
export type WhoHas = (cid: CID, signal: AbortSignal) => Promise<string>

/** Ids are kept while the kernel may ask about them, and those of this many files beyond. */
const MAX_FILES = 4096
/** Hexadecimal digits of 48 bits. */
const HASH_DIGITS = 12

export class ExistsTree extends ReadOnlyTree {
  readonly #whoHas: WhoHas
  readonly #cids = new LRUCache<Ino, CID>({ max: MAX_FILES })
  readonly #answers = new OpenTexts()

  constructor(whoHas: WhoHas) {
    super()
    this.#whoHas = whoHas
  }

  override lookup(parent: Ino, name: Uint8Array): Entry | NegativeEntry {
    if (parent !== EXISTS_INO) throw new CidfsError('NOT_DIRECTORY', 'not a directory')
    const cid = tryParseCid(Buffer.from(name).toString())
    if (cid === undefined) return { attributes: undefined, entryTtlMs: FOREVER_MS }
    const ino = inoOf(cid)
    this.#cids.set(ino, cid)
    // the kernel asks again, so that what is in use is what is remembered
    return { ...foreverEntry(textAttributes(ino)), entryTtlMs: 0 }
  }

  override getattr(ino: Ino): { attributes: Attributes; ttlMs: number } {
    const isDirectory = ino === EXISTS_INO
    return {
      attributes: isDirectory ? plainAttributes(ino, S_IFDIR | 0o555, 0) : textAttributes(ino),
      ttlMs: FOREVER_MS,
    }
  }

  override readdir(_ino: Ino, _fh: Fh, offset: number, plus: boolean, sink: DirectorySink): void {
    listFixed(EXISTS_INO, CONTROL_INO, [], offset, plus, sink)
  }

  override open(ino: Ino, flags: number): Opened {
    if (wantsWriting(flags)) throw readOnly()
    this.#cidOf(ino)
    return { fh: this.#answers.open(), directIo: true }
  }

  override read(ino: Ino, fh: Fh, offset: number, sizeBytes: number, ctx: Context): MaybePromise<Uint8Array> {
    return this.#answers.read(fh, offset, sizeBytes, () => this.#whoHas(this.#cidOf(ino), ctx.signal))
  }

  override release(_ino: Ino, fh: Fh): void {
    this.#answers.release(fh)
  }

  #cidOf(ino: Ino): CID {
    const cid = this.#cids.get(ino)
    if (cid === undefined) throw new CidfsError('STALE', `no file ${ino}`)
    return cid
  }
}

function inoOf(cid: CID): Ino {
  return FIRST_EXISTS_INO + Number.parseInt(hash('sha256', cid.toString(), 'hex').slice(0, HASH_DIGITS), 16)
}
