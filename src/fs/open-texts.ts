/**
 * Open files whose text is made when it is first read (those of `.cidfs/`).
 *
 * Invariant: one open sees one text. One that could not be made is made anew by the next read.
 */
import { isPromise, type MaybePromise, then } from '../core/maybe-promise.js'
import type { Attributes, Fh, Ino } from './file-system.js'
import { plainAttributes, S_IFREG } from './tree.js'

export class OpenTexts {
  readonly #texts = new Map<Fh, MaybePromise<Uint8Array>>()
  /** Above those of an earlier daemon, whose files may still be open. */
  #nextFh = Date.now()

  open(): Fh {
    return this.#nextFh++
  }

  /** Up to `sizeBytes` from `offset` of what `make` returned at the first read of `fh`. */
  read(
    fh: Fh,
    offset: number,
    sizeBytes: number,
    make: () => MaybePromise<string>,
  ): MaybePromise<Uint8Array> {
    const text = this.#texts.get(fh) ?? this.#begin(fh, make)
    return then(text, bytes => bytes.subarray(offset, offset + sizeBytes))
  }

  #begin(fh: Fh, make: () => MaybePromise<string>): MaybePromise<Uint8Array> {
    const text = then(make(), (made): Uint8Array => Buffer.from(made))
    this.#texts.set(fh, text)
    if (isPromise(text)) text.catch(() => this.release(fh))
    return text
  }

  release(fh: Fh): void {
    this.#texts.delete(fh)
  }
}

/** Of a file whose size is not known before it is read. */
export function textAttributes(ino: Ino): Attributes {
  return plainAttributes(ino, S_IFREG | 0o444, 0)
}
