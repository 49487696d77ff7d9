/**
 * Paths as libfuse gives them, into names.
 *
 * Invariant: what comes out are the bytes that the program wrote. The addon decodes paths as UTF-8 and replaces what
 * is none by U+FFFD; which bytes that were is lost, so such names cannot be looked up, and nothing is made under them.
 */
import { constants } from 'node:os'
import { CidfsError } from '../core/errors.js'
import { MAX_NAME_BYTES } from '../core/limits.js'

const REPLACEMENT = '\ufffd'

/** `/a/b` as names; the root has none. @throws CidfsError `NOT_FOUND`, `NAME_TOO_LONG`. */
export function parsePath(path: string): Buffer[] {
  if (path.includes(REPLACEMENT)) throw new CidfsError('NOT_FOUND', 'names that are not UTF-8 cannot be told')
  const names = path.split('/').filter(name => name !== '')
  return names.map(name => checked(Buffer.from(name)))
}

/** For what is about to be made: the path of its directory, and its name. @throws Error EILSEQ. */
export function splitPath(path: string): { directory: string; name: Buffer } {
  const at = path.lastIndexOf('/')
  return { directory: path.slice(0, at), name: checked(bytesOf(path.slice(at + 1))) }
}

function checked(name: Buffer): Buffer {
  if (name.length > MAX_NAME_BYTES) throw new CidfsError('NAME_TOO_LONG', 'name of more than 255 bytes')
  return name
}

/** @throws Error EILSEQ where the addon has lost what was written. */
export function bytesOf(text: string): Buffer {
  if (!text.includes(REPLACEMENT)) return Buffer.from(text)
  throw Object.assign(new Error('not UTF-8'), { errno: -constants.errno.EILSEQ })
}

/** Text of a name or target for the addon. @throws Error EILSEQ where it is not UTF-8. */
export function textOf(bytes: Uint8Array): string {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString()
  bytesOf(text)
  return text
}
