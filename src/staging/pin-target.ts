/**
 * What a symbolic link in `pins/`, or an argument of `cidfs pin add`, names.
 *
 * Invariant: only the text is looked at; what lies at the path below the CID is for the caller to find.
 */
import { type CID, tryParseCid } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'

export interface PinTarget {
  cid: CID
  /** Names below the CID; mostly none. */
  segments: Buffer[]
}

/**
 * Understands `/anything/ipfs/<cid>`, `../ipfs/<cid>`, `ipfs://<cid>` and a bare CID in every spelling, each with
 * or without a path below it, trailing slashes ignored.
 * @throws CidfsError `INVALID` for everything else.
 */
export function parsePinTarget(target: Uint8Array): PinTarget {
  // Latin-1 keeps names that are not UTF-8 as they are.
  const parts = Buffer.from(target).toString('latin1').split('/')
  const names = parts.filter(part => part !== '' && part !== '.')
  for (let at = 0; at < names.length; at++) {
    const mayBeCid = at === 0 ? parts[0] !== '' : /^ipfs:?$/.test(names[at - 1]!)
    const cid = mayBeCid ? tryParseCid(bytesOf(names[at]!).toString()) : undefined
    if (cid !== undefined) return { cid, segments: below(names.slice(at + 1)) }
  }
  throw notACid(target)
}

function below(names: string[]): Buffer[] {
  if (names.includes('..')) throw new CidfsError('INVALID', 'a path with .. below a CID names nothing')
  return names.map(bytesOf)
}

function bytesOf(name: string): Buffer {
  return Buffer.from(name, 'latin1')
}

function notACid(target: Uint8Array): CidfsError {
  const text = JSON.stringify(Buffer.from(target).toString())
  return new CidfsError('INVALID', `${text} is neither a CID nor a path to one (…/ipfs/<cid>)`)
}
