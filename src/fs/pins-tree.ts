/**
 * `pins/`: symbolic links to `../ipfs/<cid>`. Making one pins, removing it unpins.
 *
 * Invariant: the target of a node never changes (another content is another node), its name may, also by
 * `cidfs pin`: so the kernel asks for names each time, and no notification is needed.
 * Why no request here waits for the network: the kernel holds the directory's lock during it, and with that
 * everybody who only wants to list it.
 *
 * The kernel refuses `user.*` attributes of symbolic links (xattr(7)); without the prefix they come through.
 */
import type { BlockReader } from '../core/blocks.js'
import type { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { type MaybePromise, then } from '../core/maybe-promise.js'
import type { NamedPin, NamedPins, PinChanges } from '../staging/named-pins.js'
import { now } from '../staging/node.js'
import { parsePinTarget } from '../staging/pin-target.js'
import type { Store } from '../store/store.js'
import { locate } from '../unixfs/path.js'
import { attributeKey, contentAttribute } from './content-xattrs.js'
import {
  type AttributeChanges,
  type Attributes,
  type Context,
  type DirectorySink,
  type Entry,
  type Fh,
  type Ino,
  type NegativeEntry,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
} from './file-system.js'
import type { HeldRoots } from './held-roots.js'
import { FIRST_PIN_INO, PINS_INO, ROOT_INO } from './ino.js'
import { AFTER_DOTS, addDots, addEntry } from './listing.js'
import { DT_LNK, plainAttributes, ReadOnlyTree, readOnly, S_IFDIR, S_IFLNK } from './tree.js'

export interface PinsTreeParts {
  store: Store
  pins: NamedPins
  roots: HeldRoots
}

interface Answer {
  attributes: Attributes
  ttlMs: number
}

export class PinsTree extends ReadOnlyTree {
  readonly #parts: PinsTreeParts
  readonly #pins: NamedPins
  readonly #held: BlockReader

  constructor(parts: PinsTreeParts) {
    super()
    this.#parts = parts
    this.#pins = parts.pins
    this.#held = { get: cid => heldBlock(parts.store, cid) }
  }

  override lookup(parent: Ino, name: Uint8Array): Entry | NegativeEntry {
    if (parent !== PINS_INO) throw new CidfsError('NOT_DIRECTORY', 'a pin is a symbolic link')
    const pin = this.#pins.lookup(name)
    return pin === undefined ? { attributes: undefined, entryTtlMs: 0 } : entryOf(pin)
  }

  override getattr(ino: Ino): Answer {
    const attributes = ino === PINS_INO ? this.#directoryAttributes() : attributesOf(this.#pins.get(ino))
    return { attributes, ttlMs: 0 }
  }

  #directoryAttributes(): Attributes {
    const attributes = plainAttributes(PINS_INO, S_IFDIR | 0o755, 0)
    const time = this.#pins.changed ?? attributes.mtime
    return { ...attributes, nlink: 2, mtime: time, ctime: time, atime: time }
  }

  /** Owner and time of a link, which `cp -a` and `rsync` set; a mode it has none. */
  override setattr(ino: Ino, changes: AttributeChanges): Answer {
    if (ino === PINS_INO) throw readOnly()
    if (changes.mode !== undefined || changes.sizeBytes !== undefined) {
      throw new CidfsError('NOT_SUPPORTED', 'a symbolic link has neither mode nor content')
    }
    return { attributes: attributesOf(this.#pins.setAttributes(ino, pinChanges(changes))), ttlMs: 0 }
  }

  override readlink(ino: Ino): Uint8Array {
    if (ino === PINS_INO) throw new CidfsError('INVALID', 'not a symbolic link')
    return targetOf(this.#pins.get(ino))
  }

  override mknod(): never {
    throw onlyLinks()
  }

  override mkdir(): never {
    throw onlyLinks()
  }

  override create(): never {
    throw onlyLinks()
  }

  override link(): never {
    throw onlyLinks()
  }

  /** @throws CidfsError also `UNREACHABLE` when the way below the CID is not held here. */
  override symlink(_parent: Ino, name: Uint8Array, target: Uint8Array, ctx: Context): MaybePromise<Entry> {
    const { cid, segments } = parsePinTarget(target)
    const owner = { uid: ctx.uid, gid: ctx.gid }
    const bytes = Buffer.from(name) // kept beyond this call
    return then(locate(cid, segments, this.#held, { signal: ctx.signal }), found =>
      entryOf(this.#pins.create(bytes, found.cid, owner)),
    )
  }

  override unlink(_parent: Ino, name: Uint8Array): void {
    this.#pins.remove(name)
  }

  override rmdir(_parent: Ino, name: Uint8Array): void {
    const code = this.#pins.lookup(name) === undefined ? 'NOT_FOUND' : 'NOT_DIRECTORY'
    throw new CidfsError(code, 'there are no directories in pins/')
  }

  override rename(_parent: Ino, name: Uint8Array, _newParent: Ino, newName: Uint8Array, flags: number): void {
    if (![0, RENAME_NOREPLACE, RENAME_EXCHANGE].includes(flags)) {
      throw new CidfsError('INVALID', `rename flags ${flags}`)
    }
    if (flags === RENAME_EXCHANGE) this.#pins.exchange(name, newName)
    else this.#pins.rename(name, newName, flags !== RENAME_NOREPLACE)
  }

  /** Names are on the disk when it resolves; content is when its pin says `pinned`. */
  override fsyncdir(): Promise<void> {
    return this.#parts.store.flush()
  }

  override readdir(_ino: Ino, _fh: Fh, offset: number, plus: boolean, sink: DirectorySink): void {
    if (!addDots(sink, plus, PINS_INO, ROOT_INO, offset)) return
    const after = FIRST_PIN_INO - 1 + Math.max(0, offset - AFTER_DOTS)
    for (const pin of this.#pins.list(after)) {
      const listed = { name: pin.name, ino: pin.ino, type: DT_LNK }
      const cookie = AFTER_DOTS + pin.ino - FIRST_PIN_INO + 1
      if (!addEntry(sink, plus, listed, cookie, plus ? entryOf(pin) : undefined)) return
    }
  }

  override getxattr(ino: Ino, name: string, ctx: Context): MaybePromise<Uint8Array> {
    if (ino === PINS_INO) throw new CidfsError('NO_ATTRIBUTE', 'no such attribute')
    const pin = this.#pins.get(ino)
    switch (attributeKey(name)) {
      case 'state':
        return Buffer.from(pin.state)
      case 'error':
        if (pin.error === undefined) throw new CidfsError('NO_ATTRIBUTE', 'nothing went wrong')
        return Buffer.from(`${pin.error} (tried ${pin.tries} times)`)
      case 'cached':
        if (pin.progress !== undefined) return Buffer.from(String(percentOf(pin.progress)))
    }
    return contentAttribute(this.#parts, pin.cid, name, undefined, ctx.signal)
  }

  /** Tools that copy would ask for what is listed, and no other file system takes names without a prefix. */
  override listxattr(): string[] {
    return []
  }

  override setxattr(): never {
    throw new CidfsError('NOT_SUPPORTED', 'pins carry no extended attributes of others')
  }

  override removexattr(): never {
    throw new CidfsError('NOT_SUPPORTED', 'pins carry no extended attributes of others')
  }
}

/** 100 is for what is complete only. */
function percentOf({ done, known }: { done: number; known: number }): number {
  return Math.min(99, Math.floor((100 * done) / Math.max(1, known)))
}

function targetOf({ cid }: NamedPin): Buffer {
  return Buffer.from(`../ipfs/${cid}`)
}

function attributesOf(pin: NamedPin): Attributes {
  const { uid, gid, mtime, ctime } = pin
  const attributes = plainAttributes(pin.ino, S_IFLNK | 0o777, targetOf(pin).length)
  return { ...attributes, uid, gid, mtime, ctime, atime: mtime }
}

function entryOf(pin: NamedPin): Entry {
  return { attributes: attributesOf(pin), entryTtlMs: 0, attributesTtlMs: 0 }
}

function pinChanges(changes: AttributeChanges): PinChanges {
  const result: PinChanges = {}
  if (changes.uid !== undefined) result.uid = changes.uid
  if (changes.gid !== undefined) result.gid = changes.gid
  if (changes.mtime !== undefined) result.mtime = changes.mtime === 'now' ? now() : changes.mtime
  return result
}

function onlyLinks(): CidfsError {
  return new CidfsError('PERMISSION', 'pins/ holds symbolic links to ipfs/ only')
}

function heldBlock(store: Store, cid: CID): Uint8Array {
  const bytes = store.get(cid)
  if (bytes !== undefined) return bytes
  const message = `block ${cid} is not held here: read that path once, or use cidfs pin add`
  throw new CidfsError('UNREACHABLE', message, { cid: cid.toString() })
}
