/**
 * DNSLink: what a DNS name leads to, in a TXT record `dnslink=/ipfs/…` of `_dnslink.<name>`.
 *
 * Invariant: what is returned has passed `parsePath`. A name without such a record is proven to lead nowhere;
 * records that are malformed are skipped, and an error when there is no other.
 *
 * Specification: https://dnslink.dev
 */
import { CidfsError } from '../core/errors.js'
import { type NamePath, parsePath } from '../p2p/ipns-path.js'
import type { TxtResolver } from './dns.js'

export interface DnsLink {
  path: NamePath
  ttlMs: number
}

const PREFIX = 'dnslink='

/**
 * The first valid link, in the order of their texts: servers shuffle records.
 * @throws CidfsError `NOT_FOUND`, `MALFORMED_DAG`, `UNREACHABLE`, `INTERRUPTED`.
 */
export async function resolveDnsLink(
  name: string,
  resolver: TxtResolver,
  signal: AbortSignal,
): Promise<DnsLink> {
  const { records } = await resolver.resolve(`_dnslink.${name}`, signal)
  const links = records.filter(({ text }) => text.startsWith(PREFIX))
  links.sort((a, b) => (a.text < b.text ? -1 : 1))
  let malformed: unknown
  for (const { text, ttlMs } of links) {
    try {
      return { path: parsePath(text.slice(PREFIX.length)), ttlMs }
    } catch (err) {
      malformed ??= err
    }
  }
  throw malformed ?? new CidfsError('NOT_FOUND', `${name} has no DNSLink (no TXT record at _dnslink.${name})`)
}
