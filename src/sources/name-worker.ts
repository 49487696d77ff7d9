/**
 * Records of names in the network worker: the DHT, routers, gateways and Kubo as one.
 *
 * Invariant: loaded when a name is first asked for or published, and asks nobody but the configured places.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { multihashToIPNSRoutingKey } from 'ipns'
import { Digest } from '../core/cid.js'
import { deadline } from '../core/deadline.js'
import { CidfsError } from '../core/errors.js'
import type { KeyName } from '../p2p/ipns-name.js'
import { type Found, IpnsNetwork, type ValueRouting } from '../p2p/ipns-network.js'
import type { PutOutcome } from '../p2p/ipns-record.js'
import type { Routing } from '../p2p/routing.js'
import { parseGatewayUrl, parseHttpUrl, parseKuboUrl } from './config.js'
import { gatewayRecords, type HttpRouting, kuboRecords, routerRecords } from './ipns-http.js'
import type { WorkerConfig } from './worker-protocol.js'

/** From the start of a node until it knows a peer, at most. */
const READY_MS = 10_000
const READY_POLL_MS = 50
/** Of several DHTs one may never know a peer; when the rest has taken the record, that one is not waited for. */
const DHT_PUT_MS = 30_000

/** The embedded node; throws while it does not run. */
export interface RunningNode {
  readonly host: { readonly routing: Routing }
}

export class NameWorker {
  readonly #servers: HttpRouting[]
  readonly #network: IpnsNetwork

  constructor({ gateways, kubo, node }: WorkerConfig, running: RunningNode | undefined) {
    this.#servers = [
      ...(node?.routers ?? []).map(url => routerRecords(parseHttpUrl('router', url, /\/routing\/v1$/))),
      ...(kubo === undefined ? [] : [kuboRecords(parseKuboUrl(kubo))]),
      ...gateways.map(url => gatewayRecords(parseGatewayUrl(url))),
    ]
    const dht = running !== undefined && node?.dht !== 'off' ? [dhtRecords(running)] : []
    this.#network = new IpnsNetwork([...dht, ...this.#servers])
  }

  findRecord({ name, untilMs }: { name: Uint8Array; untilMs: number }, signal: AbortSignal): Promise<Found> {
    return this.#network.find(name, deadline(Math.max(0, untilMs - Date.now()), signal))
  }

  publishRecord(
    { name, record }: { name: Uint8Array; record: Uint8Array },
    signal: AbortSignal,
  ): Promise<PutOutcome[]> {
    return this.#network.publish(name, record, signal)
  }

  async close(): Promise<void> {
    await Promise.all(this.#servers.map(server => server.close()))
  }
}

function dhtRecords(node: RunningNode): ValueRouting {
  return {
    name: 'dht',
    async *get(name, signal) {
      const { routing } = await ready(node, signal)
      yield* routing.getValue(keyOf(name), signal)
    },
    async put(name, record, signal) {
      const { routing } = await ready(node, signal)
      await routing.putValue(keyOf(name), record, deadline(DHT_PUT_MS, signal))
    },
  }
}

/** The node, once a DHT of it knows somebody. @throws CidfsError `UNREACHABLE` when that does not come. */
async function ready(node: RunningNode, signal: AbortSignal): Promise<RunningNode['host']> {
  for (const end = performance.now() + READY_MS; ; await sleep(READY_POLL_MS)) {
    const isLate = performance.now() > end || signal.aborted
    const host = orUndefined(() => node.host, isLate)
    if (host?.routing.status().some(({ tableSize }) => (tableSize ?? 0) > 0)) return host
    if (isLate) throw new CidfsError('UNREACHABLE', 'no peer of a DHT is connected')
  }
}

function orUndefined<T>(get: () => T, isLate: boolean): T | undefined {
  try {
    return get()
  } catch (err) {
    if (isLate) throw err
    return undefined
  }
}

function keyOf({ multihash }: KeyName): Uint8Array {
  return multihashToIPNSRoutingKey(Digest.decode(multihash) as Digest.Digest<0 | 0x12, number>)
}
