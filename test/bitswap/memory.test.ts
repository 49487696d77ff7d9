/**
 * A gigabyte through the client stays a few windows' worth of memory.
 *
 * The blocks are made when they are asked for, by a peer in this process, and forgotten when they have come. Runs
 * with the collector at hand: what counts is what is held, not what has not been collected yet.
 */
import { createHash } from 'node:crypto'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { Bitswap } from '../../src/bitswap/bitswap.js'
import { keyOfCidBytes, prefixOf } from '../../src/bitswap/block-key.js'
import type { InboundStream, PeerLink } from '../../src/bitswap/link.js'
import { MessageParser } from '../../src/bitswap/message-parser.js'
import { encodeMessage } from '../../src/bitswap/message-writer.js'
import { CODEC_RAW, cidFromSha256, keyOf } from '../../src/core/cid.js'
import { pattern } from '../support/dag.js'
import { frame, Recorder } from './support.js'

t.setTimeout(110_000)
const MIB = 1024 * 1024
const BLOCKS = 1024
const AT_ONCE = 200

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void

const template = pattern(MIB, 1)
/** The `i`th block: all are the same but for their first bytes. */
function bytesOf(i: number): Uint8Array {
  const bytes = Buffer.from(template)
  bytes.writeUInt32LE(i, 0)
  return bytes
}

t.test('1 GiB in blocks of 1 MiB', async t => {
  const bitswap = new Bitswap({ patienceMs: 0 })
  t.teardown(() => bitswap.close())
  const cids = Array.from({ length: BLOCKS }, (_, i) => {
    return cidFromSha256(CODEC_RAW, createHash('sha256').update(bytesOf(i)).digest())
  })
  const index = new Map(cids.map((cid, i) => [keyOf(cid), i]))
  let stream: InboundStream | undefined
  const send = (cid: Uint8Array): void => {
    const i = index.get(keyOfCidBytes(cid)!)!
    const bytes = frame(encodeMessage({ blocks: [{ prefix: prefixOf(cids[i]!), bytes: bytesOf(i) }] }))
    for (let at = 0; at < bytes.length; at += 65_536) void stream!.data(bytes.subarray(at, at + 65_536))
  }
  const link: PeerLink = {
    peerId: 'a',
    version: '1.2.0',
    send: async pieces => {
      const { wants } = parse(pieces)
      for (const { cid, cancel } of wants) if (!cancel) setImmediate(send, cid)
    },
    drop: reason => t.fail(reason),
  }
  bitswap.connected(link)
  stream = bitswap.inbound('a', '1.2.0')

  gc()
  const before = process.memoryUsage()
  let [next, received, most] = [0, 0, 0]
  const take = async (): Promise<void> => {
    while (next < BLOCKS) {
      const cid = cids[next++]!
      const { length } = await bitswap.client.get(cid, { signal: new AbortController().signal })
      received += length
      if (next % 128 !== 0) continue
      gc()
      most = Math.max(most, process.memoryUsage().external - before.external)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, take))
  gc()
  const after = process.memoryUsage()
  t.equal(received, BLOCKS * MIB)
  t.ok(most < 200 * MIB, `${Math.round(most / MIB)} MiB of blocks at most, of 200 that were wanted`)
  t.ok(
    after.external - before.external < 8 * MIB,
    `${after.external - before.external} bytes of blocks are left`,
  )
  t.ok(
    after.heapUsed - before.heapUsed < 8 * MIB,
    `${after.heapUsed - before.heapUsed} bytes of heap are left`,
  )
  t.ok(after.rss < 400 * MIB, `${Math.round(after.rss / MIB)} MiB resident`)
})

function parse(pieces: readonly Uint8Array[]): Recorder {
  const recorder = new Recorder()
  new MessageParser(recorder).push(frame(pieces))
  return recorder
}
