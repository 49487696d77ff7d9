/**
 * Binary keys of the staging databases.
 *
 * Invariant: ids are 7 bytes, big-endian, so that LMDB's order of keys is the order of ids, and the entries of
 * one directory lie together. A range over all keys names its start, `inoKey(0)`: without one, lmdb begins
 * behind the binary keys that start with a zero.
 */
/** Of the key of a node. */
export const INO_BYTES = 7

export function inoKey(ino: number): Buffer {
  const key = Buffer.allocUnsafe(INO_BYTES)
  writeIno(key, ino, 0)
  return key
}

/** The id that stands at `at`. */
export function keyIno(key: Uint8Array, at = 0): number {
  const high = (key[at]! << 16) | (key[at + 1]! << 8) | key[at + 2]!
  const low = ((key[at + 3]! << 24) | (key[at + 4]! << 16) | (key[at + 5]! << 8) | key[at + 6]!) >>> 0
  return high * 0x1_0000_0000 + low
}

/** parent, name */
export function entryKey(parent: number, name: Uint8Array): Buffer {
  const key = Buffer.allocUnsafe(INO_BYTES + name.length)
  writeIno(key, parent, 0)
  key.set(name, INO_BYTES)
  return key
}

/** parent, child */
export function childKey(parent: number, ino: number): Buffer {
  const key = Buffer.allocUnsafe(2 * INO_BYTES)
  writeIno(key, parent, 0)
  writeIno(key, ino, INO_BYTES)
  return key
}

/** First key of a directory's children. */
export function parentStart(parent: number): Buffer {
  return childKey(parent, 0)
}

/** First key behind them. */
export function parentEnd(parent: number): Buffer {
  return childKey(parent + 1, 0)
}

function writeIno(key: Buffer, ino: number, at: number): void {
  key.writeUIntBE(Math.floor(ino / 0x1_0000_0000), at, 3)
  key.writeUInt32BE(ino >>> 0, at + 3)
}
