/** Nodes on loopback for the tests of this layer. */
import type { Test } from 'tap'
import type { BitswapHandler, InboundStream, PeerLink } from '../../src/bitswap/link.js'
import { Host, type HostOptions } from '../../src/p2p/host.js'
import type { NodeConfig } from '../../src/p2p/node-config.js'
import { tempDir } from '../support/temp.js'

/** A node that knows nobody and listens on loopback, with a state directory of its own. */
export async function nodeConfig(t: Test, options: Partial<NodeConfig> = {}): Promise<NodeConfig> {
  return {
    stateDir: await tempDir(t),
    userAgent: 'cidfs/test',
    listen: ['/ip4/127.0.0.1/tcp/0'],
    listenElsewhere: false,
    announce: [],
    bootstrap: [],
    peers: [],
    routers: [],
    dht: 'client',
    mdns: false,
    serve: 'all',
    dial: 'private',
    ...options,
  }
}

/** Notes what it hears of. */
export class Listener implements BitswapHandler {
  readonly links = new Map<string, PeerLink>()
  /** `+id`, `-id`, in order. */
  readonly events: string[] = []
  /** What came, per peer. */
  readonly received = new Map<string, Uint8Array[]>()
  ended = 0
  /** Decides what happens with a chunk. */
  take: (chunk: Uint8Array) => undefined | Promise<void> = () => undefined

  connected(link: PeerLink): void {
    this.events.push(`+${link.peerId}`)
    this.links.set(link.peerId, link)
  }

  disconnected(peerId: string): void {
    this.events.push(`-${peerId}`)
    this.links.delete(peerId)
  }

  receivedBytes(peerId: string): number {
    return (this.received.get(peerId) ?? []).reduce((sum, { length }) => sum + length, 0)
  }

  inbound(peerId: string): InboundStream {
    return {
      data: chunk => {
        this.received.set(peerId, [...(this.received.get(peerId) ?? []), chunk.slice()])
        return this.take(chunk)
      },
      end: () => {
        this.ended++
      },
    }
  }
}

export interface TestHost {
  host: Host
  bitswap: Listener
}

/** Runs until the test ends. */
export async function startHost(
  t: Test,
  options: Partial<NodeConfig> = {},
  more: Partial<HostOptions> = {},
): Promise<TestHost> {
  const bitswap = new Listener()
  const host = await Host.start(await nodeConfig(t, options), { bitswap, ...more })
  t.teardown(() => host.stop())
  return { host, bitswap }
}
