/** A bitswap client and the peers it talks to, for tests of what it asks of whom. */
import { setMaxListeners } from 'node:events'
import type { Test } from 'tap'
import { Bitswap, type BitswapOptions } from '../../src/bitswap/bitswap.js'
import { type CID, CODEC_DAG_PB, cidOf } from '../../src/core/cid.js'
import { encodePbNode } from '../../src/unixfs/pb-node.js'
import { link } from '../support/dag.js'
import { FakePeer, type FakePeerOptions, type TestBlock } from './support.js'

export const NEVER = new AbortController().signal
setMaxListeners(0, NEVER)

/** Those that end with their node. */
const peers = new WeakMap<Bitswap, FakePeer[]>()

export function node(t: Test, options: BitswapOptions = {}): Bitswap {
  const bitswap = new Bitswap({ patienceMs: 0, ...options })
  t.teardown(async () => {
    for (const peer of peers.get(bitswap) ?? []) peer.disconnect()
    await bitswap.close()
  })
  return bitswap
}

export function peerOf(
  bitswap: Bitswap,
  id: string,
  blocks: TestBlock[] = [],
  options: FakePeerOptions = {},
): FakePeer {
  const peer = new FakePeer(id, blocks, options).connect(bitswap)
  peers.set(bitswap, [...(peers.get(bitswap) ?? []), peer])
  return peer
}

export function get(bitswap: Bitswap, cid: CID, signal = NEVER): Promise<Uint8Array> {
  return bitswap.client.get(cid, { signal })
}

export async function getAll(t: Test, bitswap: Bitswap, blocks: TestBlock[]): Promise<void> {
  const found = await Promise.all(blocks.map(({ cid }) => get(bitswap, cid)))
  const wrong = found.filter((bytes, i) => Buffer.compare(bytes, blocks[i]!.bytes) !== 0)
  t.equal(wrong.length, 0, `${blocks.length} blocks`)
}

/** A dag-pb node that links to the blocks; too large to be sent to whoever asks whether it is there. */
export function parentOf(blocks: TestBlock[]): TestBlock {
  const links = blocks.map(({ cid, bytes }) => link(cid, '', bytes.length))
  const bytes = encodePbNode(links, Buffer.alloc(2000))
  return { cid: cidOf(CODEC_DAG_PB, bytes), bytes }
}
