/**
 * Records of names, asked of the network worker by the main thread.
 *
 * Invariant: what comes from there is verified; this side asks, and knows when there is no point in it.
 */
import type { NameNetwork } from './names.js'
import type { NetworkClient } from './worker-client.js'

/** The worker answers with what it has, before the call is given up. */
const GRACE_MS = 500

export function nameNetwork(client: NetworkClient): NameNetwork {
  return {
    get unavailable() {
      return client.unavailable === undefined ? undefined : 'offline, or no source is configured'
    },
    find: (name, { signal, deadlineMs }) => {
      const untilMs = Date.now() + Math.max(deadlineMs - GRACE_MS, deadlineMs / 2)
      return client.call('findRecord', { name, untilMs }, { signal, deadlineMs })
    },
    publish: (name, record, { signal }) =>
      client.call('publishRecord', { name, record }, { signal, deadlineMs: 70_000 }),
  }
}
