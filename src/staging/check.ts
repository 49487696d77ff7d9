/**
 * Checks the books of `staging/`: names, queue, objects and pins must agree with one another.
 *
 * Invariant: it only reads, and only records: whatever changes the tree does so in one transaction, so what is
 * looked at without giving the thread away belongs together, also in a daemon at work. What it finds is therefore
 * damage, and not something under way. Sizes of working objects may run ahead of the records, and are not compared.
 * Why apart from `Namespace`: what is to be checked is the records, not what that class makes of them.
 */
import { existsSync } from 'node:fs'
import type { Database } from 'lmdb'
import type { Location } from '../core/blocks.js'
import { CID } from '../core/cid.js'
import { messageOf } from '../core/errors.js'
import { FIRST_KEY, keyBehind } from '../store/environment.js'
import { Pacer } from '../store/pacer.js'
import type { Store } from '../store/store.js'
import { Seen, type Visit, walk } from '../store/walk.js'
import { inspect, links } from '../unixfs/inspect.js'
import { childKey, entryKey, INO_BYTES, inoKey, keyIno, parentEnd, parentStart } from './keys.js'
import { currentCid, lastCid, STAGING_ROOT_INO, type StagingNode } from './node.js'
import { endOfSlot, nurseryBytes } from './nursery.js'

const PAGE = 256
const OWNER = /^staging:(\d+)$/

export interface StagingFault {
  /** Path below `staging/`, or the number of a node that has none. */
  path: string
  problem: string
}

export interface StagingCheck {
  nodes: number
  faults: StagingFault[]
  /** Objects that no node refers to: space, not damage; the next start removes them. */
  leftovers: number
}

export interface CheckOptions {
  signal?: AbortSignal | undefined
  /** Nodes looked at so far. */
  onProgress?: (nodes: number) => void
}

/** @throws CidfsError `INTERRUPTED`. */
export async function checkStaging(store: Store, options: CheckOptions = {}): Promise<StagingCheck> {
  const check = new Check(store, options)
  await check.nodes()
  await check.links()
  await check.queue()
  await check.pins()
  return check.result()
}

class Check {
  readonly #store: Store
  readonly #options: CheckOptions
  readonly #pacer: Pacer
  readonly #nodes: Database<StagingNode, Buffer>
  readonly #entries: Database<Buffer, Buffer>
  readonly #children: Database<Buffer, Buffer>
  readonly #orphans: Database<number, Buffer>
  readonly #queue: Database<unknown, Buffer>
  readonly #local: Database<unknown, Buffer>
  readonly #meta: Database<number, string>
  /** Blocks found complete below one CID need not be walked again below another. */
  readonly #seen = new Seen()
  readonly #used = new Set<number>()
  readonly #slots = new Set<number>()
  readonly #faults: StagingFault[] = []
  #count = 0

  constructor(store: Store, options: CheckOptions) {
    this.#store = store
    this.#options = options
    this.#pacer = new Pacer(options.signal)
    const { env } = store
    this.#nodes = env.openDB({ name: 'staging:nodes', keyEncoding: 'binary' })
    this.#entries = env.openDB({ name: 'staging:entries', keyEncoding: 'binary', encoding: 'binary' })
    this.#children = env.openDB({ name: 'staging:children', keyEncoding: 'binary', encoding: 'binary' })
    this.#orphans = env.openDB({ name: 'staging:orphans', keyEncoding: 'binary' })
    this.#queue = env.openDB({ name: 'staging:queue', keyEncoding: 'binary' })
    this.#local = env.openDB({ name: 'staging:local', keyEncoding: 'binary' })
    this.#meta = env.openDB({ name: 'staging:meta' })
  }

  result(): StagingCheck {
    const leftovers = this.#store.unsealedObjects().filter(object => !this.#used.has(object)).length
    return { nodes: this.#count, faults: this.#faults, leftovers }
  }

  async nodes(): Promise<void> {
    for await (const key of this.#keys(this.#nodes)) {
      const node = this.#node(keyIno(key))
      if (node === undefined) continue
      this.#count++
      this.#options.onProgress?.(this.#count)
      if (node.object !== undefined) this.#used.add(node.object)
      this.#checkNode(node, keyIno(key))
      if (node.type === 'directory') this.#checkSubdirectories(node)
      if (!node.dirty) await this.#checkContent(node)
    }
  }

  #checkNode(node: StagingNode, ino: number): void {
    if (node.ino !== ino) this.#fault(node, `its record says that it is node ${node.ino}`)
    if (ino >= (this.#meta.get('next-ino') ?? STAGING_ROOT_INO + 1)) this.#fault(node, 'its number is free')
    this.#checkName(node)
    this.#checkObject(node)
    if (ino === STAGING_ROOT_INO) return
    const queued = this.#queue.get(inoKey(ino)) !== undefined
    const shouldBeQueued = node.dirty && !this.#isLocal(ino)
    if (node.parent !== 0 && queued !== shouldBeQueued) {
      this.#fault(
        node,
        shouldBeQueued ? 'it is to be published and not queued' : 'it is published and still queued',
      )
    }
    if (!node.dirty && node.cid === undefined) this.#fault(node, 'it is published without a CID')
    if (node.parent !== 0 && shouldBeQueued && this.#isClean(node.parent))
      this.#fault(node, 'it is to be published, the directory above is not')
  }

  #isClean(ino: number): boolean {
    return ino !== STAGING_ROOT_INO && this.#node(ino)?.dirty === false
  }

  #checkName(node: StagingNode): void {
    const isOrphan = this.#orphans.get(inoKey(node.ino)) !== undefined
    const isRoot = node.ino === STAGING_ROOT_INO
    if (isOrphan === (node.parent !== 0 || isRoot)) {
      this.#fault(node, isOrphan ? 'it has a name, and is listed as one that has none' : 'it has no name')
    }
    if (node.parent === 0) return
    const named = this.#entries.get(entryKey(node.parent, node.name))
    if (named === undefined || keyIno(named) !== node.ino) this.#fault(node, 'its name does not lead to it')
    const listed = this.#children.get(childKey(node.parent, node.ino))
    if (listed === undefined || !listed.equals(node.name)) this.#fault(node, 'its directory does not list it')
    if (this.#node(node.parent)?.type !== 'directory') this.#fault(node, 'it lies in no directory')
  }

  #checkObject({ object, ...node }: StagingNode): void {
    if (node.slot !== undefined) {
      this.#checkSlot(node, node.slot)
      return
    }
    if (object === undefined) {
      const hasContent = node.type === 'file' && node.sizeBytes > 0
      if (node.dirty && hasContent) this.#fault(node, 'its content is neither published nor in an object')
      return
    }
    if (!node.dirty) this.#fault(node, 'it is published and still has a working object')
    const known = this.#store.containers.get(object)
    if (known?.kind !== 'object' || known.sealed) this.#fault(node, `object ${object} is not its own`)
    else if (!existsSync(this.#store.objectPath(object))) this.#fault(node, `object ${object} is missing`)
  }

  #checkSlot(node: Omit<StagingNode, 'object'>, slot: number): void {
    if (!node.dirty) this.#fault(node, 'it is published and still has a slot of the nursery')
    if (this.#slots.has(slot)) this.#fault(node, `slot ${slot} of the nursery is not its own`)
    this.#slots.add(slot)
    if (nurseryBytes(this.#store) < endOfSlot(slot, node.sizeBytes))
      this.#fault(node, `slot ${slot} of the nursery is missing`)
  }

  #checkSubdirectories(node: StagingNode): void {
    let found = 0
    for (const key of this.#children.getKeys({ start: parentStart(node.ino), end: parentEnd(node.ino) })) {
      if (this.#node(keyIno(key, INO_BYTES))?.type === 'directory') found++
    }
    if (found !== node.subdirectories) {
      this.#fault(node, `it counts ${node.subdirectories} directories in it, there are ${found}`)
    }
  }

  /** Everything under its CID is held, and of the size that the node says. */
  async #checkContent(node: StagingNode): Promise<void> {
    const cid = lastCid(node)
    if (cid === undefined) return
    let missing: CID | undefined
    const visit: Visit = (block: CID, location: Location | undefined) => {
      if (location === undefined) missing = block
      return location !== undefined
    }
    const bytes = this.#store.get(cid)
    if (bytes !== undefined && node.type === 'file') this.#checkSize(node, cid, bytes)
    await walk(this.#store, cid, links, visit, { signal: this.#options.signal, seen: this.#seen })
    // changed, removed or published anew meanwhile: not ours to judge any more
    const still = this.#node(node.ino)
    if (still === undefined || currentCid(still)?.equals(cid) !== true) return
    if (bytes === undefined) missing ??= cid
    if (missing !== undefined) this.#fault(node, `${cid} is not complete: block ${missing} is not held`)
  }

  #checkSize(node: StagingNode, cid: CID, bytes: Uint8Array): void {
    try {
      const found = inspect(cid, bytes)
      const sizeBytes = 'sizeBytes' in found ? found.sizeBytes : undefined
      if (sizeBytes !== node.sizeBytes)
        this.#fault(node, `it has ${node.sizeBytes} bytes, and ${sizeBytes ?? 'none'} under its CID`)
    } catch (err) {
      this.#fault(node, messageOf(err))
    }
  }

  /** Names lead to nodes that know of them. */
  async links(): Promise<void> {
    for await (const key of this.#keys(this.#entries)) {
      const value = this.#entries.get(key)
      const node = value && this.#node(keyIno(value))
      const [parent, name] = [keyIno(key), key.subarray(INO_BYTES)]
      if (value === undefined || (node?.parent === parent && name.equals(node.name))) continue
      this.#faultOf(
        `${name} in ${this.#pathOf(this.#node(parent))}`,
        'the name leads to no node of that name',
      )
    }
    for await (const key of this.#keys(this.#children)) {
      const [parent, node] = [keyIno(key), this.#node(keyIno(key, INO_BYTES))]
      if (this.#children.get(key) === undefined || node?.parent === parent) continue
      this.#faultOf(
        this.#pathOf(this.#node(parent)),
        `it lists node ${keyIno(key, INO_BYTES)}, which is not in it`,
      )
    }
  }

  /** What is queued, or without a name, exists. */
  async queue(): Promise<void> {
    for await (const key of this.#keys(this.#queue)) {
      const node = this.#node(keyIno(key))
      if (this.#queue.get(key) === undefined || (node !== undefined && node.parent !== 0)) continue
      this.#faultOf(`node ${keyIno(key)}`, 'it is queued and has no name')
    }
    for await (const key of this.#keys(this.#local)) {
      if (key.length !== INO_BYTES || !this.#isLocal(keyIno(key)) || this.#node(keyIno(key))?.parent) continue
      this.#faultOf(`node ${keyIno(key)}`, 'it stays local and has no name')
    }
    for await (const key of this.#keys(this.#orphans)) {
      if (this.#orphans.get(key) === undefined || this.#node(keyIno(key)) !== undefined) continue
      this.#faultOf(`node ${keyIno(key)}`, 'it has no name and is not known')
    }
  }

  /** What is published at the top is pinned, and no pin is left of what is not there any more. */
  async pins(): Promise<void> {
    for await (const key of this.#keys(
      this.#children,
      parentStart(STAGING_ROOT_INO),
      parentEnd(STAGING_ROOT_INO),
    )) {
      const node = this.#node(keyIno(key, INO_BYTES))
      if (node?.parent !== STAGING_ROOT_INO) continue // it has left since its key was read
      const cid = currentCid(node) // an earlier content need not be: it may come from elsewhere
      if (
        cid === undefined ||
        this.#isLocal(node.ino) ||
        this.#store.pins.owners(cid).includes(`staging:${node.ino}`)
      )
        continue
      this.#fault(node, `${cid} is not pinned`)
    }
    for (const { cid, owners } of this.#store.pins.list()) {
      for (const owner of owners) this.#checkOwner(cid, owner)
      if (this.#pacer.due) await this.#pacer.pause()
    }
  }

  /** A listed pin may be from a moment ago. */
  #checkOwner(cid: CID, owner: string): void {
    const ino = OWNER.exec(owner)?.[1]
    if (ino === undefined || !this.#store.pins.owners(cid).includes(owner)) return
    const node = this.#node(Number(ino))
    const pinned = node?.parent === STAGING_ROOT_INO ? [lastCid(node), ...replacedCids(node)] : []
    if (!pinned.some(known => known?.equals(cid)))
      this.#faultOf(`node ${ino}`, `${cid} is pinned for it, and not its content`)
  }

  /** Of those that are not published, for their names. */
  #isLocal(ino: number): boolean {
    return this.#local.doesExist(inoKey(ino))
  }

  #node(ino: number): StagingNode | undefined {
    return this.#nodes.get(inoKey(ino))
  }

  #fault(node: StagingNode | Omit<StagingNode, 'object'>, problem: string): void {
    this.#faultOf(this.#pathOf(node), problem)
  }

  #faultOf(path: string, problem: string): void {
    this.#faults.push({ path, problem })
  }

  /** Through parents that may be damaged: no further than there are nodes. */
  #pathOf(node: Pick<StagingNode, 'ino' | 'parent' | 'name'> | undefined): string {
    const names: string[] = []
    const passed = new Set<number>()
    let at = node
    for (; at !== undefined && at.parent !== 0 && !passed.has(at.ino); at = this.#node(at.parent)) {
      passed.add(at.ino)
      names.unshift(Buffer.from(at.name).toString())
    }
    return at?.ino === STAGING_ROOT_INO ? names.join('/') : `node ${node?.ino ?? 'unknown'}`
  }

  /** In pages: a cursor may not stay open while others write. */
  async *#keys(
    db: Database<unknown, Buffer>,
    start: Buffer = Buffer.from(FIRST_KEY),
    end?: Buffer,
  ): AsyncGenerator<Buffer> {
    const range = { end, limit: PAGE }
    let page = [...db.getKeys({ ...range, start })].map(key => Buffer.from(key))
    while (page.length > 0) {
      for (const key of page) {
        yield key
        if (this.#pacer.due) await this.#pacer.pause()
      }
      page = [...db.getKeys({ ...range, start: Buffer.from(keyBehind(page.at(-1)!)) })].map(key =>
        Buffer.from(key),
      )
    }
  }
}

function replacedCids({ replaced = [] }: StagingNode): CID[] {
  return replaced.map(cid => CID.decode(cid))
}
