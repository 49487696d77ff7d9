/**
 * Who owns which node ids.
 *
 * Invariant: an id tells its tree without any table. Fixed nodes are below 16, staged nodes count up from 16, links
 * of `ipns/` have bit 50 set above 48 bits of a hash, files of `.cidfs/exists/` bit 48 as well, pins count up from
 * 2^51, immutable nodes have bit 52 set above 52 bits of a hash. All are below 2^53, so they
 * are exact as numbers.
 * Why: the kernel may ask about any id it was ever given, also after a restart of the daemon.
 */
import { hash } from 'node:crypto'
import { binaryString, type CID } from '../core/cid.js'
import { STAGING_ROOT_INO } from '../staging/node.js'
import { FIRST_PIN_INO } from '../staging/pin-records.js'
import { type Ino, ROOT_INO } from './file-system.js'

export { FIRST_PIN_INO, ROOT_INO, STAGING_ROOT_INO }
export const IPFS_INO: Ino = 2
export const IPNS_INO: Ino = 3
export const EXISTS_INO: Ino = 4
export const PINS_INO: Ino = 5
export const CONTROL_INO: Ino = 6
/** Files of `.cidfs/` have the ids from here to below the staging root. */
export const FIRST_CONTROL_FILE_INO: Ino = 7

/** Ids of the links of `ipns/` are from here on, so many of them. */
export const FIRST_LINK_INO: Ino = 2 ** 50
export const MAX_LINKS = 2 ** 48
/** Those of the files of `.cidfs/exists/` follow, as many. */
export const FIRST_EXISTS_INO: Ino = FIRST_LINK_INO + MAX_LINKS

const IMMUTABLE_BIT = 2 ** 52
/** Hexadecimal digits of 52 bits. */
const HASH_DIGITS = 13

export function isImmutable(ino: Ino): boolean {
  return ino >= IMMUTABLE_BIT
}

export function isStaged(ino: Ino): boolean {
  return ino >= STAGING_ROOT_INO && ino < FIRST_LINK_INO
}

/** A name, or the directory `ipns/`. */
export function isName(ino: Ino): boolean {
  return ino === IPNS_INO || (ino >= FIRST_LINK_INO && ino < FIRST_EXISTS_INO)
}

/** A file of `.cidfs/exists/`, or that directory. */
export function isExists(ino: Ino): boolean {
  return ino === EXISTS_INO || (ino >= FIRST_EXISTS_INO && ino < FIRST_EXISTS_INO + MAX_LINKS)
}

/** An entry of `pins/`, or that directory. */
export function isPin(ino: Ino): boolean {
  return ino === PINS_INO || (ino >= FIRST_PIN_INO && ino < IMMUTABLE_BIT)
}

/** First choice of id for an immutable file or symlink: the same by every path, so its pages are shared. */
export function contentIno(cid: CID): Ino {
  return hashed(`${cid.code}:${binaryString(cid.multihash.bytes)}`)
}

/** First choice of id for an immutable directory: the kernel gives a directory one place in the tree only. */
export function directoryIno(parent: Ino, name: Uint8Array): Ino {
  return hashed(`/${parent}/${binaryString(name)}`)
}

/** Where to look when `ino` is taken by something else. */
export function nextIno(ino: Ino): Ino {
  return ino + 1 < 2 * IMMUTABLE_BIT ? ino + 1 : IMMUTABLE_BIT
}

function hashed(text: string): Ino {
  const digits = hash('sha256', Buffer.from(text, 'latin1'), 'hex').slice(0, HASH_DIGITS)
  return IMMUTABLE_BIT + Number.parseInt(digits, 16)
}
