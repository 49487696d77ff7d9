/**
 * Extended attributes of content: `user.ipfs.cid`, `user.ipfs.cached`, `user.ipfs.error`.
 *
 * Invariant: both spellings answer, with and without `user.`; only the former is listed, because tools copy
 * what is listed. Names that are not ours are absent (ENODATA), not an error.
 */
import type { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import type { MaybePromise } from '../core/maybe-promise.js'
import type { HeldRoots } from './held-roots.js'

export function contentAttributeNames(error: string | undefined): string[] {
  const names = ['user.ipfs.cid', 'user.ipfs.cached']
  return error === undefined ? names : [...names, 'user.ipfs.error']
}

/** The part of an attribute's name behind `ipfs.`; undefined for attributes that are not ours. */
export function attributeKey(name: string): string | undefined {
  return /^(?:user\.)?ipfs\.(\w+)$/.exec(name)?.[1]
}

/** @throws CidfsError `NO_ATTRIBUTE` without a CID. */
export function cidAttribute(cid: CID | undefined): Uint8Array {
  if (cid === undefined) throw new CidfsError('NO_ATTRIBUTE', 'not published yet')
  return Buffer.from(cid.toString())
}

/**
 * The value of an attribute of content; `error` is what went wrong with it last.
 * @throws CidfsError `NO_ATTRIBUTE`, `INTERRUPTED`.
 */
export function contentAttribute(
  { roots }: { roots: HeldRoots },
  cid: CID,
  name: string,
  error: string | undefined,
  signal: AbortSignal,
): MaybePromise<Uint8Array> {
  switch (attributeKey(name)) {
    case 'cid':
      return cidAttribute(cid)
    case 'cached':
      return roots.percentHeld(cid, signal).then(percent => Buffer.from(String(percent)))
    case 'error':
      if (error !== undefined) return Buffer.from(error)
  }
  throw new CidfsError('NO_ATTRIBUTE', 'no such attribute')
}
