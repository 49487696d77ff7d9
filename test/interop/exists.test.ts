/** What a real Kubo says of having a block, in each way in which it can be asked. */
import t from 'tap'
import type { ExistsReport } from '../../src/daemon/control-protocol.js'
import { cli } from '../mount/pinned.js'
import { KuboNode, missingKubo } from '../support/kubo.js'
import { Mount } from '../support/mount.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'

t.setTimeout(90_000)

const ABSENT = 'bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e'

t.test('a Kubo is asked as gateway, by its RPC and by bitswap', { skip: await missingKubo() }, async t => {
  const node = await KuboNode.start(t)
  const cid = await node.add(await tempDir(t), ['--cid-version=1'])
  const [address] = await node.addresses()
  const mount = await Mount.start(t, {
    kubo: node.rpcUrl,
    gateways: [node.gatewayUrl],
    args: ['--peer', address!, '--dht', 'off'],
  })
  const ask = async (what: string): Promise<[number | null, ExistsReport]> => {
    const { status, stdout } = await cli(mount, ['exists', what, '--json', '--timeout', '3s'])
    return [status, JSON.parse(stdout) as ExistsReport]
  }
  const [status, report] = await until(
    'it is connected',
    async () => {
      const found = await ask(cid)
      return found[1].neighbours.length > 0 ? found : undefined
    },
    30_000,
  )
  t.equal(status, 0)
  t.match(report.servers, [
    { kind: 'kubo', has: 'yes', error: null },
    { kind: 'gateway', has: 'yes', error: null },
  ])
  t.same(report.neighbours, [{ peer: await node.peerId(), has: 'yes' }])
  t.equal(report.copies, 3)
  const [no, absent] = await ask(ABSENT)
  t.equal(no, 1)
  t.match(absent.servers[0], { kind: 'kubo', has: 'no' })
  t.not(absent.servers[1]?.has, 'yes', 'a gateway may look for it for as long as it is let')
  t.same(absent.neighbours, [{ peer: await node.peerId(), has: 'no' }])
})
