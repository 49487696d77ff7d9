import { CarWriter } from '@ipld/car'
import t, { type Test } from 'tap'
import { CODEC_DAG_PB, cidOf, parseCid } from '../../src/core/cid.js'
import { parseKuboUrl } from '../../src/sources/config.js'
import { KuboSource } from '../../src/sources/kubo.js'
import { KuboControl } from '../../src/sources/kubo-control.js'
import { NetworkClient } from '../../src/sources/worker-client.js'
import {
  type Answer,
  type Block,
  closedPort,
  fakeGateway,
  rawBlock,
  serveChunked,
  status,
} from './fake-gateway.js'
import { realKubo, withoutKubo } from './real-kubo.js'

const never = new AbortController().signal

async function* car({ cid, bytes }: Block): AsyncGenerator<Uint8Array> {
  const { writer, out } = CarWriter.create([cid])
  const written = writer.put({ cid, bytes }).then(() => writer.close())
  yield* out
  await written
}

t.test('a block is asked for by POST, and each failure has its kind', async t => {
  const kubo = await fakeGateway(t)
  const source = new KuboSource(parseKuboUrl(kubo.url))
  t.teardown(() => source.close())
  const { cid, bytes } = rawBlock()
  let request = ''
  kubo.add(cid, (incoming, response) => {
    request = `${incoming.method} ${incoming.url}`
    serveChunked(bytes)(incoming, response)
  })
  t.strictSame(Uint8Array.from(await source.get(cid, { signal: never })), bytes)
  t.equal(request, `POST /api/v0/block/get?arg=${cid}`)
  const cases: [Answer, string, RegExp][] = [
    [
      status(500, '{"Message":"block was not found locally (offline): ipld: could not find x"}'),
      'absent',
      /not found/,
    ],
    [status(500, '{"Message":"disk on fire"}'), 'failed', /disk on fire/],
    [status(404, '404 page not found'), 'failed', /no Kubo RPC at this address/],
    [status(403, '403 - Forbidden'), 'failed', /HTTP 403: 403 - Forbidden/],
  ]
  for (const [answer, kind, message] of cases) {
    kubo.fallback = answer
    await t.rejects(source.get(rawBlock().cid, { signal: never }), { name: 'SourceError', kind, message })
  }
})

t.test('control calls fail with one clear line', async t => {
  const port = await closedPort()
  const down = new KuboControl(`http://127.0.0.1:${port}`)
  const noSocket = new KuboControl('unix:/nonexistent/kubo.sock')
  const mute = await fakeGateway(t)
  mute.fallback = () => {}
  const hanging = new KuboControl(mute.url, { callMs: 100, pinMs: 100 })
  t.teardown(() => Promise.all([down.close(), noSocket.close(), hanging.close()]))
  const block = rawBlock()
  await t.rejects(down.version(), { code: 'BACKEND', message: /^kubo http:.*: version: .*ECONNREFUSED/ })
  await t.rejects(down.importAndPin(block.cid, car(block)), {
    code: 'BACKEND',
    message: /dag\/import: .*ECONNREFUSED/,
  })
  await t.rejects(noSocket.id(), { code: 'BACKEND', message: /ENOENT/ })
  await t.rejects(hanging.version(), { code: 'BACKEND', message: /version: no answer within 100 ms/ })
  await t.rejects(hanging.pin(block.cid, { signal: AbortSignal.timeout(20) }), { code: 'INTERRUPTED' })
  t.throws(() => new KuboControl('nonsense'), { code: 'BAD_CONFIG' })
})

t.test('a real Kubo serves blocks', { skip: withoutKubo, timeout: 60_000 }, async t => {
  const kubo = await realKubo(t)
  const content = Buffer.alloc(3_000_000, 'cidfs')
  const root = parseCid(await kubo.ipfs(['add', '-Q', '--cid-version=1', '--chunker=size-1048576'], content))
  const leaves = (await kubo.ipfs(['refs', root.toString()])).split('\n').map(parseCid)
  const v0 = parseCid(await kubo.ipfs(['add', '-Q'], content))
  const unixfs = [root, ...leaves, v0]
  const served = async (t: Test, config: { gateways: string[]; kubo?: string }): Promise<void> => {
    const client = new NetworkClient({ ...config, readDeadlineMs: 10_000, offline: false })
    try {
      for (const cid of unixfs) t.ok((await client.fetch(cid)).length > 0, cid.toString())
      await t.rejects(client.fetch(rawBlock().cid), { code: 'UNREACHABLE', message: /not found/ })
      t.match(await client.status(), [{ state: 'ok', blocks: unixfs.length, errors: 0 }])
    } finally {
      await client.close()
    }
  }
  await t.test('through its gateway', t => served(t, { gateways: [kubo.gateway] }))
  const localhost = kubo.gateway.replace('127.0.0.1', 'localhost')
  await t.test('through its gateway called localhost', t => served(t, { gateways: [localhost] }))
  await t.test('through its RPC', t => served(t, { gateways: [], kubo: kubo.rpc }))
  await t.test('through its socket', t => served(t, { gateways: [], kubo: `unix:${kubo.socket}` }))
})

t.test('a real Kubo takes and pins what is published', { skip: withoutKubo, timeout: 60_000 }, async t => {
  const kubo = await realKubo(t)
  for (const url of [kubo.rpc, `unix:${kubo.socket}`]) {
    await t.test(url, async t => {
      const control = new KuboControl(url)
      t.teardown(() => control.close())
      const block = rawBlock(1_000_000)
      t.match(await control.version(), /^\d+\.\d+\.\d+/)
      t.match(await control.id(), /^12D3/)
      t.equal(await control.has(block.cid), false)
      await control.importAndPin(block.cid, car(block), { name: 'a name' })
      t.equal(await control.has(block.cid), true)
      t.equal(await control.isPinned(block.cid), true)
      t.match(
        await kubo.ipfs(['pin', 'ls', '--names', '--type=recursive']),
        new RegExp(`${block.cid}.*a name`),
      )
      await control.importAndPin(block.cid, car(block))
      await control.unpin(block.cid)
      await control.unpin(block.cid)
      t.equal(await control.isPinned(block.cid), false)
    })
  }
  await t.test('bad uploads and incomplete DAGs are refused', async t => {
    const control = new KuboControl(kubo.rpc)
    t.teardown(() => control.close())
    const block = rawBlock()
    const garbage = async function* (): AsyncGenerator<Uint8Array> {
      yield Buffer.from('not a CAR')
    }
    const broken = async function* (): AsyncGenerator<Uint8Array> {
      yield* car(block)
      throw new Error('the disk broke')
    }
    await t.rejects(control.importAndPin(block.cid, garbage()), { code: 'BACKEND', message: /dag\/import: / })
    await t.rejects(control.importAndPin(block.cid, broken()), { code: 'BACKEND', message: /the disk broke/ })
    // A dag-pb node with one link, to a block that was not sent.
    const link = Buffer.concat([Buffer.of(0x0a, rawBlock().cid.bytes.length), rawBlock().cid.bytes])
    const node = Buffer.concat([Buffer.of(0x12, link.length), link])
    const parent = { cid: cidOf(CODEC_DAG_PB, node), bytes: node }
    await t.rejects(control.importAndPin(parent.cid, car(parent)), { code: 'BACKEND', message: /pin\/add: / })
    const aborted = AbortSignal.abort()
    await t.rejects(control.importAndPin(block.cid, car(block), { signal: aborted }), { code: 'INTERRUPTED' })
  })
})
