/**
 * Peers that the configuration names, kept connected.
 *
 * Invariant: a named peer that is not connected is dialled again, after pauses that grow up to a minute, for as long
 * as `wanted` says so; a connection that held for a while starts the series of pauses anew.
 * Why not libp2p's own tags for this: they give up after five attempts.
 */
import type { Libp2p, PeerId } from '@libp2p/interface'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { deadline } from '../core/deadline.js'
import { messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import { peerIdIn } from './peer-address.js'

const log = logger('p2p:peering')

const FIRST_PAUSE_MS = 500
const MAX_PAUSE_MS = 60_000
const DIAL_TIMEOUT_MS = 15_000
/** A connection that ended earlier counts as a failure. */
const STABLE_MS = 10_000

interface Named {
  id: string
  addresses: Multiaddr[]
  pauseMs: number
  connectedAt: number
  timer: NodeJS.Timeout | undefined
  lastError: string | null
}

export class Peering {
  readonly #node: Libp2p
  readonly #named = new Map<string, Named>()
  readonly #wanted: () => boolean
  readonly #stop = new AbortController()

  /** `addresses` with peer ids. While `wanted` is false nobody is dialled. */
  constructor(node: Libp2p, addresses: readonly string[], wanted: () => boolean = () => true) {
    this.#node = node
    this.#wanted = wanted
    for (const address of addresses.map(text => multiaddr(text))) this.#add(address)
  }

  start(): void {
    this.#node.addEventListener('peer:connect', this.#onConnect)
    this.#node.addEventListener('peer:disconnect', this.#onDisconnect)
    for (const named of this.#named.values()) this.#schedule(named, 0)
  }

  stop(): void {
    this.#stop.abort()
    this.#node.removeEventListener('peer:connect', this.#onConnect)
    this.#node.removeEventListener('peer:disconnect', this.#onDisconnect)
    for (const { timer } of this.#named.values()) clearTimeout(timer)
  }

  has(peerId: string): boolean {
    return this.#named.has(peerId)
  }

  /** Named peers that are not connected, with what their last dial met. */
  missing(): { id: string; error: string | null }[] {
    const connected = new Set(this.#node.getPeers().map(String))
    return [...this.#named.values()]
      .filter(({ id }) => !connected.has(id))
      .map(({ id, lastError }) => ({ id, error: lastError }))
  }

  #add(address: Multiaddr): void {
    const id = peerIdIn(address) ?? ''
    const known = this.#named.get(id)
    if (known !== undefined) return void known.addresses.push(address)
    this.#named.set(id, {
      id,
      addresses: [address],
      pauseMs: FIRST_PAUSE_MS,
      connectedAt: Number.NEGATIVE_INFINITY,
      timer: undefined,
      lastError: null,
    })
  }

  #onConnect = ({ detail }: CustomEvent<PeerId>): void => {
    const named = this.#named.get(detail.toString())
    if (named === undefined) return
    named.connectedAt = performance.now()
    named.lastError = null
  }

  #onDisconnect = ({ detail }: CustomEvent<PeerId>): void => {
    const named = this.#named.get(detail.toString())
    if (named === undefined) return
    if (performance.now() - named.connectedAt > STABLE_MS) named.pauseMs = FIRST_PAUSE_MS
    this.#schedule(named)
  }

  #schedule(named: Named, delayMs = this.#nextPause(named)): void {
    clearTimeout(named.timer)
    if (this.#stop.signal.aborted) return
    named.timer = setTimeout(() => void this.#dial(named), delayMs)
  }

  /** Spread a little, so that neighbours that fell together do not knock together. */
  #nextPause(named: Named): number {
    const pauseMs = named.pauseMs
    named.pauseMs = Math.min(MAX_PAUSE_MS, pauseMs * 2)
    return pauseMs * (0.75 + Math.random() / 2)
  }

  async #dial(named: Named): Promise<void> {
    const connected = this.#node.getPeers().some(id => id.toString() === named.id)
    if (connected) return
    if (!this.#wanted()) return this.#schedule(named)
    try {
      const signal = deadline(DIAL_TIMEOUT_MS, this.#stop.signal)
      await this.#node.dial(named.addresses, { signal })
    } catch (err) {
      named.lastError = messageOf(err)
      log('%s: %s', named.id, named.lastError)
      this.#schedule(named)
    }
  }
}
