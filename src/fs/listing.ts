/**
 * Filling directory replies.
 *
 * Invariant: cookies 1 and 2 stand behind `.` and `..`; those of the entries are above. An entry that did not
 * fit is not counted as looked up.
 */
import type { DirectorySink, Entry, Ino } from './file-system.js'
import { DT_DIR } from './tree.js'

/** The cookie behind `..`: entries begin here. */
export const AFTER_DOTS = 2

export interface ListedEntry {
  name: Uint8Array
  ino: Ino
  type: number
}

/** Adds to a reply, plain or plus; false when it is full. */
export function addEntry(
  sink: DirectorySink,
  plus: boolean,
  entry: ListedEntry,
  nextOffset: number,
  attributes: Entry | undefined,
): boolean {
  const full = { ...entry, nextOffset }
  return plus ? sink.addPlus(full, attributes) : sink.add(full)
}

/** `.` and `..` as far as `offset` is before them; false when the reply is full. */
export function addDots(sink: DirectorySink, plus: boolean, ino: Ino, parent: Ino, offset: number): boolean {
  if (offset < 1 && !addEntry(sink, plus, { name: DOT, ino, type: DT_DIR }, 1, undefined)) return false
  return (
    offset >= AFTER_DOTS ||
    addEntry(sink, plus, { name: DOT_DOT, ino: parent, type: DT_DIR }, AFTER_DOTS, undefined)
  )
}

/** A whole directory of few entries that never change, their index is the cookie. */
export function listFixed(
  ino: Ino,
  parent: Ino,
  entries: readonly ListedEntry[],
  offset: number,
  plus: boolean,
  sink: DirectorySink,
): void {
  if (!addDots(sink, plus, ino, parent, offset)) return
  for (let index = Math.max(0, offset - AFTER_DOTS); index < entries.length; index++) {
    if (!addEntry(sink, plus, entries[index]!, AFTER_DOTS + index + 1, undefined)) return
  }
}

const DOT = Buffer.from('.')
const DOT_DOT = Buffer.from('..')
