/**
 * Peers that do whatever comes to their minds, beside one that is honest: what it has arrives, and nothing is left
 * over. The seed is printed; CIDFS_SEED repeats a run.
 */
import t from 'tap'
import { Bitswap } from '../../src/bitswap/bitswap.js'
import { until } from '../support/until.js'
import { FakePeer, random, rawBlocks, type TestBlock } from './support.js'

t.setTimeout(110_000)
const SEED = Number(process.env.CIDFS_SEED ?? Date.now() % 1_000_000)
const next = random(SEED)
const BLOCKS = 400

/** Has every block and no principles. */
class FicklePeer extends FakePeer {
  readonly #all: TestBlock[]

  constructor(id: string, all: TestBlock[]) {
    super(id, all)
    this.#all = all
  }

  override sendBlock(block: TestBlock): void {
    const other = this.#all[next(this.#all.length)]!
    switch (next(10)) {
      case 0:
        return // forgets it
      case 1:
        this.say({ presences: [{ cid: block.cid.bytes, has: false }] })
        return
      case 2:
        this.say({ presences: [{ cid: block.cid.bytes, has: true }] })
        return
      case 3:
        super.sendBlock(other)
        return
      case 4:
        this.say({ presences: [{ cid: other.cid.bytes, has: next(2) === 0 }] })
        super.sendBlock(block)
        return
      case 5:
        if (next(20) === 0) this.disconnect()
        return
      case 6:
        this.options.delayMs = next(200)
        super.sendBlock(block)
        return
      case 7:
        if (next(20) === 0) this.options.wrong = bytes => bytes.subarray(1)
        super.sendBlock(block)
        return
      default:
        super.sendBlock(block)
    }
  }
}

t.test(`what one honest peer has arrives, whatever the others do (seed ${SEED})`, async t => {
  const bitswap = new Bitswap({ patienceMs: 2000, maxSilenceMs: 2000 })
  t.teardown(() => bitswap.close())
  const blocks = rawBlocks(BLOCKS, 2000, SEED % 1000)
  const honest = new FakePeer('honest', blocks, { delayMs: 10 }).connect(bitswap)
  let ids = 0
  const fickle = new Set<FicklePeer>()
  const visit = (): void => {
    for (const peer of fickle) {
      if (next(4) !== 0) continue
      peer.disconnect()
      fickle.delete(peer)
    }
    while (fickle.size < 5) fickle.add(new FicklePeer(`fickle${ids++ % 12}-${ids}`, blocks).connect(bitswap))
  }
  visit()
  const timer = setInterval(visit, 150)
  let cancelled = 0
  const read = async ({ cid, bytes }: TestBlock): Promise<boolean> => {
    const abort = new AbortController()
    const urgency = next(2) === 0 ? ('demand' as const) : ('read-ahead' as const)
    if (next(10) === 0) setTimeout(() => abort.abort(), next(50))
    try {
      return Buffer.compare(await bitswap.client.get(cid, { signal: abort.signal, urgency }), bytes) === 0
    } catch (err) {
      if (!abort.signal.aborted) throw err
      cancelled++
      return true
    }
  }
  const found = await Promise.all(blocks.map(read)).finally(() => clearInterval(timer))
  t.notOk(found.includes(false), 'every block is what it should be')
  t.comment(`${cancelled} cancelled, ${bitswap.client.banned.length} peers left alone, ${ids} came and went`)
  for (const peer of fickle) peer.disconnect()
  t.same(honest.dropped, [], 'the honest one is still there')
  await until('nothing is asked of it any more', () => bitswap.client.peers[0]!.asked === 0)
  const again = rawBlocks(50, 2000, 1234)
  for (const block of again) honest.add(block)
  t.notOk((await Promise.all(again.map(read))).includes(false), 'and goes on')
})
