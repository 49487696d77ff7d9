/** What the embedded node says of itself: plain data, for `status`. */

import type { BitswapReport } from '../bitswap/bitswap.js'

export interface NodeStatus {
  /** `off`: not configured; `waiting`: it failed to start and will be started again. */
  state: 'off' | 'starting' | 'running' | 'waiting'
  /** Why it does not run; null while it does. */
  error: string | null
  peerId: string | null
  /** Multiaddrs others can dial, as far as we know. */
  addresses: string[]
  /** Who could dial them: anybody, those on the same network, nobody. */
  reachable: 'public' | 'local' | 'no'
  /** Connected ones, at most 100 of them. */
  peers: PeerStatus[]
  /** Peers of `--peer` that are not connected, and why. */
  missing: { id: string; error: string | null }[]
  connections: number
  /** Of bitswap, since the node started. */
  bytesIn: number
  bytesOut: number
  routers: RouterStatus[]
  /** What bitswap's peers have sent and been sent, and which of them are left alone; absent without a node. */
  bitswap?: BitswapReport
}

export interface PeerStatus {
  id: string
  address: string
  direction: 'inbound' | 'outbound'
  /** Named by `--peer`. */
  named: boolean
  /** Whether blocks can be asked of it. */
  bitswap: boolean
}

export interface RouterStatus {
  name: string
  lookups: number
  found: number
  errors: number
  lastError: string | null
  /** Peers in the routing table of a DHT; null for others. */
  tableSize: number | null
}

export const NODE_OFF: NodeStatus = {
  state: 'off',
  error: null,
  peerId: null,
  addresses: [],
  reachable: 'no',
  peers: [],
  missing: [],
  connections: 0,
  bytesIn: 0,
  bytesOut: 0,
  routers: [],
}
