/** Every shape of the fixtures, served over HTTP, through a real mount. */
import t from 'tap'
import { readCar, TestGateway } from '../support/gateway.js'
import { Mount } from '../support/mount.js'
import { fixture, missingFixtures } from '../support/root.js'
import { tempDir } from '../support/temp.js'
import { checkTree, FIXTURES } from './check.js'

t.setTimeout(110_000)

const skip = missingFixtures()
const CARS = [...new Set(Object.values(FIXTURES))]

t.test('every fixture reads as described, from a gateway and then from nowhere', { skip }, async t => {
  const stateDir = await tempDir(t)
  const gateway = await TestGateway.start(t)
  for (const car of CARS) await gateway.addCar(fixture(car))

  const mount = await Mount.start(t, { stateDir, gateways: [gateway.url] })
  for (const name of Object.keys(FIXTURES)) {
    await t.test(`${name} from a gateway`, t => checkTree(t, mount, name))
  }
  t.ok(gateway.requests.length > 0, 'the gateway was asked')
  await gateway.stop()
  await t.test('hamt-1000-entries with the gateway gone', t => checkTree(t, mount, 'hamt-1000-entries'))
  await mount.stop()

  const offline = await Mount.start(t, { stateDir, args: ['--offline'] })
  for (const name of Object.keys(FIXTURES)) {
    await t.test(`${name} offline, by a new daemon`, t => checkTree(t, offline, name))
  }
})

t.test('two gateways that hold half of the blocks each serve all of them', { skip }, async t => {
  const [one, other] = [await TestGateway.start(t), await TestGateway.start(t)]
  for (const car of CARS) {
    const { blocks } = await readCar(fixture(car))
    for (const [i, { cid, bytes }] of blocks.entries()) (i % 2 === 0 ? one : other).add(cid, bytes)
  }
  const mount = await Mount.start(t, { gateways: [one.url, other.url] })
  for (const name of Object.keys(FIXTURES)) await t.test(name, t => checkTree(t, mount, name))
  t.ok(one.requests.length > 0 && other.requests.length > 0, 'both were asked')
})
