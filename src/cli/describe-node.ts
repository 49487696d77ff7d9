/** The embedded node in `cidfs status`. */
import type { NodeReport } from '../daemon/node-services.js'
import { count, formatBytes, oneLine } from './output.js'

/** Of missing peers and of listening addresses. */
const MAX_LINES = 8

export function describeNode(node: NodeReport | null): string[] {
  if (node === null) return []
  if (node.state !== 'running') {
    return [`  node     ${node.state}${node.error === null ? '' : `: ${oneLine(node.error)}`}`]
  }
  const bitswap = node.peers.filter(peer => peer.bitswap).length
  const traffic = `${formatBytes(node.bytesIn)} in, ${formatBytes(node.bytesOut)} out`
  return [
    `  node     ${node.peerId}: ${count(node.connections, 'connection')}, ${bitswap} with bitswap; ${traffic}`,
    ...listening(node),
    ...describeBlocks(node),
    ...node.missing.slice(0, MAX_LINES).map(describeMissing),
    ...node.routers.map(describeRouter),
    `  provide  ${describeProviding(node.providing)}`,
  ]
}

function listening({ addresses, reachable }: NodeReport): string[] {
  if (addresses.length === 0) return ['  listen   nowhere: others cannot dial this node']
  const lines = addresses.slice(0, MAX_LINES).map(address => `  listen   ${address}`)
  if (reachable === 'public') return lines
  return [...lines, '  listen   on no public address: only the local network reaches this node (--announce)']
}

/** The peers that have sent most, those that are left alone, and what was served. */
function describeBlocks({ bitswap }: NodeReport): string[] {
  if (bitswap === undefined) return []
  const { peers, banned, served } = bitswap
  const useful = peers.filter(({ blocks }) => blocks > 0).sort((a, b) => b.bytes - a.bytes)
  return [
    ...useful.slice(0, MAX_LINES).map(({ peerId, blocks, bytes, latencyMs }) => {
      return `  from     ${peerId}: ${count(blocks, 'block')}, ${formatBytes(bytes)}, ${latencyMs} ms to answer`
    }),
    ...banned.slice(0, MAX_LINES).map(({ peerId, reason }) => `  dropped  ${peerId}: ${oneLine(reason)}`),
    `  served   ${count(served.blocks, 'block')}, ${formatBytes(served.bytes)}`,
  ]
}

function describeMissing({ id, error }: NodeReport['missing'][number]): string {
  return `  peer     ${id} is not connected${error === null ? '' : ` (last: ${oneLine(error)})`}`
}

function describeRouter({
  name,
  tableSize,
  lookups,
  found,
  errors,
  lastError,
}: NodeReport['routers'][number]) {
  const table = tableSize === null ? '' : `knows ${count(tableSize, 'peer')}, `
  const error = lastError === null ? '' : ` (last: ${oneLine(lastError)})`
  return `  routing  ${name}: ${table}${count(lookups, 'lookup')}, ${count(found, 'provider')} found, ${count(errors, 'failure')}${error}`
}

function describeProviding({ what, provided, queued, paused, lastError }: NodeReport['providing']): string {
  const names = { roots: 'roots of pins', all: 'all pinned blocks', off: 'nothing' }
  const why = paused === null ? '' : `; not now: ${oneLine(paused)}`
  const error = lastError === null ? '' : ` (last: ${oneLine(lastError)})`
  return `${names[what]}: ${count(provided, 'record')} out, ${queued} on the way${what === 'off' ? '' : why}${error}`
}
