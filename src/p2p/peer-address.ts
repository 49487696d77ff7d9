/** Multiaddrs of peers: whose they are. */
import { CODE_P2P, type Multiaddr, multiaddr } from '@multiformats/multiaddr'

/** The peer that a multiaddr names last (not a relay on the way). */
export function peerIdIn(address: Multiaddr): string | undefined {
  return address.getComponents().findLast(({ code }) => code === CODE_P2P)?.value
}

/** An address of this peer, with its id; undefined when the text is nonsense or names another peer. */
export function addressOf(id: string, text: string): Multiaddr | undefined {
  try {
    const address = multiaddr(text)
    const named = peerIdIn(address)
    if (named !== undefined) return named === id ? address : undefined
    return address.encapsulate(`/p2p/${id}`)
  } catch {
    return undefined
  }
}
