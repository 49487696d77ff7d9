/** Stores, blocks and small DAGs for the tests of this layer. */
import { readdirSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import * as dagPb from '@ipld/dag-pb'
import { type CID, CODEC_DAG_PB, CODEC_RAW, cidOf } from '../../src/core/cid.js'
import type { Block } from '../../src/store/packs.js'
import { Store, type StoreOptions } from '../../src/store/store.js'
import type { Links } from '../../src/store/walk.js'
import { type Owner, tempDir } from '../support/temp.js'

/** Nothing is flushed unless the test says so. */
export const QUIET: StoreOptions = { flushIntervalMs: 3_600_000 }

/** A store that is closed with the test, in a directory of its own unless one is given. */
export async function openStore(t: Owner, options: StoreOptions = QUIET, dir?: string): Promise<Store> {
  const store = await Store.open(dir ?? join(await tempDir(t), 'state'), options)
  t.teardown(() => store.close())
  return store
}

/** A raw block that differs for every `seed`. */
export function rawBlock(seed: number | string, sizeBytes = 100): Block {
  const text = `${seed}.`
  const bytes = new Uint8Array(Buffer.alloc(sizeBytes, text))
  return { cid: cidOf(CODEC_RAW, bytes), bytes }
}

/** A dag-pb node with these links; `data` tells nodes with equal links apart. */
export function node(links: CID[], data = ''): Block {
  const bytes = dagPb.encode({
    Data: Buffer.from(data),
    Links: links.map(Hash => ({ Hash, Name: '', Tsize: 0 })),
  })
  return { cid: cidOf(CODEC_DAG_PB, bytes), bytes }
}

/** Links of dag-pb nodes; everything else is a leaf. */
export const links: Links = (cid, bytes) =>
  cid.code === CODEC_DAG_PB ? dagPb.decode(bytes).Links.map(link => link.Hash as CID) : []

/** A node over `count` leaves, all put into the store. */
export function putTree(
  store: Store,
  name: string,
  count: number,
  leafBytes = 100,
): { root: CID; blocks: Block[] } {
  const leaves = Array.from({ length: count }, (_, i) => rawBlock(`${name}-${i}`, leafBytes))
  const root = node(
    leaves.map(({ cid }) => cid),
    name,
  )
  store.putMany([...leaves, root])
  return { root: root.cid, blocks: [...leaves, root] }
}

export function packFiles(store: Store): string[] {
  return readdirSync(join(store.path, 'packs')).map(name => join(store.path, 'packs', name))
}

/** Open descriptors of this process below a directory. */
export function descriptorsBelow(dir: string): number {
  return readdirSync('/proc/self/fd').filter(fd => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(dir)
    } catch {
      return false
    }
  }).length
}
