/**
 * Which addresses of the internet anybody may be asked to dial.
 *
 * Invariant: an address that is not plainly a public unicast address of IPv4 or IPv6 is private; so is every host
 * name, since only whoever resolves it knows where it leads.
 * Why: a public record can name any address. Dialling it would let strangers knock on doors inside our network.
 *
 * Reference: the IANA registries of special-purpose addresses.
 */
import { BlockList, isIPv4, isIPv6 } from 'node:net'
import type { Multiaddr } from '@multiformats/multiaddr'

const PRIVATE_4 = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/3',
]
/** Of 2000::/3, the only part of IPv6 in public use; 2002::/16 and 2001::/23 wrap IPv4 addresses. */
const PRIVATE_6 = ['2001::/23', '2001:db8::/32', '2002::/16', '3fff::/20']

const private4 = blockList(PRIVATE_4, 'ipv4')
const private6 = blockList(PRIVATE_6, 'ipv6')
const public6 = blockList(['2000::/3'], 'ipv6')

function blockList(networks: string[], family: 'ipv4' | 'ipv6'): BlockList {
  const list = new BlockList()
  for (const network of networks) {
    const [address, prefix] = network.split('/') as [string, string]
    list.addSubnet(address, Number(prefix), family)
  }
  return list
}

/** Whether `host` is an IP address (not a name) that is reachable from the whole internet. */
export function isPublicIp(host: string): boolean {
  if (isIPv4(host)) return !private4.check(host, 'ipv4')
  return isIPv6(host) && public6.check(host, 'ipv6') && !private6.check(host, 'ipv6')
}

/** Whether a multiaddr begins with a public IP address. */
export function isPublicAddress(address: Multiaddr): boolean {
  const [host] = address.getComponents()
  return (host?.name === 'ip4' || host?.name === 'ip6') && isPublicIp(host.value ?? '')
}

/** Whether it begins with an IP address at all. */
export function isIpAddress(address: Multiaddr): boolean {
  const [host] = address.getComponents()
  return host?.name === 'ip4' || host?.name === 'ip6'
}
