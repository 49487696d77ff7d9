/** Hashing during the settle delay. */
import t, { type Test } from 'tap'
import type { HashPool } from '../../src/staging/hash-pool.js'
import { HeadStart } from '../../src/staging/head-start.js'
import { content, Stage } from './support.js'

const MIB = 1024 * 1024

/** Counts what is hashed, and waits for the test. */
class Hashes implements Pick<HashPool, 'hashFile'> {
  begun = 0
  fails = false
  readonly #ends: (() => void)[] = []

  async hashFile(): Promise<Uint8Array> {
    const digests = Uint8Array.of(++this.begun)
    await new Promise<void>(resolve => this.#ends.push(resolve))
    if (this.fails) throw new Error('unreadable')
    return digests
  }

  end(): void {
    for (const end of this.#ends.splice(0)) end()
  }
}

async function started(t: Test) {
  const stage = await Stage.open(t, { idle: true })
  const hashes = new Hashes()
  const headStart = new HeadStart(stage.store, hashes)
  const write = async (name: string, seed: number) => stage.node(await stage.write(name, content(MIB, seed)))
  t.teardown(async () => {
    hashes.end()
    await headStart.ended()
  })
  return { stage, hashes, headStart, write }
}

t.test('what was hashed early is given out once', async t => {
  const { hashes, headStart, write } = await started(t)
  const node = await write('a', 1)
  headStart.begin(node)
  headStart.begin(node)
  t.equal(hashes.begun, 1, 'the same content is not begun twice')
  const digests = headStart.take(node)
  hashes.end()
  t.same(await digests, Uint8Array.of(1))
  t.equal(headStart.take(node), undefined)
})

t.test('content that was written since is not what was hashed', async t => {
  const { stage, hashes, headStart, write } = await started(t)
  const node = await write('a', 1)
  headStart.begin(node)
  await stage.rewrite(node.ino, 'x')
  hashes.end()
  t.equal(headStart.take(stage.node(node.ino)), undefined)
})

t.test('a file that could not be hashed early is left for later', async t => {
  const { hashes, headStart, write } = await started(t)
  const node = await write('a', 1)
  hashes.fails = true
  headStart.begin(node)
  hashes.end()
  t.equal(await headStart.take(node), undefined)
})

t.test('only a few files are hashed early at a time, and all reads end before it has ended', async t => {
  const { hashes, headStart, write } = await started(t)
  for (let i = 0; i < 5; i++) headStart.begin(await write(`file-${i}`, i))
  t.equal(hashes.begun, 2)
  let ended = false
  const end = headStart.ended().then(() => (ended = true))
  await new Promise(resolve => setImmediate(resolve))
  t.equal(ended, false)
  hashes.end()
  await end
})

t.test('a file closed long before its turn gets the CID it gets without a head start', async t => {
  const [early, late] = [await Stage.open(t, { settleMs: 50 }), await Stage.open(t, { idle: true })]
  const data = content(3 * MIB + 5, 7)
  const [a, b] = [await early.write('a', data), await late.write('a', data)]
  late.staging.start()
  t.equal(String(await early.cid(a)), String(await late.cid(b)))
})
