/**
 * Checks of the sources that are configured.
 *
 * Invariant: each is asked once, all at a time, and given up after a few seconds. Peers of the embedded node are only
 * connected to; nobody who is not named is looked for.
 */
import { connect } from 'node:net'
import { messageOf } from '../core/errors.js'
import { parseGatewayUrl } from '../sources/config.js'
import { GatewaySource } from '../sources/gateway.js'
import { KuboControl } from '../sources/kubo-control.js'
import type { Config } from './config.js'
import { type DoctorCheck, fine, trouble } from './doctor-check.js'

const TIMEOUT_MS = 5000

export async function sourceChecks(config: Config): Promise<DoctorCheck[]> {
  if (config.offline) return [fine('sources', 'offline: nobody is asked')]
  const peers = config.node?.peers ?? []
  const checks = await Promise.all([
    ...config.gateways.map(gatewayCheck),
    ...(config.kubo === undefined ? [] : [kuboCheck(config.kubo)]),
    ...peers.map(peerCheck),
  ])
  if (config.node !== undefined) checks.push(nodeCheck(config))
  if (checks.length > 0) return checks
  const advice = 'name some with --gateway, --kubo or --peer'
  return [trouble('sources', 'warn', 'none: only what is held here can be read', advice)]
}

async function gatewayCheck(url: string): Promise<DoctorCheck> {
  const name = `gateway ${withoutCredentials(url)}`
  let gateway: GatewaySource | undefined
  try {
    gateway = new GatewaySource(parseGatewayUrl(url), 1)
    await gateway.probe({ signal: AbortSignal.timeout(TIMEOUT_MS) })
    return fine(name, 'answers')
  } catch (err) {
    return unreachable(name, err, 'check its address and this machine’s network')
  } finally {
    await gateway?.close()
  }
}

async function kuboCheck(url: string): Promise<DoctorCheck> {
  const name = `kubo ${withoutCredentials(url)}`
  const kubo = new KuboControl(url, { callMs: TIMEOUT_MS })
  try {
    return fine(name, `Kubo ${await kubo.version()}`)
  } catch (err) {
    return unreachable(name, err, 'start it (ipfs daemon), or check the address of its RPC')
  } finally {
    await kubo.close()
  }
}

function unreachable(name: string, err: unknown, advice: string): DoctorCheck {
  const late = err instanceof Error && err.name === 'TimeoutError'
  const why = late ? 'no answer in time' : messageOf(err).replace(`${name}: `, '')
  return trouble(name, 'warn', why.split('\n')[0]!, advice)
}

/** `/ip4/192.0.2.1/tcp/4001/p2p/…`: whether anything accepts connections there. */
async function peerCheck(address: string): Promise<DoctorCheck> {
  const name = `peer ${address}`
  const [, , host = '', transport, port] = address.split('/')
  if (transport !== 'tcp') return fine(name, 'not tried: its address has to be looked up first')
  try {
    await reach(host, Number(port))
    return fine(name, 'accepts connections')
  } catch (err) {
    return unreachable(name, err, 'check its address and whether it runs')
  }
}

function reach(host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, signal: AbortSignal.timeout(TIMEOUT_MS) })
    socket.once('connect', () => {
      socket.destroy()
      resolve()
    })
    socket.once('error', reject)
  })
}

function nodeCheck({ node }: Config): DoctorCheck {
  const { listen = [], bootstrap = [], routers = [], dht = 'off', mdns = false } = node ?? {}
  const details = { listen, bootstrap, routers, dht, mdns }
  const where = listen.length === 0 ? 'listens nowhere' : `listens on ${listen.join(', ')}`
  return fine('embedded node', `${where}; DHT ${dht}; it is tried by mounting`, details)
}

function withoutCredentials(url: string): string {
  return url.replace(/\/\/[^/@]*@/, '//')
}
