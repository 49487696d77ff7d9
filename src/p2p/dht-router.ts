/**
 * A Kademlia DHT as a `Router`.
 *
 * Invariant: a question does not fail because it was asked a second after the start: it waits until the DHT knows a
 * peer, unless it had time enough to find one. Nothing is kept here of what others provide or ask.
 *
 * Kubo runs two: `/ipfs/kad/1.0.0` of public nodes and `/ipfs/lan/kad/1.0.0` of those on the same network.
 * Specification: https://github.com/libp2p/specs/blob/master/kad-dht/README.md
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { KadDHT, QueryEvent, SingleKadDHT } from '@libp2p/kad-dht'
import type { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { MAX_ADDRESSES_READ, type Provider, type Router } from './routing.js'

const READY_POLL_MS = 100
/** After the start; a DHT that knows nobody then fails at once, until it does. */
const READY_WITHIN_MS = 8_000

export class DhtRouter implements Router {
  readonly name: string
  readonly #dht: KadDHT
  readonly #giveUpAt = performance.now() + READY_WITHIN_MS

  constructor(name: string, dht: KadDHT) {
    this.name = name
    this.#dht = dht
  }

  get tableSize(): number {
    return (this.#dht as SingleKadDHT).routingTable.size
  }

  async *findProviders(cid: CID, signal: AbortSignal): AsyncGenerator<Provider> {
    await this.#ready(signal)
    for await (const event of this.#dht.findProviders(cid, { signal })) {
      if (event.name !== 'PROVIDER') continue
      for (const { id, multiaddrs } of event.providers) {
        yield { id: id.toString(), addrs: multiaddrs.slice(0, MAX_ADDRESSES_READ).map(String) }
      }
    }
  }

  async provide(cid: CID, signal: AbortSignal): Promise<number> {
    await this.#ready(signal)
    const taken = await countTaken(this.#dht.provide(cid, { signal }), 'ADD_PROVIDER')
    // it would provide it again by itself, and remember it for that
    await this.#dht.cancelReprovide(cid)
    return taken
  }

  async *getValue(key: Uint8Array, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    await this.#ready(signal)
    for await (const event of this.#dht.get(key, { signal })) {
      if (event.name === 'VALUE') yield event.value
    }
  }

  async putValue(key: Uint8Array, value: Uint8Array, signal: AbortSignal): Promise<number> {
    await this.#ready(signal)
    return countTaken(this.#dht.put(key, value, { signal }), 'PUT_VALUE')
  }

  async #ready(signal: AbortSignal): Promise<void> {
    const waits = () => this.tableSize === 0 && performance.now() < this.#giveUpAt
    while (waits() && !signal.aborted) await sleep(READY_POLL_MS)
    if (this.tableSize === 0) throw new CidfsError('UNREACHABLE', 'no peer of this DHT is connected')
  }
}

/** Peers that answered the message which carries the record. */
async function countTaken(events: AsyncIterable<QueryEvent>, message: string): Promise<number> {
  const takers = new Set<string>()
  for await (const event of events) {
    if (event.name === 'PEER_RESPONSE' && event.messageName === message) takers.add(event.from.toString())
    else if (event.name === 'QUERY_ERROR') takers.delete(event.from.toString())
  }
  return takers.size
}
